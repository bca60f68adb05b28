"""Authentication and RBAC of the double: the rules as tables, then over HTTP. With kubectl:
test_kubectl."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
import pytest

from aimlab.apiserver import ApiServer
from aimlab.apiserver.access import (
    ADMIN_TOKEN,
    Access,
    Attributes,
    Call,
    User,
    account,
    allows,
    attributes,
    is_subject,
)
from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.errors import ApiError
from aimlab.apiserver.writes import APPLY

RBAC = "/apis/rbac.authorization.k8s.io/v1"
JOB = {
    "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x:1"}]}}
}


@pytest.mark.parametrize(
    ("method", "url", "expected"),
    [
        ("GET", "/api/v1/pods", Attributes("list", "", "pods")),
        ("GET", "/api/v1/namespaces/a/pods", Attributes("list", "", "pods", "a")),
        ("GET", "/api/v1/namespaces/a/pods/p", Attributes("get", "", "pods", "a", "p")),
        ("HEAD", "/api/v1/namespaces/a/pods/p", Attributes("get", "", "pods", "a", "p")),
        (
            "GET",
            "/api/v1/namespaces/a/pods/p/log?follow=true",
            Attributes("get", "", "pods/log", "a", "p"),
        ),
        ("GET", "/apis/batch/v1/jobs?watch=true", Attributes("watch", "batch", "jobs")),
        ("GET", "/apis/batch/v1/jobs?watch=0", Attributes("list", "batch", "jobs")),
        (
            "GET",
            "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Ds",
            Attributes("list", "", "secrets", "a", "s"),
        ),
        (
            "GET",
            "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name!%3Ds",
            Attributes("list", "", "secrets", "a"),
        ),
        ("POST", "/apis/batch/v1/namespaces/a/jobs", Attributes("create", "batch", "jobs", "a")),
        (
            "PUT",
            "/apis/batch/v1/namespaces/a/jobs/j",
            Attributes("update", "batch", "jobs", "a", "j"),
        ),
        (
            "PATCH",
            "/apis/batch/v1/namespaces/a/jobs/j/status",
            Attributes("patch", "batch", "jobs/status", "a", "j"),
        ),
        (
            "DELETE",
            "/apis/batch/v1/namespaces/a/jobs/j",
            Attributes("delete", "batch", "jobs", "a", "j"),
        ),
        (
            "DELETE",
            "/apis/batch/v1/namespaces/a/jobs",
            Attributes("deletecollection", "batch", "jobs", "a"),
        ),
        ("GET", "/api/v1/namespaces", Attributes("list", "", "namespaces")),
        ("GET", "/api/v1/namespaces/a", Attributes("get", "", "namespaces", "a", "a")),
        (
            "PUT",
            "/api/v1/namespaces/a/finalize",
            Attributes("update", "", "namespaces/finalize", "a", "a"),
        ),
        (
            "POST",
            "/api/v1/namespaces/a/serviceaccounts/s/token",
            Attributes("create", "", "serviceaccounts/token", "a", "s"),
        ),
        ("GET", "/api/v1", Attributes("get", path="/api/v1")),
        ("GET", "/apis/batch/v1", Attributes("get", path="/apis/batch/v1")),
        ("GET", "/version", Attributes("get", path="/version")),
        ("POST", "/metrics", Attributes("post", path="/metrics")),
    ],
)
def test_what_a_request_asks_for(method: str, url: str, expected: Attributes) -> None:
    path, _, query = url.partition("?")
    pairs = dict(pair.split("=", 1) for pair in query.replace("%3D", "==").split("&") if pair)
    assert attributes(method, path, pairs) == expected


def rule(
    verbs: str, resources: str = "", group: str = "", names: str = "", urls: str = ""
) -> dict[str, Any]:
    found = {
        "verbs": verbs.split(),
        "apiGroups": [group],
        "resources": resources.split(),
        "resourceNames": names.split(),
    }
    return found | {"nonResourceURLs": urls.split()}


@pytest.mark.parametrize(
    ("rule", "requested", "allowed"),
    [
        pytest.param(
            rule("get list", "pods"), Attributes("list", "", "pods"), True, id="verb and resource"
        ),
        pytest.param(
            rule("get", "pods"), Attributes("list", "", "pods"), False, id="get is not list"
        ),
        pytest.param(
            rule("list", "pods"), Attributes("watch", "", "pods"), False, id="list is not watch"
        ),
        pytest.param(
            rule("patch", "pods"), Attributes("update", "", "pods"), False, id="patch is not update"
        ),
        pytest.param(
            rule("delete", "pods"),
            Attributes("deletecollection", "", "pods"),
            False,
            id="delete is not deletecollection",
        ),
        pytest.param(
            rule("*", "pods"), Attributes("deletecollection", "", "pods"), True, id="any verb"
        ),
        pytest.param(
            rule("get", "jobs"), Attributes("get", "batch", "jobs"), False, id="another group"
        ),
        pytest.param(
            rule("get", "jobs", "*"), Attributes("get", "batch", "jobs"), True, id="any group"
        ),
        pytest.param(
            rule("get", "pods"),
            Attributes("get", "", "pods/log"),
            False,
            id="the kind is not its subresource",
        ),
        pytest.param(
            rule("get", "pods/log"), Attributes("get", "", "pods/log"), True, id="subresource"
        ),
        pytest.param(
            rule("get", "pods/log"),
            Attributes("get", "", "pods"),
            False,
            id="the subresource is not its kind",
        ),
        pytest.param(
            rule("get", "*/log"),
            Attributes("get", "", "pods/log"),
            True,
            id="a subresource of any kind",
        ),
        pytest.param(
            rule("get", "pods/*"),
            Attributes("get", "", "pods/log"),
            False,
            id="there are no other patterns",
        ),
        pytest.param(rule("get", "*"), Attributes("get", "", "pods/log"), True, id="any resource"),
        pytest.param(
            rule("get", "pods", names="a b"),
            Attributes("get", "", "pods", "n", "b"),
            True,
            id="named",
        ),
        pytest.param(
            rule("get", "pods", names="a b"),
            Attributes("get", "", "pods", "n", "c"),
            False,
            id="named another",
        ),
        pytest.param(
            rule("create", "pods", names="a"),
            Attributes("create", "", "pods", "n"),
            False,
            id="a create has no name",
        ),
        pytest.param(
            rule("get", urls="/healthz"), Attributes("get", path="/healthz"), True, id="path"
        ),
        pytest.param(
            rule("get", urls="/apis/*"),
            Attributes("get", path="/apis/batch/v1"),
            True,
            id="paths under",
        ),
        pytest.param(
            rule("get", urls="/healthz"),
            Attributes("get", path="/healthz/ping"),
            False,
            id="no path under",
        ),
        pytest.param(
            rule("get", "*", "*"),
            Attributes("get", path="/healthz"),
            False,
            id="resources are no paths",
        ),
    ],
)
def test_what_a_rule_allows(rule: dict[str, Any], requested: Attributes, allowed: bool) -> None:
    assert allows(rule, requested) is allowed


@pytest.mark.parametrize(
    ("subject", "matches"),
    [
        ({"kind": "ServiceAccount", "name": "app", "namespace": "a"}, True),
        ({"kind": "ServiceAccount", "name": "app"}, False),
        ({"kind": "ServiceAccount", "name": "other", "namespace": "a"}, False),
        ({"kind": "User", "name": "system:serviceaccount:a:app"}, True),
        ({"kind": "Group", "name": "system:serviceaccounts"}, True),
        ({"kind": "Group", "name": "system:serviceaccounts:a"}, True),
        ({"kind": "Group", "name": "system:serviceaccounts:b"}, False),
        ({"kind": "Group", "name": "system:authenticated"}, True),
        ({"kind": "Robot", "name": "app"}, False),
    ],
    ids=str,
)
def test_who_a_subject_is(subject: dict[str, Any], matches: bool) -> None:
    assert is_subject(subject, account("a", "app"), "elsewhere") is matches


def test_a_binding_defaults_to_the_namespace_of_its_account() -> None:
    assert is_subject({"kind": "ServiceAccount", "name": "app"}, account("a", "app"), "a")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)


def test_a_token_ends_with_its_time_and_with_its_account() -> None:
    clock = Clock()
    cluster = Cluster(now=lambda: clock.now)
    access = Access(cluster)
    accounts = ("", "serviceaccounts")
    cluster.store.put(
        accounts,
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "app", "namespace": "a", "uid": "1"},
        },
    )
    headers = [
        {"Authorization": f"Bearer {access.issue('a', 'app', seconds)['token']}"}
        for seconds in (700, 10_000)
    ]
    assert [access.user_of(sent).name for sent in headers] == ["system:serviceaccount:a:app"] * 2
    clock.now += timedelta(seconds=701)
    with pytest.raises(ApiError, match="Unauthorized"):
        access.user_of(headers[0])
    assert access.user_of(headers[1]) == account("a", "app")
    cluster.store.put(
        accounts,
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "app", "namespace": "a", "uid": "2"},
        },
    )
    with pytest.raises(ApiError, match="Unauthorized"):
        access.user_of(headers[1])


@pytest.mark.parametrize("header", ["Bearer wrong", f"Basic {ADMIN_TOKEN}", "Bearer"])
def test_credentials_that_are_not_known_are_nobodys(header: str) -> None:
    with pytest.raises(ApiError) as caught:
        Access(Cluster()).user_of({"Authorization": header})
    assert caught.value.body() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }


def test_only_the_administrator_may_impersonate() -> None:
    cluster = Cluster()
    access = Access(cluster)
    assert access.user_of({"Impersonate-User": "system:serviceaccount:a:app"}) == account(
        "a", "app"
    )
    assert access.user_of({"Impersonate-User": "jane"}) == User(
        "jane", frozenset({"system:authenticated"})
    )
    cluster.store.put(
        ("", "serviceaccounts"),
        {"kind": "ServiceAccount", "metadata": {"name": "app", "namespace": "a", "uid": "1"}},
    )
    token = access.issue("a", "app", None)["token"]
    with pytest.raises(
        ApiError,
        match=(
            'users "jane" is forbidden: User "system:serviceaccount:a:app" cannot impersonate'
            ' resource "users"'
        ),
    ):
        access.user_of({"Authorization": f"Bearer {token}", "Impersonate-User": "jane"})


class As:
    """Requests of one account, and of the administrator."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.token = ADMIN_TOKEN

    async def admin(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self(method, path, body, token=ADMIN_TOKEN)
        assert status < 300, answer
        return answer

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        kind: str = "application/json",
        token: str = "",
    ) -> tuple[int, Any]:
        headers = {"Content-Type": kind, "Authorization": f"Bearer {token or self.token}"}
        data = None if body is None else msgspec.json.encode(body)
        async with self.session.request(method, path, data=data, headers=headers) as answer:
            raw = await answer.read()
            return answer.status, (
                msgspec.json.decode(raw) if answer.content_type.endswith("json") else raw.decode()
            )

    async def grant(self, name: str, rules: list[dict[str, Any]], namespace: str = "") -> None:
        """Give the account a separate role, cluster-wide or in a namespace."""
        prefix, place = ("", f"{RBAC}/namespaces/{namespace}") if namespace else ("Cluster", RBAC)
        metadata = {"name": name}
        await self.admin(
            "POST", f"{place}/{prefix.lower()}roles", {"metadata": metadata, "rules": rules}
        )
        subjects = [{"kind": "ServiceAccount", "name": "app", "namespace": "a"}]
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": f"{prefix}Role", "name": name}
        await self.admin(
            "POST",
            f"{place}/{prefix.lower()}rolebindings",
            {"metadata": metadata, "roleRef": role, "subjects": subjects},
        )


