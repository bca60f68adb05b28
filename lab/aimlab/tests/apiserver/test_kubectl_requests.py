"""kubectl asks the double what it asked a real server, command by command, and gets answers of
the same status and form (transcripts/kubectl.md)."""

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from aimlab.apiserver import ApiServer
from aimlab.testing.recording_proxy import RecordedRequest, recording_proxy

KUBECTL = Path(sys.executable).with_name("kubectl")
TRANSCRIPTS = Path(__file__).parent / "transcripts"
LINE = re.compile(
    r"- `(?P<method>\w+) (?P<path>\S+)` (?:sends (?P<sends>[^;]+); )?accepts (?P<accepts>.+) →"
    r" (?P<status>\d+) [\w ]+, (?P<form>.+)"
)
OWN = [
    (r"hash=\w+", "hash=H"),
    (r"uid%3D[-\w]+", "uid%3DU"),
    (r"timeoutSeconds=\d+", "timeoutSeconds=N"),
]
WIDGET = """
apiVersion: lab.example.com/v1alpha1
kind: Widget
metadata: {name: kw, namespace: lab}
spec: {model: "m/a:1", size: SIZE}
"""
Api = Any
PROTOBUF = (
    "application/vnd.kubernetes.protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
)
NOT_ANSWERED = "/openapi/v2?timeout=32s"
"""Only in protobuf, which the double does not write; kubectl continues without it."""


def recorded() -> Iterator[tuple[str, list[RecordedRequest]]]:
    """Each command and what it asked."""
    for block in (TRANSCRIPTS / "kubectl.md").read_text().split("\n## ")[1:]:
        command, *lines = [line for line in block.splitlines() if line]
        found = [match for line in lines if (match := LINE.fullmatch(line))]
        assert len(found) == len(lines), f"a line of {command} in kubectl.md is not understood"
        yield (
            command,
            [
                RecordedRequest(
                    one["method"],
                    one["path"],
                    one["sends"] or "",
                    one["accepts"],
                    int(one["status"]),
                    one["form"],
                )
                for one in found
            ],
        )


def as_the_double(request: RecordedRequest) -> RecordedRequest:
    """With what is known to differ: JSON for protobuf, and no OpenAPI v2."""
    if request.path == NOT_ANSWERED:
        return request._replace(status=404, form="text/plain; charset=utf-8")
    return request._replace(form="application/json") if request.form in PROTOBUF else request


def own(request: RecordedRequest) -> RecordedRequest:
    """With what differs from server to server and run to run made equal."""
    path = request.path
    for pattern, placeholder in OWN:
        path = re.sub(pattern, placeholder, path)
    # kubectl has the parts of a selector in no order
    return request._replace(
        path=re.sub(
            r"(?<=fieldSelector=)[^&]+",
            lambda found: "%2C".join(sorted(found[0].split("%2C"))),
            path,
        )
    )


async def run(url: str, command: str, folder: Path, cache: Path) -> None:
    """Runs it with an empty discovery cache, as it was recorded; that some fail is in the
    recording."""
    _, *args = command.split()
    argv = [str(KUBECTL), "--server", url, "--cache-dir", str(cache), *args]
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=folder,
        env={"HOME": str(folder), "PATH": ""},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await process.wait()


async def test_kubectl_asks_what_it_asks_a_real_server(
    server: ApiServer, api: Api, tmp_path: Path
) -> None:
    definition = msgspec.json.decode((TRANSCRIPTS / "discovery.jsonl").read_text().splitlines()[2])[
        "request"
    ]["body"]
    await api.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "lab"}})
    wrong = {}
    async with recording_proxy(server.url) as (recorded_requests, url):
        for number, (command, expected) in enumerate(recorded()):
            (tmp_path / "w.yaml").write_text(
                WIDGET.replace("SIZE", f"{10 + number}Gi")
            )  # in the recording each apply had something to change
            recorded_requests.clear()
            await run(url, command, tmp_path, tmp_path / f"cache{number}")
            known = Counter(own(as_the_double(one)) for one in expected)
            requested = Counter(own(one) for one in recorded_requests)
            if known != requested:
                wrong[number, command] = {
                    "recorded": list((known - requested).elements()),
                    "asked": list((requested - known).elements()),
                }
    assert wrong == {}
