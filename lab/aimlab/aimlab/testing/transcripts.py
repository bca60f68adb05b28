"""`python -m aimlab.testing.transcripts FOLDER`: sends the recorded requests of FOLDER to an API
server, and prints where its answers are equal.

The default server is the double. A server must have neither the namespace `lab` nor the group
lab.example.com; both are deleted at the end. What happened between the recorded steps (objects
created by hand, writes during a watch) is repeated in `BEFORE` and `DURING`, through the API as
well.
"""

import argparse
import asyncio
import re
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from aimlab.apiserver import ApiServer
from aimlab.testing.transcript_diff import (
    ORDER,
    Allowed,
    Bindings,
    Difference,
    Place,
    Step,
    differences,
    place,
    steps,
)

GROUP = "/apis/lab.example.com/v1alpha1"
WIDGETS = f"{GROUP}/namespaces/lab/widgets"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ELSEWHERE = "/api/v1/namespaces/default/configmaps"
ACCOUNTS = "/api/v1/namespaces/lab/serviceaccounts"
MERGE_PATCH = "application/merge-patch+json"
ANSWER_WITHIN_S = 60.0
SERVED_WITHIN_S = 30.0
POLL_S = 0.1
QUIET_S = 0.5
"""How long a watch must be silent to count as complete."""
DOUBLE_QUIET_S = 0.05

LEFT_BARE: Mapping[Place, Allowed] = {
    ("validation", 10): Allowed(
        r"\.message",
        r'Widget\.lab\.example\.com "bad-several" is invalid: \[.+\]',
        "in which order several causes are named",
    ),
    ("discovery", 8): Allowed(r"\.\w+", r".*", "the server's build names itself"),
    ("list-and-select", 99): Allowed(r"\.rows\[0\]\.cells\[3\]", r"\d+s", "an age"),
    ("watch", 7): Allowed(
        r"\[0\]\.object\.message",
        r"too old resource version: 1 \(\d+\)",
        "in brackets the oldest version that the server still has",
    ),
}
"""Values that are each server's own and have no placeholder in the recording. (The continue
token in a path of list-and-select is one too.)"""

GO_STRUCTS = "the message goes on with a dump of Go structs, which only Go has"
IMMUTABLE_CLAIM = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for"
    " bound claims"
)
MESSAGES = r"\.message|\.details\.causes\[0\]\.message"
FIXED_JOB = r".*Invalid value: .*field is immutable"
FIXED_CLAIM = rf".*Forbidden: {IMMUTABLE_CLAIM}"
FIXED_VOLUME = r".*Forbidden: spec.persistentvolumesource is immutable after creation"
FIXED_POD = r".*Forbidden: pod updates may not change fields other than .*"
DUMPS: Mapping[str, tuple[tuple[str, int], ...]] = {
    FIXED_CLAIM: (
        ("core-kinds", 2),
        ("core-kinds", 3),
        *(("immutable", step) for step in (33, 34, 39, 40)),
    ),
    FIXED_JOB: (("core-kinds", 5), ("immutable", 17)),
    FIXED_VOLUME: (("immutable", 45),),
    FIXED_POD: (("immutable", 58), ("immutable", 59), ("immutable", 61)),
}
"""Where a real server's message continues."""
KNOWN: Mapping[Place, Allowed] = {
    where: Allowed(MESSAGES, pattern, GO_STRUCTS)
    for pattern, places in DUMPS.items()
    for where in places
}
"""What the double does otherwise than a real server."""


@dataclass
class Session:
    """One run against one server."""

    http: aiohttp.ClientSession
    quiet_s: float
    bound: Bindings = field(default_factory=Bindings)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        kind: str = "application/json",
        accept: str = "",
    ) -> tuple[int, Any]:
        """The answer's status and decoded body."""
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": kind, **({"Accept": accept} if accept else {})}
        async with self.http.request(method, path, data=data, headers=headers) as answer:
            raw = await answer.read()
            return answer.status, (
                msgspec.json.decode(raw)
                if answer.content_type == "application/json"
                else {"raw": raw.decode()}
            )

    async def make(self, path: str, body: Any) -> None:
        """Raises RuntimeError where the server does not create it."""
        status, answer = await self.send("POST", path, body)
        if status != 201:
            raise RuntimeError(
                f"the server does not take what the recording began with, POST {path}:"
                f" {answer.get('message', answer)}"
            )


def widget(name: str, labels: dict[str, str]) -> Step:
    return {
        "apiVersion": "lab.example.com/v1alpha1",
        "kind": "Widget",
        "metadata": {"name": name, "labels": labels},
        "spec": {"model": "m/a:1"},
    }


