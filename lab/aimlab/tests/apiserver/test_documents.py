"""The documents kubectl reads first, against the recorded ones; and the server as a command."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

TRANSCRIPTS = Path(__file__).parent / "transcripts"
Obj = dict[str, Any]
Api = Any


def recorded(name: str) -> list[Obj]:
    """The steps of a recording."""
    return [
        msgspec.json.decode(line)
        for line in (TRANSCRIPTS / f"{name}.jsonl").read_text().splitlines()[1:]
    ]


DOCUMENTS = {step["request"]["path"]: step for step in recorded("kubectl-documents")}


@pytest.fixture
async def widgets(api: Api) -> Api:
    """The API with the Widget kind of the recordings."""
    await api.ok(
        "POST",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        recorded("discovery")[1]["request"]["body"],
    )
    return api


def discovered(document: Obj, group: str) -> dict[str, Obj]:
    """The resources of a group's first version in aggregated discovery."""
    (item,) = [item for item in document["items"] if item["metadata"].get("name", "") == group]
    return {found["resource"]: found for found in item["versions"][0]["resources"]}


@pytest.mark.parametrize(
    ("path", "group", "plurals"),
    [
        pytest.param(
            "/api", "", ["configmaps", "secrets", "persistentvolumeclaims", "namespaces"], id="core"
        ),
        pytest.param("/apis", "lab.example.com", ["widgets"], id="custom"),
    ],
)
async def test_aggregated_discovery(
    widgets: Api, path: str, group: str, plurals: list[str]
) -> None:
    step = DOCUMENTS[path]
    async with widgets.session.get(path, headers={"Accept": step["request"]["accept"]}) as answer:
        assert answer.headers["Content-Type"] == step["response"]["contentType"]
        document = msgspec.json.decode(await answer.read())
    expected, found = discovered(step["response"]["body"], group), discovered(document, group)
    assert {plural: found[plural] for plural in plurals} == {
        plural: expected[plural] for plural in plurals
    }


async def test_openapi_shows_the_schema(widgets: Api) -> None:
    path = "/openapi/v3/apis/lab.example.com/v1alpha1"
    body = DOCUMENTS[path]["response"]["body"]
    document = await widgets.ok("GET", path)
    (name, expected), *_ = body["components"]["schemas"].items()
    found = document["components"]["schemas"][name]
    assert {part: found["properties"][part] for part in ("spec", "status")} == {
        part: expected["properties"][part] for part in ("spec", "status")
    }
    assert found["x-kubernetes-group-version-kind"] == expected["x-kubernetes-group-version-kind"]
    assert {where: sorted(verbs) for where, verbs in document["paths"].items()} == body["paths"]


async def test_the_command_prints_its_url_and_ends_on_sigterm() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "aimlab.apiserver", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout
        url = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()
        async with aiohttp.ClientSession() as session, session.get(f"{url}/readyz") as answer:
            assert await answer.text() == "ok"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 5) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
