"""List and watch against a misbehaving server: the events for the caller, and the requests to the
server."""

import asyncio
import json
import socket
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from aimkube import Deleted, KindNotServed, Modified, Snapshot, Timing, Unavailable, WatchEvent
from aimkube.transport import decode
from aimschema.resources import CACHE

FAST = Timing(
    quiet_s=5.0,
    stream_s=(60.0, 61.0),
    short_s=0.0,
    retry_s=0.01,
    absent_s=0.01,
    deleted_s=0.0,
    new_s=0.0,
)


def obj(name: str, version: int) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "ns",
        "uid": f"u-{name}",
        "resourceVersion": str(version),
    }
    return {"apiVersion": CACHE.api_version, "kind": CACHE.kind, "metadata": metadata}


def event(kind: str, name: str, version: int) -> dict[str, Any]:
    return {"type": kind, "object": obj(name, version)}


def bookmark(version: int, *, ends_initial_events: bool = False) -> dict[str, Any]:
    annotations = {"k8s.io/initial-events-end": "true"} if ends_initial_events else {}
    return {
        "type": "BOOKMARK",
        "object": {
            "kind": CACHE.kind,
            "metadata": {"resourceVersion": str(version), "annotations": annotations},
        },
    }


def status(code: int, reason: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": reason,
    }


def page(version: int, *names: str, token: str = "") -> dict[str, Any]:
    items = [{"metadata": obj(name, version)["metadata"]} for name in names]
    return {
        "kind": "ModelCacheList",
        "metadata": {"resourceVersion": str(version), "continue": token},
        "items": items,
    }


def described(item: WatchEvent) -> str:
    match item:
        case Snapshot(items, version):
            return (
                "listed"
                f" {' '.join(sorted(item['metadata']['name'] for item in items)) or 'nothing'}"
                f" @{version}"
            )
        case Modified(body):
            return f"changed {body['metadata']['name']} @{body['metadata']['resourceVersion']}"
        case Deleted(body):
            return f"removed {body['metadata']['name']} @{body['metadata']['resourceVersion']}"
        case KindNotServed():
            return "absent"


async def follow(kit: Any, url: str, count: int, timing: Timing = FAST) -> list[str]:
    """The first `count` events."""
    cluster = await kit.connect(url)
    heard: list[str] = []
    async with (
        asyncio.timeout(10),
        aclosing(cluster.list_and_watch(CACHE, timing=timing)) as stream,
    ):
        async for item in stream:
            heard.append(described(item))
            if len(heard) == count:
                break
    return heard


INITIAL = [event("ADDED", "a", 3), bookmark(5, ends_initial_events=True)]
INVALID = (422, status(422, "Invalid"))


@pytest.fixture
def script(kit: Any, server: Any) -> Any:
    """Shorthand: a pair is an answer, a list a stream that ends, a string at the end of a stream
    is a torn line."""

    def write(*steps: Any) -> None:
        for step in steps:
            match step:
                case tuple():
                    server.script.append(kit.Answer(step[1], step[0]))
                case list():
                    server.script.append(kit.Stream(step))
                case _:
                    server.script.append(step)

    return write