@pytest.fixture
async def app(server: ApiServer) -> AsyncIterator[As]:
    """The account `app` of namespace `a`, which may do nothing yet."""
    async with aiohttp.ClientSession(server.url, trust_env=False) as session:
        found = As(session)
        for namespace in ("a", "c"):
            await found.admin("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        await found.admin(
            "POST", "/api/v1/namespaces/a/serviceaccounts", {"metadata": {"name": "app"}}
        )
        answer = await found.admin(
            "POST", "/api/v1/namespaces/a/serviceaccounts/app/token", {"spec": {}}
        )
        found.token = answer["status"]["token"]
        yield found


@pytest.mark.parametrize(
    ("method", "path", "message", "details"),
    [
        (
            "GET",
            "/apis/batch/v1/namespaces/c/jobs/x",
            (
                'jobs.batch "x" is forbidden: User "system:serviceaccount:a:app" cannot get'
                ' resource "jobs" in API group "batch" in the namespace "c"'
            ),
            {"name": "x", "group": "batch", "kind": "jobs"},
        ),
        (
            "GET",
            "/api/v1/secrets",
            (
                'secrets is forbidden: User "system:serviceaccount:a:app" cannot list resource'
                ' "secrets" in API group "" at the cluster scope'
            ),
            {"kind": "secrets"},
        ),
        (
            "GET",
            "/api/v1/namespaces/c/pods/p/log",
            (
                'pods "p" is forbidden: User "system:serviceaccount:a:app" cannot get resource'
                ' "pods/log" in API group "" in the namespace "c"'
            ),
            {"name": "p", "kind": "pods"},
        ),
        (
            "GET",
            "/apis/nowhere.example.com/v1/things",
            (
                'things.nowhere.example.com is forbidden: User "system:serviceaccount:a:app" cannot'
                ' list resource "things" in API group "nowhere.example.com" at the cluster scope'
            ),
            {"group": "nowhere.example.com", "kind": "things"},
        ),
        (
            "GET",
            "/lab/calls",
            'forbidden: User "system:serviceaccount:a:app" cannot get path "/lab/calls"',
            {},
        ),
    ],
)
async def test_what_is_not_granted_is_forbidden_as_by_a_real_server(
    app: As, method: str, path: str, message: str, details: dict[str, str]
) -> None:
    status, body = await app(method, path)
    assert (status, body["reason"], body["message"], body["details"]) == (
        403,
        "Forbidden",
        message,
        details,
    )