async def until_served(session: Session) -> None:
    """A real server needs a moment for new kinds."""
    try:
        async with asyncio.timeout(SERVED_WITHIN_S):
            for plural in ("widgets", "gadgets"):
                while (await session.send("GET", f"{GROUP}/{plural}"))[0] != 200:  # noqa: ASYNC110 (the server brings it about)
                    await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise RuntimeError(
            f"the server does not serve {plural}.lab.example.com within {SERVED_WITHIN_S:g} s of"
            " their definition"
        ) from None


async def make_labelled_widgets(session: Session) -> None:
    for index in range(5):
        await session.make(
            WIDGETS, widget(f"l{index}", {"n": str(index), "set": "xy"[index % 2 == 0]})
        )


async def make_w2(session: Session) -> None:
    await session.make(WIDGETS, widget("w2", {"w": "1"}))


async def write_elsewhere(session: Session) -> None:
    """In the recording the Job controller wrote something."""
    await session.make(ELSEWHERE, {"metadata": {"name": "elsewhere"}})


async def live_through_w1(session: Session) -> None:
    await session.make(WIDGETS, widget("w1", {"w": "1"}))
    await session.send("PATCH", f"{WIDGETS}/w1", {"spec": {"replicas": 2}}, MERGE_PATCH)
    await session.send(
        "PATCH", f"{WIDGETS}/w1/status", {"status": {"status": "Ready"}}, MERGE_PATCH
    )
    await session.send("DELETE", f"{WIDGETS}/w1")


async def relabel_w2(session: Session) -> None:
    await session.send("PATCH", f"{WIDGETS}/w2", {"metadata": {"labels": {"w": None}}}, MERGE_PATCH)
    await session.send("PATCH", f"{WIDGETS}/w2", {"metadata": {"labels": {"w": "2"}}}, MERGE_PATCH)


async def until_admission_knows(session: Session) -> None:
    """The plugins of a real server see labels and quotas a moment later."""
    await asyncio.sleep(session.quiet_s)


Doing = Callable[[Session], Awaitable[None]]
BEFORE: Mapping[Place, Doing] = {
    ("discovery", 4): until_served,
    ("list-and-select", 1): make_labelled_widgets,
    ("watch", 3): make_w2,
    ("core-kinds", 7): write_elsewhere,
    **{("pod-security", step): until_admission_knows for step in (2, 17, 46)},
    **{("quota", step): until_admission_knows for step in (3, 13, 19, 28, 31)},
}
DURING: Mapping[Place, Doing] = {("watch", 1): live_through_w1, ("watch", 6): relabel_w2}


MADE = (
    f"{CRDS}/widgets.lab.example.com",
    f"{CRDS}/gadgets.lab.example.com",
    f"{ELSEWHERE}/elsewhere",
    "/api/v1/persistentvolumes/lab-pv",
    "/apis/storage.k8s.io/v1/storageclasses/lab-grows",
    "/apis/storage.k8s.io/v1/storageclasses/lab-stays",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/lab-fixed",
    "/api/v1/namespaces/lab",
)


async def clean_up(session: Session) -> None:
    """What the recording's steps and those between them made. Without a namespace controller the
    namespace stays, Terminating."""
    for path in MADE:
        await session.send("DELETE", path)


@dataclass(frozen=True)
class Outcome:
    """A step, and where its answer was not the recorded one."""

    step: Step
    found: tuple[Difference, ...]

    @property
    def known(self) -> tuple[Difference, ...]:
        """What the double is known to do otherwise."""
        allowed = KNOWN.get(place(self.step))
        return tuple(one for one in self.found if allowed is not None and allowed.covers(one))

    @property
    def failures(self) -> tuple[Difference, ...]:
        bare = LEFT_BARE.get(place(self.step))
        return tuple(
            one
            for one in self.found
            if one not in self.known and not (bare is not None and bare.covers(one))
        )


async def replay(session: Session, recording: Iterable[Step]) -> list[Outcome]:
    """Every step in order. Raises RuntimeError where the server is not in the state to begin
    with, aiohttp.ClientError where it does not answer."""
    await session.make("/api/v1/namespaces", {"metadata": {"name": "lab"}})
    await session.send("POST", ACCOUNTS, {"metadata": {"name": "default"}})
    outcomes = []
    try:
        for step in recording:
            if place(step) in BEFORE:
                await BEFORE[place(step)](session)
            found = await (
                check_request(session, step) if "request" in step else check_watch(session, step)
            )
            outcomes.append(Outcome(step, tuple(found)))
    finally:
        await clean_up(session)
    return outcomes