@pytest.mark.parametrize(
    ("steps", "heard"),
    [
        pytest.param(
            [[*INITIAL, event("MODIFIED", "a", 6), event("DELETED", "a", 7)]],
            ["listed a @5", "changed a @6", "removed a @7"],
            id="watch-list",
        ),
        pytest.param(
            [
                [
                    event("ADDED", "a", 3),
                    event("ADDED", "b", 4),
                    event("MODIFIED", "a", 5),
                    event("DELETED", "b", 6),
                    bookmark(6, ends_initial_events=True),
                ]
            ],
            ["listed a @6"],
            id="changes-while-the-snapshot-comes-are-part-of-it",
        ),
        pytest.param(
            [INVALID, (200, page(5, "a")), [event("ADDED", "b", 6)]],
            ["listed a @5", "changed b @6"],
            id="watch-list-rejected",
        ),
        pytest.param(
            [
                (400, status(400, "BadRequest")),
                (200, page(5, "a", token="t")),
                (200, page(5, "b")),
                [],
            ],
            ["listed a b @5"],
            id="pages-make-one-snapshot",
        ),
        pytest.param(
            [[{"type": "ERROR", "object": status(500, "")}], (200, page(5, "a"))],
            ["listed a @5"],
            id="watch-list-answered-by-error-event",
        ),
        pytest.param(
            [[event("ADDED", "a", 3)], (200, page(5, "a"))],
            ["listed a @5"],
            id="watch-list-ends-before-its-bookmark",
        ),
        pytest.param(
            [
                [*INITIAL, '{"type":"MODIFIED","object":{"kind":"ModelCa'],
                [event("MODIFIED", "a", 6)],
            ],
            ["listed a @5", "changed a @6"],
            id="torn-last-line-is-asked-for-again",
        ),
        pytest.param(
            [[*INITIAL, "<html>\n"], INITIAL],
            ["listed a @5", "listed a @5"],
            id="line-that-is-not-json",
        ),
        pytest.param(
            [[*INITIAL, '{"type":"ADDED"}\n'], INITIAL],
            ["listed a @5", "listed a @5"],
            id="event-without-object",
        ),
        pytest.param(
            [
                INITIAL,
                [{"type": "ERROR", "object": status(410, "Expired")}],
                [bookmark(9, ends_initial_events=True)],
            ],
            ["listed a @5", "listed nothing @9"],
            id="410-as-event",
        ),
        pytest.param(
            [INITIAL, (410, status(410, "Expired")), INITIAL],
            ["listed a @5", "listed a @5"],
            id="410-as-answer-to-watch",
        ),
        pytest.param(
            [
                INVALID,
                (200, page(5, "a", token="t")),
                (410, status(410, "Expired")),
                (200, page(8, "b")),
            ],
            ["listed b @8"],
            id="410-between-two-pages",
        ),
        pytest.param(
            [(503, status(503, "ServiceUnavailable")), INITIAL],
            ["listed a @5"],
            id="server-not-ready",
        ),
        pytest.param(
            [(200, {"kind": "Status"}), (200, page(5, "a"))],
            ["listed a @5"],
            id="an-answer-that-is-no-stream",
        ),
        pytest.param(
            [INITIAL, (500, status(500, "InternalError")), INITIAL],
            ["listed a @5", "listed a @5"],
            id="500-is-doubt",
        ),
        pytest.param(
            [
                [
                    *INITIAL,
                    {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
                    "\n",
                ]
            ],
            ["listed a @5"],
            id="empty-lines",
        ),
    ],
)
async def test_what_the_caller_receives(
    kit: Any, server: Any, script: Any, steps: list[Any], heard: list[str]
) -> None:
    script(*steps)
    assert await follow(kit, await server.start(), len(heard)) == heard


async def test_a_snapshot_asks_for_initial_events_and_names_no_version(
    kit: Any, server: Any, script: Any
) -> None:
    script(INITIAL)
    await follow(kit, await server.start(), 1)
    query = server.requests[0].query
    assert (
        query["watch"],
        query["sendInitialEvents"],
        query["resourceVersionMatch"],
        query["allowWatchBookmarks"],
    ) == (
        "true",
        "true",
        "NotOlderThan",
        "true",
    )
    assert "resourceVersion" not in query
    assert 60 <= int(query["timeoutSeconds"]) <= 61


async def test_a_stream_that_ended_well_goes_on_from_its_last_bookmark(
    kit: Any, server: Any, script: Any
) -> None:
    script([*INITIAL, bookmark(40)], [event("ADDED", "b", 41)])
    assert await follow(kit, await server.start(), 2) == ["listed a @5", "changed b @41"]
    assert server.requests[1].query["resourceVersion"] == "40"
    assert "sendInitialEvents" not in server.requests[1].query


async def test_pages_have_a_limit_and_items_get_their_kind(
    kit: Any, server: Any, script: Any
) -> None:
    script((200, page(5, "a", token="t")), (200, page(5, "b")))
    cluster = await kit.connect(await server.start())
    listing = await cluster.list(CACHE, "ns", label_selector="x=y,z!=w")
    assert [(item["kind"], item["apiVersion"]) for item in listing.items] == [
        (CACHE.kind, CACHE.api_version)
    ] * 2
    assert [requests.query for requests in server.requests] == [
        {"limit": "500", "labelSelector": "x=y,z!=w"},
        {"limit": "500", "labelSelector": "x=y,z!=w", "continue": "t"},
    ]


@pytest.mark.parametrize(
    "begins",
    [[INITIAL], [INVALID, (200, page(5, "a")), [event("ADDED", "b", 6)]]],
    ids=["stream", "pages"],
)
async def test_of_each_object_only_what_the_caller_keeps_is_handed_out(
    kit: Any, server: Any, script: Any, begins: list[Any]
) -> None:
    script(*begins, [event("MODIFIED", "b", 7)])
    cluster = await kit.connect(await server.start())
    stream = cluster.list_and_watch(
        CACHE, timing=FAST, reduce=lambda body: {"kept": body["metadata"]["name"]}
    )
    async with asyncio.timeout(10), aclosing(stream):
        listed, changed = [await anext(stream) for _ in range(2)]
    assert (listed.items, changed) == (({"kept": "a"},), Modified({"kept": "b"}))


async def test_a_throttled_watch_waits_and_resumes(kit: Any, server: Any, script: Any) -> None:
    script(
        INITIAL,
        kit.Answer("slow down", 429, "text/plain", {"Retry-After": "0.3"}),
        [event("ADDED", "b", 6)],
    )
    assert await follow(kit, await server.start(), 2) == ["listed a @5", "changed b @6"]
    assert server.requests[2].query["resourceVersion"] == "5"
    assert server.requests[2].at_s - server.requests[1].at_s >= 0.3


NO_PAGE = "404 page not found\n"
OTHERS = {
    "kind": "APIResourceList",
    "groupVersion": CACHE.api_version,
    "resources": [{"name": "others"}],
}
WITH_IT = OTHERS | {"resources": [{"name": CACHE.plural, "kind": CACHE.kind}]}
OTHER_GROUPS = {
    "kind": "APIGroupList",
    "groups": [{"name": "apps", "versions": [{"groupVersion": "apps/v1"}]}],
}
WITH_THE_GROUP = {
    "kind": "APIGroupList",
    "groups": [{"name": CACHE.group, "versions": [{"groupVersion": CACHE.api_version}]}],
}


async def test_a_kind_not_installed_is_reported_once_and_found_later(
    kit: Any, server: Any, script: Any
) -> None:
    missing = kit.Answer(NO_PAGE, 404, "text/plain")
    script(
        missing,
        (200, OTHERS),
        missing,
        missing,
        (200, OTHER_GROUPS),
        missing,
        missing,
        INITIAL,
    )
    timing = replace(FAST, new_s=0.004)
    assert await follow(kit, await server.start(), 2, timing) == ["absent", "listed a @5"]
    assert [requests.path for requests in server.requests[:8]] == [
        CACHE.path(),
        f"/apis/{CACHE.api_version}",
        CACHE.path(),
        f"/apis/{CACHE.api_version}",
        "/apis",
        CACHE.path(),
        CACHE.path(),
        CACHE.path(),
    ]


@pytest.mark.parametrize(
    ("document", "groups"),
    [
        pytest.param((200, WITH_IT), None, id="the-group-has-it"),
        pytest.param((404, NO_PAGE), (404, NO_PAGE), id="a-proxy-that-is-starting"),
        pytest.param(
            (404, status(404, "NotFound")),
            (404, status(404, "NotFound")),
            id="a-gateway-that-speaks-status",
        ),
        pytest.param(
            (404, "<html>no such host</html>"),
            (404, "<html>no such host</html>"),
            id="a-gateway-with-a-page",
        ),
        pytest.param((200, "<html>welcome</html>"), None, id="a-page-that-is-fine"),
        pytest.param((200, {}), None, id="an-empty-object"),
        pytest.param((200, {"kind": "Status", "code": 404}), None, id="a-status-that-is-fine"),
        pytest.param((503, status(503, "ServiceUnavailable")), None, id="discovery-not-ready"),
        pytest.param((403, status(403, "Forbidden")), None, id="discovery-forbidden"),
        pytest.param(
            (404, NO_PAGE), (200, WITH_THE_GROUP), id="the-group-is-there-without-its-document"
        ),
        pytest.param((404, NO_PAGE), (200, {"kind": "Status"}), id="groups-that-are-none"),
        pytest.param((404, NO_PAGE), (500, status(500, "InternalError")), id="no-groups"),
    ],
)
@pytest.mark.parametrize("error", [NO_PAGE, status(404, "NotFound"), "<html>no such host</html>"])
async def test_a_404_alone_does_not_make_a_kind_absent(
    kit: Any, server: Any, script: Any, error: Any, document: Any, groups: Any
) -> None:
    found = [kit.Answer(step[1], step[0]) for step in (document, groups) if step is not None]
    script(
        INITIAL,
        *[
            kit.Answer(error, 404, "text/plain" if isinstance(error, str) else "application/json"),
            *found,
        ]
        * 2,
        INITIAL,
    )
    assert await follow(kit, await server.start(), 2) == ["listed a @5", "listed a @5"]


async def test_a_kind_missing_for_a_while_is_not_served(kit: Any, server: Any, script: Any) -> None:
    missing = [(404, status(404, "NotFound")), (200, OTHERS)]
    timing = replace(FAST, deleted_s=0.15, retry_s=0.05)
    script(INITIAL, *missing, INITIAL, *missing * 20)
    assert await follow(kit, await server.start(), 3, timing) == [
        "listed a @5",
        "listed a @5",
        "absent",
    ]
    requests = [each for each in server.requests[4:] if each.path == CACHE.path()]
    assert requests[-1].at_s - requests[0].at_s >= 0.15


async def test_one_answer_that_has_the_kind_restarts_the_grace_time(
    kit: Any, server: Any, script: Any
) -> None:
    missing = [(404, status(404, "NotFound")), (200, OTHERS)]
    found = [(404, status(404, "NotFound")), (200, WITH_IT)]
    timing = replace(FAST, deleted_s=10.0, retry_s=0.01)
    script(INITIAL, *missing * 3, *found, *missing * 3, INITIAL)
    assert await follow(kit, await server.start(), 2, timing) == ["listed a @5", "listed a @5"]


@pytest.mark.parametrize("then", ["silence", "break"])
async def test_a_silent_or_broken_connection_leads_to_a_new_snapshot(
    kit: Any, server: Any, script: Any, then: str
) -> None:
    script(kit.Stream(INITIAL, then), INITIAL)
    timing = Timing(quiet_s=0.2, short_s=0.0, retry_s=0.01)
    assert await follow(kit, await server.start(), 2, timing) == ["listed a @5", "listed a @5"]


NO_PROGRESS = (
    "a watch stream was requested by the client but the required storage feature"
    " RequestWatchProgress is disabled"
)
"""What an API server on etcd 3.4 says."""
INTERNAL = status(500, "InternalError") | {"message": NO_PROGRESS}
SILENT = Timing(quiet_s=0.2, short_s=0.0, retry_s=0.01)


@pytest.mark.parametrize(
    "rejection",
    [
        pytest.param([{"type": "ERROR", "object": INTERNAL}], id="error-event"),
        pytest.param((500, INTERNAL), id="answer"),
        pytest.param(INVALID, id="no-such-option"),
        pytest.param((400, status(400, "BadRequest")), id="bad-request"),
    ],
)
async def test_a_silent_watch_without_bookmarks_is_resumed(
    kit: Any, server: Any, script: Any, rejection: Any
) -> None:
    script(
        rejection,
        (200, page(5, "a")),
        kit.Stream([], "silence"),
        kit.Stream([event("ADDED", "b", 7)], "silence"),
        kit.Stream([], "silence"),
        [event("MODIFIED", "b", 9)],
    )
    assert await follow(kit, await server.start(), 3, SILENT) == [
        "listed a @5",
        "changed b @7",
        "changed b @9",
    ]
    assert [each.query.get("resourceVersion") for each in server.requests[2:]] == [
        "5",
        "5",
        "7",
        "7",
    ]


async def test_a_version_too_old_to_resume_leads_to_a_list(
    kit: Any, server: Any, script: Any
) -> None:
    script(
        INVALID,
        (200, page(5, "a")),
        kit.Stream([], "silence"),
        [{"type": "ERROR", "object": status(410, "Expired")}],
        (200, page(9, "b")),
    )
    assert await follow(kit, await server.start(), 2, SILENT) == ["listed a @5", "listed b @9"]


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(([bookmark(6)], "silence"), id="bookmarks-came"),
        pytest.param(([], "break"), id="connection-lost"),
    ],
)
async def test_only_silence_without_bookmarks_is_no_reason_to_list(
    kit: Any, server: Any, script: Any, stream: Any
) -> None:
    script(INVALID, (200, page(5, "a")), kit.Stream(*stream), (200, page(9, "b")))
    assert await follow(kit, await server.start(), 2, SILENT) == ["listed a @5", "listed b @9"]


