"""What each verb sends, and what it makes of the answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from aimkube import Cluster, Conflict, NotConfigured, NotFound, Unavailable
from aimkube.client import LOG_LINE_BYTES
from aimkube.transport import _Lines
from aimschema.resources import CACHE, MODEL

BODY = {
    "apiVersion": CACHE.api_version,
    "kind": "ModelCache",
    "metadata": {"name": "c", "namespace": "ns"},
    "spec": {"size": "1Gi"},
}
PATH = "/apis/aim.silogen.ai/v1alpha1/namespaces/ns/modelcaches"


@pytest.fixture
async def cluster(kit: Any, server: Any) -> Any:
    return await kit.connect(await server.start())


async def test_apply_is_a_forced_server_side_apply_of_the_manager(
    cluster: Cluster, kit: Any, server: Any
) -> None:
    server.script = [kit.Answer(BODY)]
    assert await cluster.apply(BODY, manager="aim-cacher") == BODY
    request = server.requests[0]
    assert (request.method, request.path, request.content_type) == (
        "PATCH",
        f"{PATH}/c",
        "application/apply-patch+yaml",
    )
    assert request.query == {"fieldManager": "aim-cacher", "force": "true"}
    assert json.loads(request.body) == BODY


async def test_apply_status_goes_to_the_subresource(
    cluster: Cluster, kit: Any, server: Any
) -> None:
    server.script = [kit.Answer(BODY)]
    await cluster.apply_status(BODY, manager="aim-statuswriter")
    assert server.requests[0].path == f"{PATH}/c/status"


async def test_create_posts_to_the_collection(cluster: Cluster, kit: Any, server: Any) -> None:
    server.script = [kit.Answer(BODY, 201)]
    await cluster.create(BODY)
    assert (server.requests[0].method, server.requests[0].path) == ("POST", PATH)


async def test_merge_patch_keeps_nulls(cluster: Cluster, kit: Any, server: Any) -> None:
    server.script = [kit.Answer(BODY)]
    await cluster.merge_patch(
        CACHE, "ns", "c", {"metadata": {"annotations": {"a": None}}}, subresource="status"
    )
    request = server.requests[0]
    assert (request.path, request.content_type) == (
        f"{PATH}/c/status",
        "application/merge-patch+json",
    )
    assert json.loads(request.body) == {"metadata": {"annotations": {"a": None}}}


async def test_delete_has_a_policy_for_dependents_and_a_uid(
    cluster: Cluster, kit: Any, server: Any
) -> None:
    server.script = [kit.Answer({"kind": "Status"})]
    await cluster.delete(CACHE, "ns", "c", uid="u1", grace_period_s=0)
    request = server.requests[0]
    assert (request.method, request.path) == ("DELETE", f"{PATH}/c")
    options = {
        "propagationPolicy": "Background",
        "preconditions": {"uid": "u1"},
        "gracePeriodSeconds": 0,
    }
    assert json.loads(request.body) == {"apiVersion": "v1", "kind": "DeleteOptions", **options}


async def test_cluster_scoped_objects_need_no_namespace(
    cluster: Cluster, kit: Any, server: Any
) -> None:
    server.script = [kit.Answer({"kind": "AIMClusterModel"})]
    await cluster.get(MODEL, None, "m.one")
    assert server.requests[0].path == "/apis/aim.silogen.ai/v1alpha1/aimclustermodels/m.one"


async def test_a_namespace_that_is_missing_is_the_caller_s_mistake(
    cluster: Cluster, server: Any
) -> None:
    with pytest.raises(ValueError, match="needs a namespace"):
        await cluster.get(CACHE, None, "c")
    assert server.requests == []


async def test_a_rejection_is_raised_and_not_retried(
    cluster: Cluster, kit: Any, server: Any
) -> None:
    server.script = [
        kit.Answer(
            {"kind": "Status", "code": 409, "reason": "Conflict", "message": "modified"}, 409
        )
    ]
    with pytest.raises(Conflict, match="modified"):
        await cluster.apply(BODY, manager="m")
    assert len(server.requests) == 1


@pytest.mark.parametrize("text", ["<html>login</html>", '["a list"]', ""])
async def test_a_success_that_is_no_object_is_a_failure(
    cluster: Cluster, kit: Any, server: Any, text: str
) -> None:
    server.script = [kit.Answer(text)]
    with pytest.raises(Unavailable):
        await cluster.get(CACHE, "ns", "c")


async def test_no_connection_is_unavailable(kit: Any, server: Any) -> None:
    url = await server.start()
    await server.stop()
    with pytest.raises(Unavailable) as raised:
        await (await kit.connect(url)).get(CACHE, "ns", "c")
    assert (raised.value.status, raised.value.reason) == (0, "Unreachable")


async def test_a_log_is_read_up_to_a_limit(cluster: Cluster, kit: Any, server: Any) -> None:
    server.script = [kit.Answer("line one\nline two", content_type="text/plain")]
    assert await cluster.read_log("ns", "p", "main", limit_bytes=17) == b"line one\nline two"
    assert server.requests[0].path == "/api/v1/namespaces/ns/pods/p/log"
    assert server.requests[0].query == {"container": "main", "limitBytes": "17"}


async def test_the_log_of_a_restarted_container_can_be_read(
    cluster: Cluster, kit: Any, server: Any
) -> None:
    server.script = [kit.Answer("last words", content_type="text/plain"), kit.Stream(["last\n"])]
    await cluster.read_log("ns", "p", "main", tail_lines=20, previous=True)
    assert server.requests[0].query | {"limitBytes": ""} == {
        "container": "main",
        "limitBytes": "",
        "tailLines": "20",
        "previous": "true",
    }
    assert [line async for line in cluster.follow_log("ns", "p", "main", tail_lines=1)] == [b"last"]
    assert server.requests[1].query == {"container": "main", "follow": "true", "tailLines": "1"}


async def test_the_server_has_a_version(cluster: Cluster, kit: Any, server: Any) -> None:
    server.script = [kit.Answer({"gitVersion": "v1.36.2"})]
    assert await cluster.version() == "v1.36.2"


async def test_a_log_is_followed_line_by_line_to_its_end(
    cluster: Cluster, kit: Any, server: Any
) -> None:
    server.script = [kit.Stream(["one\ntw", "o\n\nthree\n"])]
    assert [line async for line in cluster.follow_log("ns", "p", "main")] == [
        b"one",
        b"two",
        b"three",
    ]
    assert server.requests[0].query == {"container": "main", "follow": "true"}


@pytest.mark.parametrize(
    ("printed", "lines"),
    [
        pytest.param(
            ["one\n", "x" * (LOG_LINE_BYTES + 1), "\ntwo\n"],
            [b"one", b"two"],
            id="one-byte-too-many",
        ),
        pytest.param(
            ["one\n", *["x" * 50_000] * 100, "\ntwo\n"], [b"one", b"two"], id="in-many-pieces"
        ),
        pytest.param(["one\n", *["x" * 50_000] * 100], [b"one"], id="without-a-newline-at-all"),
        pytest.param(
            ["x" * LOG_LINE_BYTES + "\n"], [b"x" * LOG_LINE_BYTES], id="just-short-enough"
        ),
        pytest.param(
            ["x" * 100_000 + "\n" + "y" * 100_000 + "\n", "two\n"], [b"two"], id="two-in-a-row"
        ),
        pytest.param([*["\n" * 50_000] * 4, "two\n"], [b"two"], id="only-newlines"),
    ],
)
async def test_an_endless_log_line_is_dropped_up_to_its_newline(
    cluster: Cluster, kit: Any, server: Any, printed: list[str], lines: list[bytes]
) -> None:
    server.script = [kit.Stream(printed)]
    assert [line async for line in cluster.follow_log("ns", "p", "main")] == lines


def test_of_a_line_without_end_nothing_is_kept_in_memory() -> None:
    lines = _Lines(100)
    for _ in range(1000):
        assert list(lines.feed(b"x" * 1000)) == []
        assert len(lines._pending) <= 100


async def test_following_the_log_of_a_missing_pod_is_not_found(
    cluster: Cluster, kit: Any, server: Any
) -> None:
    server.script = [
        kit.Answer(
            {"kind": "Status", "code": 404, "reason": "NotFound", "message": 'pods "p" not found'},
            404,
        )
    ]
    with pytest.raises(NotFound):
        await anext(aiter(cluster.follow_log("ns", "p", "main")))


async def test_outside_a_cluster_a_kubeconfig_is_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NotConfigured, match="KUBECONFIG is not set"):
        await Cluster.connect()


@pytest.mark.parametrize(
    "text", [None, "", "{}", ": :"], ids=["no-file", "empty", "no-clusters", "not-yaml"]
)
async def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    with pytest.raises(NotConfigured, match="kubeconfig"):
        await Cluster.connect(str(path))