@pytest.mark.parametrize(
    "path", ["/version", "/api", "/apis", "/apis/batch/v1", "/openapi/v3", "/readyz"]
)
async def test_everybody_who_is_known_may_discover(app: As, path: str) -> None:
    assert (await app("GET", path))[0] == 200


async def test_a_role_is_namespaced_and_a_cluster_role_is_not(app: As) -> None:
    await app.grant("one", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}], "c")
    assert [
        (await app("GET", path))[0]
        for path in ("/api/v1/namespaces/c/pods", "/api/v1/namespaces/a/pods", "/api/v1/pods")
    ] == [200, 403, 403]
    await app.grant("all", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])
    assert (await app("GET", "/api/v1/pods"))[0] == 200


async def test_what_is_granted_or_taken_away_counts_at_once(app: As) -> None:
    await app.grant("one", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}], "c")
    assert (await app("GET", "/api/v1/namespaces/c/pods"))[0] == 200
    await app.admin("DELETE", f"{RBAC}/namespaces/c/roles/one")
    status, body = await app("GET", "/api/v1/namespaces/c/pods")
    assert status == 403
    assert body["message"].endswith(
        'in the namespace "c": RBAC: role.rbac.authorization.k8s.io "one" not found'
    )


async def test_an_apply_that_creates_needs_create_beside_patch(app: As, server: ApiServer) -> None:
    path = "/apis/batch/v1/namespaces/c/jobs/j"
    body = {"apiVersion": "batch/v1", "kind": "Job", "spec": JOB}
    await app.grant("patch", [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["patch"]}])
    status, answer = await app("PATCH", f"{path}?fieldManager=app", body, APPLY)
    assert (status, answer["message"]) == (403, 'jobs.batch "j" is forbidden: ')
    assert (await app.admin("GET", "/apis/batch/v1/namespaces/c/jobs"))["items"] == []
    await app.grant(
        "create", [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}]
    )
    assert (await app("PATCH", f"{path}?fieldManager=app", body, APPLY))[0] == 201
    assert (await app("PATCH", f"{path}?fieldManager=app", body, APPLY))[0] == 200
    mine = {call[1:] for call in server.access.calls if call.user == "system:serviceaccount:a:app"}
    assert mine == {
        ("patch", "batch", "jobs", "c", True),
        ("create", "batch", "jobs", "c", False),
        ("create", "batch", "jobs", "c", True),
    }