async def test_bookmarks_that_stop_are_missed_once(kit: Any, server: Any, script: Any) -> None:
    script(
        INVALID,
        (200, page(5, "a")),
        kit.Stream([bookmark(6)], "silence"),
        (200, page(9, "a")),
        kit.Stream([], "silence"),
        [event("ADDED", "b", 10)],
    )
    assert await follow(kit, await server.start(), 3, SILENT) == [
        "listed a @5",
        "listed a @9",
        "changed b @10",
    ]


async def test_a_resumed_watch_is_listed_from_time_to_time(
    kit: Any, server: Any, script: Any
) -> None:
    script(INVALID, (200, page(5, "a")), kit.Stream([], "silence"), (200, page(9, "a")))
    timing = replace(SILENT, relist_s=0.0)
    assert await follow(kit, await server.start(), 2, timing) == ["listed a @5", "listed a @9"]


async def test_the_limits_of_a_server_are_logged_once(kit: Any, server: Any, script: Any) -> None:
    cluster = await kit.connect(await server.start())
    with capture_logs() as logs:
        for first in ([{"type": "ERROR", "object": INTERNAL}], INVALID):
            server.requests.clear()
            server.script.clear()
            script(first, (200, page(5, "a")), kit.Stream([], "silence"), [event("ADDED", "b", 6)])
            stream = cluster.list_and_watch(CACHE, timing=SILENT)
            async with asyncio.timeout(10), aclosing(stream):
                heard = [described(await anext(stream)) for _ in range(2)]
            assert heard == ["listed a @5", "changed b @6"]
    assert [(each["event"], each["error"]) for each in logs] == [
        ("watch-list-rejected", NO_PROGRESS)
    ]


