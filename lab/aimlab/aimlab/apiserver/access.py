"""Authentication and authorization: ServiceAccount tokens, RBAC (rbac.authorization.k8s.io/v1), and
a record of every call.

1. The lab's own parts send no credentials or `ADMIN_TOKEN`. They are the administrator (group
   system:masters), who is allowed everything. A real server treats a client without credentials as
   system:anonymous.
2. A ServiceAccount has the tokens that TokenRequest issued. They expire with their time and with
   the account.
3. The attributes of a call follow from method and URL alone, before the kind is known (RequestInfo
   in k8s.io/apiserver).
4. The rules are those of the RBAC objects at that moment. They add up; nothing denies. Aggregated
   ClusterRoles are resolved at each use; on a real cluster a controller writes the rules into them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_urlsafe
from typing import NamedTuple

from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.errors import ApiError, object_details
from aimlab.apiserver.objects import Obj, dig, stamp
from aimlab.apiserver.store import Change, CollectionKey
from aimschema.resources import qualified_name

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
    """A rule of a user, the namespace where it holds ("": everywhere), and the binding that grants
    it, in the wording of a real server."""

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


def allows(rule: Obj, requested: Attributes) -> bool:
    """Whether a PolicyRule allows it."""
    verbs = rule.get("verbs") or ()
    if "*" not in verbs and requested.verb not in verbs:
        return False
    if requested.path:
        return any(
            requested.path == url or (url.endswith("*") and requested.path.startswith(url[:-1]))
            for url in rule.get("nonResourceURLs") or ()
        )
    groups = rule.get("apiGroups") or ()
    resources = rule.get("resources") or ()
    names = rule.get("resourceNames") or ()
    _, slash, subresource = requested.resource.partition("/")
    return (
        ("*" in groups or requested.group in groups)
        and (
            "*" in resources
            or requested.resource in resources
            or (bool(slash) and f"*/{subresource}" in resources)
        )
        and (not names or requested.name in names)
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


def forbidden(user: User, requested: Attributes, why: str = "") -> ApiError:
    """403 in the wording of a real server. `why` is what the authorizer adds, usually nothing."""
    more = f": {why}" if why else ""
    if requested.path:
        return ApiError(
            403,
            "Forbidden",
            f'forbidden: User "{user.name}" cannot {requested.verb} path "{requested.path}"{more}',
            {},
        )
    where = (
        f'in the namespace "{requested.namespace}"'
        if requested.namespace
        else "at the cluster scope"
    )
    message = (
        f'User "{user.name}" cannot {requested.verb} resource "{requested.resource}" in API group'
        f' "{requested.group}" {where}{more}'
    )
    return _forbidden(requested, message)


def _forbidden(requested: Attributes, message: str) -> ApiError:
    plural = requested.resource.partition("/")[0]
    subject = qualified_name(plural, requested.group) + (
        f' "{requested.name}"' if requested.name else ""
    )
    return ApiError(
        403,
        "Forbidden",
        f"{subject} is forbidden: {message}",
        object_details(requested.group, plural, requested.name),
    )


def _describe_binding(binding: Obj, subject: Obj, namespace: str) -> str:
    """As a real server names a binding in the reason of an answer
    (plugin/pkg/auth/authorizer/rbac and registry/rbac/validation)."""
    kind = "RoleBinding"
    name = f"{binding['metadata']['name']}/{namespace}"
    role = binding["roleRef"]
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
    """Authentication and authorization for one cluster. `calls` counts every kind of call."""

    def __init__(self, cluster: Cluster) -> None:
        self.calls: Counter[Call] = Counter()
        self._cluster = cluster
        self._tokens: dict[str, _Token] = {}
        self._rules: dict[User, tuple[list[Granted], list[str]]] = {}
        cluster.store.observers.append(self._forget_rules)

    def user_of(self, headers: Mapping[str, str]) -> User:
        """Who sends these headers; the administrator may speak for others (Impersonate-User).
        ApiError 401 or 403."""
        user = self._authenticate(headers.get("Authorization", ""))
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

    def _authenticate(self, header: str) -> User:
        scheme, _, secret = header.partition(" ")
        if not header or (scheme.lower() == "bearer" and secret == ADMIN_TOKEN):
            return ADMIN
        token = self._tokens.get(secret) if scheme.lower() == "bearer" else None
        if token is None or token.ends < self._cluster.now() or not self._exists(token):
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return token.user

    def _exists(self, token: _Token) -> bool:
        _, _, namespace, name = token.user.name.split(":")
        entry = self._cluster.store.collections[ACCOUNTS].get(namespace, name)
        return entry is not None and entry.obj["metadata"]["uid"] == token.uid

    def issue(self, namespace: str, name: str, requested_s: int | None) -> Obj:
        """The `status` of a TokenRequest (authentication.k8s.io/v1) for a ServiceAccount that is
        there."""
        uid = (
            self._cluster.store.collections[ACCOUNTS]
            .objects[namespace][name]
            .obj["metadata"]["uid"]
        )
        ends = self._cluster.now() + timedelta(
            seconds=max(requested_s or TOKEN_S, SHORTEST_TOKEN_S)
        )
        secret = token_urlsafe()
        self._tokens[secret] = _Token(account(namespace, name), uid, ends)
        return {"token": secret, "expirationTimestamp": stamp(ends)}

    def require(self, user: User, requested: Attributes) -> None:
        """ApiError 403 unless it is granted; recorded either way."""
        granted, why = self.decide(user, requested)
        self._record(user, requested, granted=granted)
        if not granted:
            raise forbidden(user, requested, why)

    def require_create(self, user: User, applied: Attributes) -> None:
        """What an apply that creates an object needs beside `patch`. A real server rejects it
        without naming what is missing (its withAuthorization)."""
        requested = applied._replace(verb="create")
        granted, why = self.decide(user, requested)
        self._record(user, requested, granted=granted, requests=0)
        if not granted:
            raise _forbidden(requested, why)

    def decide(self, user: User, requested: Attributes) -> tuple[bool, str]:
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
            if where in ("", requested.namespace) and allows(rule, requested):
                return True, f"RBAC: allowed by {by}"
        return False, f"RBAC: {', '.join(problems)}" if problems else ""

    def _record(
        self, user: User, requested: Attributes, *, granted: bool, requests: int = 1
    ) -> None:
        call = Call(
            user.name,
            requested.verb,
            requested.group,
            requested.resource or requested.path,
            requested.namespace,
            granted,
        )
        self.calls[call] += requests

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
                    yield Granted(namespace, rule, _describe_binding(binding, subject, namespace))

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