async def test_every_call_is_remembered_with_whether_it_was_granted(app: As) -> None:
    await app("GET", "/api/v1/namespaces/c/pods/p")
    await app("GET", "/api/v1/namespaces/c/pods/p")
    counts = {
        Call(**call): count
        for count, call in (
            (call.pop("count"), call) for call in await app.admin("GET", "/lab/calls")
        )
    }
    assert counts[Call("system:serviceaccount:a:app", "get", "", "pods", "c", granted=False)] == 2
    assert (
        counts[Call("system:admin", "create", "", "serviceaccounts/token", "a", granted=True)] == 1
    )


REVIEWS = "/apis/authorization.k8s.io/v1"
APP = "system:serviceaccount:a:app"
LISTS_PODS = {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "c"}}
BY_ROLE = 'RBAC: allowed by RoleBinding "one/c" of Role "one" to ServiceAccount "app/a"'


async def test_access_reviews_name_the_binding_that_allows(
    app: As,
) -> None:
    review = {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "spec": LISTS_PODS,
    }
    assert await app("POST", f"{REVIEWS}/selfsubjectaccessreviews", review) == (
        201,
        review | {"metadata": {}, "status": {"allowed": False}},
    )
    await app.grant("one", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}], "c")
    _, own = await app("POST", f"{REVIEWS}/selfsubjectaccessreviews", review)
    of_app = await app.admin(
        "POST", f"{REVIEWS}/subjectaccessreviews", {"spec": LISTS_PODS | {"user": APP}}
    )
    assert own["status"] == of_app["status"] == {"allowed": True, "reason": BY_ROLE}
    assert (
        await app(
            "POST", f"{REVIEWS}/subjectaccessreviews", {"spec": LISTS_PODS | {"user": "jane"}}
        )
    )[0] == 403