async def test_an_old_server_without_initial_events_is_listed_by_page(
    kit: Any, server: Any, script: Any
) -> None:
    script(kit.Stream([event("ADDED", "a", 3)], "silence"), (200, page(5, "a")))
    assert await follow(kit, await server.start(), 1, Timing(quiet_s=0.2, retry_s=0.01)) == [
        "listed a @5"
    ]


async def test_streams_that_end_at_once_are_opened_ever_more_slowly(
    kit: Any, server: Any, script: Any
) -> None:
    script(INITIAL, [], [], [], [event("ADDED", "b", 6)])
    await follow(kit, await server.start(), 2, Timing(retry_s=0.04))
    gaps_s = [
        later.at_s - earlier.at_s
        for earlier, later in zip(server.requests, server.requests[1:], strict=False)
    ]
    assert [
        gap_s >= least_s for gap_s, least_s in zip(gaps_s, [0.02, 0.04, 0.08, 0.16], strict=True)
    ] == [True] * 4


async def test_everything_is_listed_again_from_time_to_time(
    kit: Any, server: Any, script: Any
) -> None:
    script(INITIAL, INITIAL)
    timing = Timing(relist_s=0.0, short_s=0.0)
    assert await follow(kit, await server.start(), 2, timing) == ["listed a @5", "listed a @5"]


