"""The history of a real run: the quickstart with a wrong S3 key, the manual action, and the state
after it.

The tests of this file share one laptop cluster. Each names the state of the quickstart that it
needs.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from aim_testing import quickstart
from aimlab.cli.environment import Stack, control_plane_on_laptop, kubectl_env
from aimlab.cli.quickstart import NAMESPACE, SERVICE
from aimlab.testing import commands

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
OBJECT = ("aimsvc/" + SERVICE, "-n", NAMESPACE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with control_plane_on_laptop(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def deleted(stack: Stack) -> None:
    await quickstart.deleted(stack)


@pytest_asyncio.fixture(loop_scope="module")
async def failed(stack: Stack) -> None:
    await quickstart.failed(stack)


@pytest_asyncio.fixture(loop_scope="module")
async def running(stack: Stack) -> None:
    await quickstart.running(stack)


async def command(stack: Stack, name: str, *args: str, code: int = 0) -> str:
    return await commands.command(
        kubectl_env(stack.lab) | {"AIM_NATS_URL": stack.nats_url}, name, *args, code=code
    )


@pytest.mark.usefixtures("deleted")
async def test_plan_shows_what_apply_would_create(stack: Stack) -> None:
    output = await command(stack, "aimctl", "plan", "-f", str(stack.quickstart.manifests), code=1)
    assert f"discovery would create Job/{NAMESPACE}/discover-minilm-latency" in output
    assert "7 to create" in output
    assert await command(stack, "kubectl", "get", "aim", "-A") == "No resources found\n"


@pytest.mark.usefixtures("failed")
async def test_explain_names_the_remedy_for_a_wrong_key(stack: Stack) -> None:
    output = await command(stack, "aimctl", "explain", *OBJECT, code=1)
    print(output)
    assert "AIMService/minilm has failed" in output
    assert "you: correct the credentials" in output
    chain = json.loads(await command(stack, "aimctl", "explain", *OBJECT, "-o", "json", code=1))
    assert (chain["state"], chain["because"][0]["reason"]) == ("failed", "AuthError")


@pytest.mark.usefixtures("failed")
async def test_the_timeline_has_failure_repair_and_recovery(
    stack: Stack,
) -> None:
    await quickstart.running(stack)
    steps = json.loads(await command(stack, "aimctl", "timeline", *OBJECT, "-o", "json"))
    by_seq = {step["seq"]: step for step in steps}
    assert all(
        step["cause"] is None or steps.index(by_seq[step["cause"]]) < steps.index(step)
        for step in steps
    )
    failed = next(step for step in steps if "AuthError" in step["what"] and step["who"] == "cacher")
    retries = [s for s in steps if s["who"] == "you" and quickstart.RETRY in s["what"]]
    righted = retries[-1]
    running = next(
        step
        for step in steps
        if step["what"].startswith("is now Running") and step["seq"] > righted["seq"]
    )
    assert failed["seq"] < righted["seq"] < running["seq"]
    causes: list[int] = []
    while (step := by_seq[running["cause"] if not causes else causes[-1]])["cause"] is not None:
        causes.append(step["cause"])
    assert righted["seq"] in causes
    print(await command(stack, "aimctl", "timeline", *OBJECT))
    assert "✓ AIMService/minilm is ready" in await command(stack, "aimctl", "explain", *OBJECT)


@pytest.mark.usefixtures("running")
async def test_a_recording_replays_equally_from_file_and_live(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    assert "cacher" in await command(stack, "aimctl", "record", "-n", NAMESPACE, "-o", str(file))
    output = json.loads(await command(stack, "aimctl", "replay", str(file), "-o", "json"))
    assert {one["service"] for one in output["services"]} == {
        "discovery",
        "cacher",
        "deployer",
        "router",
        "statuswriter",
    }
    assert quickstart.RIGHT not in file.read_text()
    assert "no differences" in await command(
        stack, "aimctl", "replay", "--live", "--service", "cacher", "--rate", "5000"
    )


@pytest.mark.usefixtures("running")
async def test_what_is_there_needs_no_change(stack: Stack) -> None:
    assert "nothing would change" in await command(
        stack, "aimctl", "plan", "-f", str(stack.quickstart.manifests)
    )


async def test_the_exit_code_is_1_for_what_is_not_there(stack: Stack) -> None:
    assert "does not exist" in await command(
        stack, "aimctl", "explain", "aimsvc/missing", "-n", NAMESPACE, code=1
    )


async def test_a_namespace_of_nothing_has_what_is_above_namespaces(stack: Stack) -> None:
    await command(stack, "aimctl", "record", "-n", "nowhere", "-o", "/dev/null", "--since", "1m")


@pytest.mark.usefixtures("running")
async def test_history_has_the_effect_of_a_version(stack: Stack) -> None:
    """And a rollback with the user's kubeconfig is a version too."""
    scale = ("patch", OBJECT[0], *OBJECT[1:], "--type=merge", "-p", '{"spec":{"replicas":2}}')
    await command(stack, "kubectl", *scale)
    await command(stack, "aimctl", "wait", *OBJECT, "--timeout", "60s")
    before = json.loads(await command(stack, "aimctl", "history", *OBJECT, "-o", "json"))
    assert before[-1]["changed"] == ["spec.replicas"]
    assert before[-1]["manager"] == "kubectl-patch"
    effect = before[-1]["effect"]
    assert (effect["pods"], effect["state"]) == (1, "Running")
    assert effect["ready_after_s"] > 0
    print(await command(stack, "aimctl", "history", *OBJECT))
    to = ("--to", before[-2]["version"], "--kubeconfig", str(stack.lab.kubeconfig))
    plan = await command(stack, "aimctl", "rollback", *OBJECT, *to)
    print(plan)
    assert "then deployer would change InferenceService" in plan
    await command(stack, "aimctl", "rollback", *OBJECT, *to, "--yes")
    spec = json.loads(await command(stack, "kubectl", "get", *OBJECT, "-o", "json"))["spec"]
    assert spec == before[-2]["spec"]
