"""Who asks and whether they may: ServiceAccount tokens, RBAC (rbac.authorization.k8s.io/v1), and a
record of every call.

1. The lab's own parts send no credentials or `ADMIN_TOKEN`, and are the administrator, whom nothing
   is refused (group system:masters). A real server takes who sends none for system:anonymous.
2. A ServiceAccount has the tokens that were asked for by TokenRequest; they end with their time and
   with the account.
3. What a call is, follows from method and URL alone, before it is known whether there is such a
   kind (RequestInfo in k8s.io/apiserver).
4. Rules are those of the RBAC objects as they are at that moment. They add up; nothing denies.
   Aggregated ClusterRoles are resolved when they are used; on a real cluster a controller writes
   the rules into them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_urlsafe
from typing import NamedTuple

from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.errors import ApiError, named
from aimlab.apiserver.objects import Obj, dig, stamp
from aimlab.apiserver.store import Change, CollectionKey
from aimschema.resources import qualified

RBAC_GROUP = "rbac.authorization.k8s.io"
ACCOUNTS = ("", "serviceaccounts")
ADMIN_TOKEN = "lab"  # noqa: S105  (it opens nothing but a double on loopback)
MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
ACCOUNT_PREFIX = "system:serviceaccount"
NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
VERB_OF = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
TOKEN_S = 3600
SHORTEST_TOKEN_S = 600

EVERYBODY = 'ClusterRoleBinding "{0}" of ClusterRole "{0}" to Group "system:authenticated"'
DISCOVERY_URLS = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
]
FOR_EVERYBODY: tuple[tuple[str, Obj], ...] = (
    ("system:discovery", {"nonResourceURLs": DISCOVERY_URLS, "verbs": ["get"]}),
    (
        "system:basic-user",
        {
            "apiGroups": ["authorization.k8s.io"],
            "resources": ["selfsubjectaccessreviews"],
            "verbs": ["create"],
        },
    ),
)
"""What these ClusterRoles (and system:public-info-viewer, which is in the first here) give to
all who are authenticated."""

AGGREGATE = f"{RBAC_GROUP}/aggregate-to-"
USER_ROLES = {"admin": ("admin", "edit", "view"), "edit": ("edit", "view"), "view": ("view",)}
"""The ClusterRoles for users that every cluster has, and what is aggregated to each. Here they
have nothing else, and are there unless created."""


@dataclass(frozen=True)
class User:
    name: str
    groups: frozenset[str]


ADMIN = User("system:admin", frozenset({MASTERS, AUTHENTICATED}))


def account(namespace: str, name: str) -> User:
    """The user that a ServiceAccount is."""
    groups = frozenset({f"{ACCOUNT_PREFIX}s", f"{ACCOUNT_PREFIX}s:{namespace}", AUTHENTICATED})
    return User(f"{ACCOUNT_PREFIX}:{namespace}:{name}", groups)


class Attributes(NamedTuple):
    """What is asked for: a resource (`pods`, `pods/log`), or else a path. `namespace` is "" for
    all namespaces and for cluster-scoped kinds."""

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Granted(NamedTuple):
    """A rule that a user has, where it holds ("": everywhere), and which binding gives it, in
    the words of a real server."""

    namespace: str
    rule: Obj
    by: str


class Call(NamedTuple):
    """One kind of call that a user made, and whether it was granted."""

    user: str
    verb: str
    group: str
    resource: str
    namespace: str
    granted: bool


def attributes(method: str, path: str, query: Mapping[str, str]) -> Attributes:
    """What a request asks for."""
    parts = path.strip("/").split("/")
    verb = VERB_OF.get(method, method.lower())
    if parts[0] == "api" and len(parts) > 2:
        group, rest = "", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, rest = parts[1], parts[3:]
    else:
        return Attributes(method.lower(), path=path)
    namespace = rest[1] if rest[0] == "namespaces" and len(rest) > 1 else ""
    if namespace and len(rest) > 2 and rest[2] not in NAMESPACE_SUBRESOURCES:
        rest = rest[2:]
    resource, name, subresource = [*rest, "", ""][:3]
    if not name and verb == "get":
        verb = "watch" if query.get("watch") in ("true", "1") else "list"
    elif not name and verb == "delete":
        verb = "deletecollection"
    if not name and verb in ("list", "watch", "deletecollection"):
        name = _one_name(query.get("fieldSelector", ""))
    return Attributes(
        verb, group, f"{resource}/{subresource}" if subresource else resource, namespace, name
    )


def _one_name(field_selector: str) -> str:
    """The name that a selection is limited to; so far a rule with resourceNames can allow it."""
    terms = dict(
        term.replace("==", "=").split("=", 1)
        for term in field_selector.split(",")
        if "=" in term and "!=" not in term
    )
    return terms.get("metadata.name", "")


def allows(rule: Obj, asked: Attributes) -> bool:
    """Whether a PolicyRule allows it."""
    verbs = rule.get("verbs") or ()
    if "*" not in verbs and asked.verb not in verbs:
        return False
    if asked.path:
        return any(
            asked.path == url or (url.endswith("*") and asked.path.startswith(url[:-1]))
            for url in rule.get("nonResourceURLs") or ()
        )
    groups, resources, names = (
        rule.get("apiGroups") or (),
        rule.get("resources") or (),
        rule.get("resourceNames") or (),
    )
    _, slash, subresource = asked.resource.partition("/")
    return (
        ("*" in groups or asked.group in groups)
        and (
            "*" in resources
            or asked.resource in resources
            or (bool(slash) and f"*/{subresource}" in resources)
        )
        and (not names or asked.name in names)
    )


def is_subject(subject: Obj, user: User, namespace: str) -> bool:
    """Whether a binding's subject is this user. `namespace`: that of the binding, where a
    ServiceAccount names none."""
    match subject.get("kind"):
        case "User":
            return subject.get("name") == user.name
        case "Group":
            return subject.get("name") in user.groups
        case "ServiceAccount":
            return (
                f"{ACCOUNT_PREFIX}:{subject.get('namespace') or namespace}:{subject.get('name')}"
                == user.name
            )
        case _:
            return False


def forbidden(user: User, asked: Attributes, why: str = "") -> ApiError:
    """403 in the words of a real server; `why` is what the authorizer adds, mostly nothing."""
    more = f": {why}" if why else ""
    if asked.path:
        return ApiError(
            403,
            "Forbidden",
            f'forbidden: User "{user.name}" cannot {asked.verb} path "{asked.path}"{more}',
            {},
        )
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    words = (
        f'User "{user.name}" cannot {asked.verb} resource "{asked.resource}" in API group'
        f' "{asked.group}" {where}{more}'
    )
    return _refused(asked, words)


def _refused(asked: Attributes, words: str) -> ApiError:
    plural = asked.resource.partition("/")[0]
    subject = qualified(plural, asked.group) + (f' "{asked.name}"' if asked.name else "")
    return ApiError(
        403, "Forbidden", f"{subject} is forbidden: {words}", named(asked.group, plural, asked.name)
    )


def _described(binding: Obj, subject: Obj, namespace: str) -> str:
    """As a real server names a binding in the reason of an answer
    (plugin/pkg/auth/authorizer/rbac and registry/rbac/validation)."""
    kind, name, role = (
        "RoleBinding",
        f"{binding['metadata']['name']}/{namespace}",
        binding["roleRef"],
    )
    if not namespace:
        kind, name = "ClusterRoleBinding", binding["metadata"]["name"]
    is_account = subject["kind"] == "ServiceAccount"
    who = (
        f"{subject['name']}/{subject.get('namespace') or namespace}"
        if is_account
        else subject["name"]
    )
    return f'{kind} "{name}" of {role["kind"]} "{role["name"]}" to {subject["kind"]} "{who}"'


def _user_role(plural: str, name: str) -> Obj | None:
    if plural != "clusterroles" or name not in USER_ROLES:
        return None
    return {
        "aggregationRule": {
            "clusterRoleSelectors": [
                {"matchLabels": {f"{AGGREGATE}{to}": "true"}} for to in USER_ROLES[name]
            ]
        }
    }


class _Token(NamedTuple):
    user: User
    uid: str
    ends: datetime


class Access:
    """Authentication and authorization for one cluster. `calls` is every kind of call that
    anybody has made."""

    def __init__(self, cluster: Cluster) -> None:
        self.calls: set[Call] = set()
        self._cluster = cluster
        self._tokens: dict[str, _Token] = {}
        self._rules: dict[User, tuple[list[Granted], list[str]]] = {}
        cluster.store.observers.append(self._forget_rules)

    def user_of(self, headers: Mapping[str, str]) -> User:
        """Who sends these headers; the administrator may speak for others (Impersonate-User).
        ApiError 401 or 403."""
        user = self._authenticated(headers.get("Authorization", ""))
        other = headers.get("Impersonate-User", "")
        if not other:
            return user
        if MASTERS not in user.groups:
            raise forbidden(user, Attributes("impersonate", resource="users", name=other))
        prefix, _, rest = other.rpartition(f"{ACCOUNT_PREFIX}:")
        namespace, colon, name = rest.partition(":")
        return (
            account(namespace, name)
            if colon and not prefix
            else User(other, frozenset({AUTHENTICATED}))
        )

    def _authenticated(self, header: str) -> User:
        scheme, _, secret = header.partition(" ")
        if not header or (scheme.lower() == "bearer" and secret == ADMIN_TOKEN):
            return ADMIN
        token = self._tokens.get(secret) if scheme.lower() == "bearer" else None
        if token is None or token.ends < self._cluster.now() or not self._is_there(token):
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return token.user

    def _is_there(self, token: _Token) -> bool:
        _, _, namespace, name = token.user.name.split(":")
        entry = self._cluster.store.collections[ACCOUNTS].get(namespace, name)
        return entry is not None and entry.obj["metadata"]["uid"] == token.uid

    def issue(self, namespace: str, name: str, wanted_s: int | None) -> Obj:
        """The `status` of a TokenRequest (authentication.k8s.io/v1) for a ServiceAccount that is
        there."""
        uid = (
            self._cluster.store.collections[ACCOUNTS]
            .objects[namespace][name]
            .obj["metadata"]["uid"]
        )
        ends = self._cluster.now() + timedelta(seconds=max(wanted_s or TOKEN_S, SHORTEST_TOKEN_S))
        secret = token_urlsafe()
        self._tokens[secret] = _Token(account(namespace, name), uid, ends)
        return {"token": secret, "expirationTimestamp": stamp(ends)}

    def require(self, user: User, asked: Attributes) -> None:
        """ApiError 403 unless it is granted; recorded either way."""
        granted, why = self.decide(user, asked)
        self._record(user, asked, granted=granted)
        if not granted:
            raise forbidden(user, asked, why)

    def require_create(self, user: User, applied: Attributes) -> None:
        """What an apply that makes an object needs beside `patch`. A real server refuses without
        saying what is missing (its withAuthorization)."""
        asked = applied._replace(verb="create")
        granted, why = self.decide(user, asked)
        self._record(user, asked, granted=granted)
        if not granted:
            raise _refused(asked, why)

    def decide(self, user: User, asked: Attributes) -> tuple[bool, str]:
        """Whether it is granted, and why; if not, what a person has to know beside
        (rbac.authorization.k8s.io, VisitRulesFor)."""
        if MASTERS in user.groups:
            return True, ""
        if user not in self._rules:
            problems: list[str] = []
            basic = [Granted("", rule, EVERYBODY.format(name)) for name, rule in FOR_EVERYBODY]
            self._rules[user] = (basic + list(self._bound(user, problems)), problems)
        rules, problems = self._rules[user]
        for where, rule, by in rules:
            if where in ("", asked.namespace) and allows(rule, asked):
                return True, f"RBAC: allowed by {by}"
        return False, f"RBAC: {', '.join(problems)}" if problems else ""

    def _record(self, user: User, asked: Attributes, *, granted: bool) -> None:
        self.calls.add(
            Call(
                user.name,
                asked.verb,
                asked.group,
                asked.resource or asked.path,
                asked.namespace,
                granted,
            )
        )

    def _bound(self, user: User, problems: list[str]) -> Iterator[Granted]:
        """The rules that bindings give a user."""
        for namespace, binding in self._bindings():
            subject = next(
                (
                    subject
                    for subject in binding.get("subjects") or ()
                    if is_subject(subject, user, namespace)
                ),
                None,
            )
            if subject is not None:
                role = binding["roleRef"]
                plural, place = (
                    ("roles", namespace) if role["kind"] == "Role" else ("clusterroles", "")
                )
                entry = self._cluster.store.collections[RBAC_GROUP, plural].get(place, role["name"])
                obj = entry.obj if entry else _user_role(plural, role["name"])
                if obj is None:
                    problems.append(
                        f'{role["kind"].lower()}.{RBAC_GROUP} "{role["name"]}" not found'
                    )
                for rule in self._rules_of(obj) if obj else ():
                    yield Granted(namespace, rule, _described(binding, subject, namespace))

    def _rules_of(self, role: Obj) -> Iterator[Obj]:
        """The rules of a role; for an aggregated one, those of the ClusterRoles that it selects
        by label."""
        chosen = dig(role, "aggregationRule", "clusterRoleSelectors")
        if not chosen:
            yield from dig(role, "rules") or ()
            return
        for entry in self._cluster.store.collections[RBAC_GROUP, "clusterroles"].entries(None):
            labels = (dig(entry.obj, "metadata", "labels") or {}).items()
            if "aggregationRule" not in entry.obj and any(
                (one.get("matchLabels") or {}).items() <= labels for one in chosen
            ):
                yield from dig(entry.obj, "rules") or ()

    def _bindings(self) -> Iterable[tuple[str, Obj]]:
        for plural in ("clusterrolebindings", "rolebindings"):
            for entry in self._cluster.store.collections[RBAC_GROUP, plural].entries(None):
                yield entry.obj["metadata"].get("namespace", ""), entry.obj

    def _forget_rules(self, key: CollectionKey, _change: Change) -> None:
        if key[0] == RBAC_GROUP:
            self._rules.clear()