async def test_lines_longer_than_any_buffer_are_read(kit: Any, server: Any, script: Any) -> None:
    large = event("ADDED", "b", 6)
    large["object"]["spec"] = {"blob": "x" * 5_000_000}
    script([*INITIAL, large])
    assert await follow(kit, await server.start(), 2) == ["listed a @5", "changed b @6"]


def deep(levels: int) -> str:
    return '{"a":' * levels + "[[1]]" + "}" * levels


@pytest.mark.parametrize("levels", [100, 900, 1100, 9990])
async def test_a_deeply_nested_object_hides_no_other(
    kit: Any, server: Any, script: Any, levels: int
) -> None:
    def with_spec(document: dict[str, Any], name: str) -> str:
        text = json.dumps(document)
        place = text.index(f'"name": "{name}"')
        start = text.rindex('{"metadata"' if '"items"' in text else '"metadata"', 0, place)
        at = start + 1 if text[start] == "{" else start
        return text[:at] + f'"spec": {deep(levels)}, ' + text[at:] + "\n"

    listed = with_spec(page(5, "a", "b", "c"), "b")
    script(
        INVALID,
        kit.Answer(listed, 200),
        [with_spec(event("MODIFIED", "b", 6), "b"), event("MODIFIED", "a", 7)],
    )
    assert await follow(kit, await server.start(), 3) == [
        "listed a b c @5",
        "changed b @6",
        "changed a @7",
    ]


