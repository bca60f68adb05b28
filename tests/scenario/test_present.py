"""The commands about the current state on a real run: the quickstart with a wrong S3 key, reported,
corrected and retried.

The tests of this file share one laptop cluster. Each names the state of the quickstart that it
needs.
"""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
import yaml

from aim_cacher.settings import CacherSettings
from aim_testing import quickstart
from aimctl.component_registry import SERVICES
from aimlab.cli.environment import Stack, control_plane_on_laptop, kubectl_env
from aimlab.cli.quickstart import NAMESPACE, SERVICE
from aimlab.testing import commands
from aimschema import labels as labels_

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
OBJECT = ("aimsvc/" + SERVICE, "-n", NAMESPACE)
COLOUR = re.compile(r"\x1b\[(\d+;)*(3\d|4\d|9\d)")
"""SGR codes that set a colour; NO_COLOR leaves bold and dim."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with control_plane_on_laptop(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def failed(stack: Stack) -> None:
    await quickstart.failed(stack)


@pytest_asyncio.fixture(loop_scope="module")
async def running(stack: Stack) -> None:
    await quickstart.running(stack)


def environment(stack: Stack) -> Mapping[str, str]:
    return kubectl_env(stack.lab) | {"AIM_NATS_URL": stack.nats_url}


async def aimctl(stack: Stack, *args: str, code: int = 0, **env: str) -> str:
    return await commands.command({**environment(stack), **env}, "aimctl", *args, code=code)


async def kubectl(stack: Stack, *args: str) -> str:
    return await commands.command(environment(stack), "kubectl", *args)


async def started(stack: Stack, *args: str) -> asyncio.subprocess.Process:
    return await commands.start(environment(stack), "aimctl", *args)


async def read_until(process: asyncio.subprocess.Process, text: str) -> str:
    """What it printed up to the line that has `text`."""
    assert process.stdout is not None
    read = ""
    async with asyncio.timeout(60):
        while text not in read:
            line = await process.stdout.readline()
            assert line, f"{text!r} never came, but:\n{read}"
            read += line.decode()
    return read


async def interrupted(process: asyncio.subprocess.Process) -> int:
    process.send_signal(signal.SIGINT)
    return await process.wait()


@pytest.mark.usefixtures("failed")
async def test_wait_ends_with_the_action_that_a_person_must_take(
    stack: Stack,
) -> None:
    output = await aimctl(stack, "wait", *OBJECT, "--timeout", "100s", code=1)
    print(output)
    assert "you: correct the credentials" in output
    assert output.endswith(
        f"AIMService/{NAMESPACE}/{SERVICE} is not ready: manual action required\n"
    )
    decided = json.loads(await aimctl(stack, "wait", *OBJECT, "-o", "json", code=1))
    assert (decided["reached"], decided["exit_code"], decided["state"]) == (False, 1, "failed")


@pytest.mark.usefixtures("failed")
async def test_get_shows_the_chain_and_why_in_one_row(stack: Stack) -> None:
    [row] = json.loads(await aimctl(stack, "get", "-n", NAMESPACE, "-o", "json"))
    assert (row["service"], row["template"], row["model"]) == (
        SERVICE,
        "minilm-latency",
        "all-minilm-l6-v2",
    )
    assert row["why"].startswith(f"ModelCache/{row['cache']} has failed: try ")
    print(await aimctl(stack, "get", "-A"))
    assert (
        yaml.safe_load(await aimctl(stack, "get", "mc", "-A", "-o", "yaml"))[0]["state"] == "Failed"
    )


@pytest.mark.usefixtures("running")
async def test_a_used_cache_is_no_part_of_an_eviction(stack: Stack) -> None:
    [row] = json.loads(await aimctl(stack, "get", "mc", "-n", NAMESPACE, "-o", "json"))
    assert row["evictable"] == f"no: used by AIMService {SERVICE}"
    assert row["used_by"] == f"AIMService {SERVICE}"
    assert row["size"].endswith("Gi")
    plan = ("cache", "evict", "--plan", "1Gi", "-n", NAMESPACE)
    assert "unused caches hold 0Gi" in await aimctl(stack, *plan, code=1)
    found = json.loads(await aimctl(stack, *plan, "-o", "json", code=1))
    assert found["victims"] == []


@pytest.mark.usefixtures("failed")
async def test_a_retry_shows_in_the_timeline_and_ends_a_wait(
    stack: Stack,
) -> None:
    await quickstart.apply_with_key(stack, quickstart.RIGHT)
    following = await started(stack, "timeline", *OBJECT, "--follow")
    watching = await started(stack, "get", "aimsvc", "-n", NAMESPACE, "--watch")
    await read_until(following, "(CacheFailed)")
    await read_until(watching, "Degraded")
    assert re.search(
        rf"retry requested for ModelCache/{NAMESPACE}/\S+", await aimctl(stack, "retry", *OBJECT)
    )
    print(await aimctl(stack, "wait", *OBJECT, "--timeout", "60s"))
    printed = await read_until(following, "is now Running")
    assert "annotations.aim.silogen.ai/retry nothing → " in printed
    await read_until(watching, "Running")
    assert [await interrupted(process) for process in (following, watching)] == [130, 130]


@pytest.mark.usefixtures("running")
async def test_what_runs_has_nothing_to_try_again(stack: Stack) -> None:
    assert "nothing to retry" in await aimctl(stack, "retry", *OBJECT, code=1)


@pytest.mark.usefixtures("running")
async def test_logs_are_those_of_the_pods_behind_the_service(stack: Stack) -> None:
    [line] = (await aimctl(stack, "logs", *OBJECT, "--tail", "1")).splitlines()
    assert line.startswith(f"{SERVICE}-predictor-")
    assert "/kserve-container | " in line
    following = await started(stack, "logs", *OBJECT, "-f")
    assert "serving on" in await read_until(following, "serving on")
    assert await interrupted(following) == 130
    assert "AIMService/quickstart/missing has no pods" in await aimctl(
        stack, "logs", "aimsvc/missing", "-n", NAMESPACE, code=1
    )


@pytest.mark.usefixtures("running")
async def test_the_last_words_of_a_pod_that_failed_come_first(stack: Stack) -> None:
    image = str(CacherSettings.model_fields["downloader_image"].default)
    labels = {labels_.MANAGED_BY: labels_.MANAGED_BY_AIM, labels_.KSERVE_ISVC_LABEL: SERVICE}
    metadata = {"name": f"{SERVICE}-second", "namespace": NAMESPACE, "labels": labels}
    container = {
        "name": "kserve-container",
        "image": image,
        "args": ["fetch", "nonsense", "/nowhere"],
    }
    file = stack.lab.state_dir / "pod.json"
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": {"restartPolicy": "Never", "containers": [container]},
            }
        )
    )
    await kubectl(stack, "create", "-f", str(file))
    await kubectl(
        stack,
        "wait",
        f"pod/{SERVICE}-second",
        "-n",
        NAMESPACE,
        "--for=jsonpath={.status.phase}=Failed",
        "--timeout=60s",
    )
    first, *_, last = (await aimctl(stack, "logs", *OBJECT)).splitlines()
    assert first.startswith(f"{SERVICE}-second/kserve-container | ")
    assert last.startswith(f"{SERVICE}-predictor-")
    await kubectl(stack, "delete", "pod", f"{SERVICE}-second", "-n", NAMESPACE)


@pytest.mark.usefixtures("running")
async def test_top_has_every_service_up_to_date(stack: Stack) -> None:
    shown: dict[str, Any] = json.loads(await aimctl(stack, "top", "--once", "-o", "json"))
    assert {load["service"]: load["pending"] for load in shown["loads"]} == dict.fromkeys(
        SERVICES, 0
    )
    assert (shown["mirror_lag"], shown["downloads"], shown["log_messages"] > 100) == (0, [], True)
    assert "no downloads" in await aimctl(stack, "top", "--once")


@pytest.mark.parametrize(
    "report",
    [
        ("explain", *OBJECT),
        ("timeline", *OBJECT),
        ("dead",),
        ("doctor",),
        ("get", "-A"),
        ("top", "--once"),
    ],
)
@pytest.mark.usefixtures("running")
async def test_what_is_reported_is_the_same_in_json_and_yaml(
    stack: Stack, report: tuple[str, ...]
) -> None:
    as_json, as_yaml = [await aimctl(stack, *report, "-o", form) for form in ("json", "yaml")]
    moving = {"log_bytes", "log_messages", "events_per_s", "what"}
    assert _without(json.loads(as_json), moving) == _without(yaml.safe_load(as_yaml), moving)


def _without(data: Any, names: set[str]) -> Any:
    """Numbers and sentences that a moment later are others are left out."""
    if isinstance(data, dict):
        return {name: _without(value, names) for name, value in data.items() if name not in names}
    return [_without(each, names) for each in data] if isinstance(data, list) else data


@pytest.mark.usefixtures("running")
async def test_colours_go_where_they_are_not_wanted(stack: Stack) -> None:
    assert COLOUR.search(await aimctl(stack, "explain", *OBJECT, FORCE_COLOR="1"))
    assert not COLOUR.search(await aimctl(stack, "explain", *OBJECT, FORCE_COLOR="1", NO_COLOR="1"))


@pytest.mark.usefixtures("running")
async def test_completion_proposes_kinds_names_and_namespaces(stack: Stack) -> None:
    async def proposed(line: str, **env: str) -> list[str]:
        completion = {
            "COMP_WORDS": line,
            "COMP_CWORD": str(line.count(" ")),
            "_AIMCTL_COMPLETE": "complete_bash",
        }
        return (
            await commands.command({**environment(stack), **completion, **env}, "aimctl")
        ).split()

    assert await proposed("aimctl explain aims") == ["aimst/", "aimsvc/"]
    assert await proposed("aimctl explain aimsvc/") == [f"aimsvc/{SERVICE}"]
    assert await proposed("aimctl explain -n nowhere aimsvc/") == []
    assert await proposed("aimctl get -n qu") == [NAMESPACE]
    assert await proposed("aimctl explain aimsvc/", KUBECONFIG="/nowhere") == []


@pytest.mark.usefixtures("running")
async def test_a_wait_for_deletion_ends_by_timeout_or_deletion(stack: Stack) -> None:
    assert "is not deleted after 1 s" in await aimctl(
        stack, "wait", *OBJECT, "--for", "deleted", "--timeout", "1s", code=124
    )
    waiting = await started(stack, "wait", *OBJECT, "--for", "deleted", "--timeout", "60s")
    await read_until(waiting, "is ready")
    await kubectl(stack, "delete", OBJECT[0], *OBJECT[1:])
    await read_until(waiting, "is deleted")
    assert await waiting.wait() == 0