async def check_request(session: Session, step: Step) -> list[Difference]:
    """A request and its answer."""
    request = step["request"]
    expected = step["response"]
    bound = session.bound
    path = bound.fill(request["path"])
    if "continue=ey" in path:
        path = re.sub(r"continue=[^&]+", f"continue={quote(bound.token)}", path)
    kind = request.get("contentType", "application/json")
    status, body = await session.send(
        request["method"], path, bound.fill(request.get("body")), kind, request.get("accept", "")
    )
    wrong_status = (
        [] if status == expected["status"] else [Difference(" status", expected["status"], status)]
    )
    return [*wrong_status, *differences(bound, expected["body"], body)]


async def check_watch(session: Session, step: Step) -> list[Difference]:
    """A watch and its events, no more and no fewer."""
    events = []
    async with session.http.get(session.bound.fill(step["watch"]["path"])) as answer:
        if answer.status != 200:
            events.append({"http": answer.status, "body": await answer.json()})
        elif place(step) in DURING:
            await DURING[place(step)](session)
        while answer.status == 200:
            try:
                line = await asyncio.wait_for(answer.content.readline(), session.quiet_s)
            except TimeoutError:
                break
            if not line:
                break
            events.append(msgspec.json.decode(line))
    return list(differences(session.bound, step["events"], events))


def table(outcomes: list[Outcome]) -> str:
    """What was answered alike, topic by topic, and why the rest was not."""
    total: Counter[str] = Counter(place(one.step)[0] for one in outcomes)
    passed: Counter[str] = Counter(
        place(one.step)[0] for one in outcomes if not one.failures and not one.known
    )
    known: Counter[str] = Counter(
        place(one.step)[0] for one in outcomes if one.known and not one.failures
    )
    row = "{:<26} {:>5}  {:>6}  {:>17}".format
    lines = [row("topic", "steps", "passed", "known differences")]
    lines += [row(topic, total[topic], passed[topic], known[topic] or "-") for topic in ORDER]
    lines += [row("all", total.total(), passed.total(), known.total() or "-"), ""]
    lines += _reasons(
        "known differences:",
        {place(one.step): KNOWN[place(one.step)] for one in outcomes if one.known},
    )
    lines += _reasons(
        "each server's own, though the recording has no placeholder there:", LEFT_BARE
    )
    for one in outcomes:
        topic, number = place(one.step)
        lines += [
            f"FAILED {topic} {number} ({one.step.get('note', '')}) {difference}"
            for difference in one.failures
        ]
    return "\n".join(lines)


def _reasons(title: str, allowed: Mapping[Place, Allowed]) -> list[str]:
    return (
        [title, *(f"  {topic} {number}: {one.why}" for (topic, number), one in allowed.items())]
        if allowed
        else []
    )


async def against_double(folder: Path) -> list[Outcome]:
    """The outcome of every step on a new double."""
    async with ApiServer() as server, aiohttp.ClientSession(server.url, trust_env=False) as http:
        return await replay(Session(http, DOUBLE_QUIET_S), steps(folder))


async def against_server(
    folder: Path, url: str, token: str, tls: ssl.SSLContext | bool
) -> list[Outcome]:
    """The outcome of every step on a server that is there."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connector, timeout = aiohttp.TCPConnector(ssl=tls), aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
    async with aiohttp.ClientSession(
        url, headers=headers, connector=connector, timeout=timeout, trust_env=False
    ) as http:
        return await replay(Session(http, QUIET_S), steps(folder))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m aimlab.testing.transcripts",
        description="Ask an API server what was asked of a real one.",
    )
    parser.add_argument("folder", type=Path, help="the recorded answers, a .jsonl file a topic")
    parser.add_argument(
        "--server", metavar="URL", help="an API server that is there; left out, the double"
    )
    parser.add_argument("--token", default="", help="bearer token of a cluster administrator")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--ca", type=Path, metavar="FILE", help="certificates that the server's is checked against"
    )
    trust.add_argument(
        "--insecure", action="store_true", help="do not check the server's certificate"
    )
    options = parser.parse_args()
    tls = ssl.create_default_context(cafile=options.ca) if options.ca else not options.insecure
    run = (
        against_server(options.folder, options.server, options.token, tls)
        if options.server
        else against_double(options.folder)
    )
    try:
        outcomes = asyncio.run(run)
    except (aiohttp.ClientError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    print(table(outcomes))
    sys.exit(any(one.failures for one in outcomes))


if __name__ == "__main__":
    main()
