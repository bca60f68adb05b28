"""The recorded answers of a real kube-apiserver, step by step, against the double: in this
process, and as a server that is only an address."""

import asyncio
import filecmp
import sys
from pathlib import Path

import aiohttp
import pytest

from aimlab.apiserver.access import ADMIN_TOKEN
from aimlab.testing.transcript_diff import Place, Step, place, steps
from aimlab.testing.transcripts import KNOWN, LEFT_BARE, Outcome, against_double, table

FOLDER = Path(__file__).parent / "transcripts"
ROOT = Path(__file__).parents[4]
STEPS = steps(FOLDER)
RECORDED_HERE = ("immutable", "pod-security", "quota", "create-only")
"""Topics that `aimlab.testing.record` wrote."""
NO_DIFFERENCE_IN = {
    "create",
    "validation",
    "update-and-generation",
    "server-side-apply",
    "watch",
    "delete-finalizers-owners",
    "pod-security",
    "quota",
    "create-only",
}


@pytest.fixture(scope="module")
def outcomes() -> dict[Place, Outcome]:
    return {place(one.step): one for one in asyncio.run(against_double(FOLDER))}


@pytest.mark.parametrize(
    "step", [pytest.param(step, id=f"{step['case']}-{step['step']}") for step in STEPS]
)
def test_the_double_answers_as_recorded(outcomes: dict[Place, Outcome], step: Step) -> None:
    assert not outcomes[place(step)].failures, step.get("note", "")


def test_no_recorded_step_is_left_out() -> None:
    lines = [
        line
        for file in FOLDER.glob("*.jsonl")
        if file.stem != "kubectl-documents"
        for line in file.read_text().splitlines()[1:]
    ]
    assert len(STEPS) == len({place(step) for step in STEPS}) == len(lines)


def test_every_known_difference_is_still_one(outcomes: dict[Place, Outcome]) -> None:
    assert {where for where, one in outcomes.items() if one.known} == KNOWN.keys()


def test_services_rely_on_no_known_difference() -> None:
    assert not {topic for topic, _ in KNOWN} & NO_DIFFERENCE_IN


def test_what_is_left_bare_is_in_the_recording() -> None:
    assert {place(step) for step in STEPS} >= LEFT_BARE.keys()


def test_the_page_has_the_table_of_today(outcomes: dict[Place, Outcome]) -> None:
    page = (ROOT / "docs" / "explanation" / "api-server-double.md").read_text()
    indented = "\n".join(
        f"    {line}".rstrip() for line in table(list(outcomes.values())).splitlines()
    )
    assert indented in page, f"put this into docs/explanation/api-server-double.md:\n{indented}"


def test_the_fixtures_are_the_recording() -> None:
    recording = next(
        (
            up / "shared" / "k8s-transcripts"
            for up in ROOT.parents
            if (up / "shared" / "k8s-transcripts").is_dir()
        ),
        None,
    )
    if recording is None:
        pytest.skip(
            "shared/k8s-transcripts is not beside the repository, so there is nothing to compare"
            " the fixtures with"
        )
    names = sorted(file.name for file in recording.iterdir() if file.name != "README.md")
    ours = {f"{topic}.jsonl" for topic in RECORDED_HERE}
    assert {file.name for file in FOLDER.iterdir()} - ours == set(names)
    assert [
        name for name in names if not filecmp.cmp(recording / name, FOLDER / name, shallow=False)
    ] == []


async def run(*args: str) -> tuple[int | None, str]:
    """The exit code and what the command printed."""
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "aimlab.testing.transcripts", *args]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_a_run_twice_leaves_another_server_unchanged(
    elsewhere: str, outcomes: dict[Place, Outcome]
) -> None:
    expected = table(list(outcomes.values()))
    for _ in range(2):
        code, output = await run(str(FOLDER), "--server", elsewhere, "--token", ADMIN_TOKEN)
        assert (code, output.strip()) == (0, expected)


async def test_a_server_that_answers_otherwise_is_a_failure(elsewhere: str, tmp_path: Path) -> None:
    for file in FOLDER.glob("*.jsonl"):
        text = file.read_text()
        (tmp_path / file.name).write_text(
            text.replace("FieldValueRequired", "FieldValueWanted")
            if file.stem == "validation"
            else text
        )
    code, output = await run(str(tmp_path), "--server", elsewhere)
    assert code == 1
    assert "FAILED validation 1 " in output
    assert "recorded 'FieldValueWanted', got 'FieldValueRequired'" in output


async def test_a_namespace_of_another_owner_is_left_alone(elsewhere: str) -> None:
    async with aiohttp.ClientSession(elsewhere, trust_env=False) as session:
        await session.post("/api/v1/namespaces", json={"metadata": {"name": "lab"}})
        code, output = await run(str(FOLDER), "--server", elsewhere)
        assert (code, 'namespaces "lab" already exists' in output) == (1, True)
        async with session.get("/api/v1/namespaces/lab") as answer:
            assert (await answer.json())["status"] == {"phase": "Active"}