async def test_the_administrator_is_allowed_without_a_word(app: As) -> None:
    assert (await app.admin("POST", f"{REVIEWS}/selfsubjectaccessreviews", {"spec": LISTS_PODS}))[
        "status"
    ] == {"allowed": True}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        pytest.param({"user": "jane"}, "spec.resourceAttributes", id="asks-nothing"),
        pytest.param(
            {"user": "jane", "nonResourceAttributes": {"path": "/"}} | LISTS_PODS,
            "spec.nonResourceAttributes",
            id="asks-two-things",
        ),
        pytest.param(LISTS_PODS, "spec.user", id="without-a-user"),
    ],
)
async def test_a_review_that_makes_no_sense_is_invalid(
    app: As, spec: dict[str, Any], field: str
) -> None:
    status, answer = await app(
        "POST", f"{REVIEWS}/subjectaccessreviews", {"spec": spec}, token=ADMIN_TOKEN
    )
    assert (
        status,
        answer["reason"],
        [cause["field"] for cause in answer["details"]["causes"]],
    ) == (422, "Invalid", [field])


async def test_an_aggregated_role_has_the_rules_of_those_it_selects(app: As) -> None:
    """As long as they are there; what is not selected adds nothing."""
    chosen = {
        "clusterRoleSelectors": [{"matchLabels": {"team": "a"}}, {"matchLabels": {"team": "b"}}]
    }
    await app.admin(
        "POST", f"{RBAC}/clusterroles", {"metadata": {"name": "all"}, "aggregationRule": chosen}
    )
    subjects = [{"kind": "ServiceAccount", "name": "app", "namespace": "a"}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all"}
    await app.admin(
        "POST",
        f"{RBAC}/clusterrolebindings",
        {"metadata": {"name": "all"}, "roleRef": role, "subjects": subjects},
    )
    for team, plural in (("a", "pods"), ("b", "secrets"), ("c", "services")):
        body = {
            "metadata": {"name": team, "labels": {"team": team}},
            "rules": [{"apiGroups": [""], "resources": [plural], "verbs": ["list"]}],
        }
        await app.admin("POST", f"{RBAC}/clusterroles", body)
    assert [
        (await app("GET", f"/api/v1/{plural}"))[0] for plural in ("pods", "secrets", "services")
    ] == [200, 200, 403]
    await app.admin("DELETE", f"{RBAC}/clusterroles/a")
    assert (await app("GET", "/api/v1/pods"))[0] == 403