def test_only_what_lies_too_deep_is_left_out() -> None:
    text = (
        '{"items":[{"b":' + "[" * 2000 + '"]}\\"]"' + "]" * 2000 + ',"c":[1,{"d":"}"}]},{"e":[]}]}'
    )
    decoded = decode(text.encode())
    assert decoded["items"][0]["c"] == [1, {"d": "}"}]
    assert decoded["items"][1] == {"e": []}
    node, levels = decoded["items"][0]["b"], 0
    while node is not None:
        (node,), levels = node, levels + 1
    assert levels < 300


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        '{"a":' * 5000,
        '{"a":' + "[" * 5000 + "}" * 5000,
        "[" * 2000 + "]" * 2000 + "]" * 2000,
        '"' * 5000,
    ],
)
def test_what_is_deep_and_no_json_object_is_no_answer(text: str) -> None:
    with pytest.raises(Unavailable):
        decode(text.encode())


@pytest.mark.parametrize(
    "item",
    [
        None,
        7,
        "b",
        [],
        {},
        {"metadata": None},
        {"metadata": []},
        {"metadata": {"name": "b"}},
        {"metadata": {"name": 7, "uid": {}}},
    ],
)
async def test_an_item_that_is_no_object_hides_no_other(
    kit: Any, server: Any, script: Any, item: Any
) -> None:
    listed = page(5, "a", "c")
    listed["items"].insert(1, item)
    script(INVALID, (200, listed), [event("MODIFIED", "a", 7)])
    assert await follow(kit, await server.start(), 2) == ["listed a c @5", "changed a @7"]


@pytest.mark.parametrize("metadata", [None, [], {}, {"resourceVersion": 7}, {"name": "b"}])
async def test_an_event_whose_object_has_no_version_is_doubt(
    kit: Any, server: Any, script: Any, metadata: Any
) -> None:
    script([*INITIAL, {"type": "MODIFIED", "object": {"metadata": metadata}}], INITIAL)
    assert await follow(kit, await server.start(), 2) == ["listed a @5", "listed a @5"]


async def test_an_event_on_an_object_without_identity_is_passed_over(
    kit: Any, server: Any, script: Any
) -> None:
    script(
        [
            *INITIAL,
            {"type": "MODIFIED", "object": {"metadata": {"resourceVersion": "6"}}},
            event("MODIFIED", "a", 7),
        ]
    )
    assert await follow(kit, await server.start(), 2) == ["listed a @5", "changed a @7"]


async def test_a_server_that_is_away_is_waited_for(kit: Any, server: Any, script: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script(INITIAL)
    waiting = asyncio.create_task(follow(kit, f"http://127.0.0.1:{port}", 1))
    await asyncio.sleep(0)
    await server.start(port)
    assert await waiting == ["listed a @5"]
