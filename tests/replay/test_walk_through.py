"""The commands of docs/how-to/replay.md print what the page says."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aimctl.app import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "replay.md").read_text()
RECORDING = "tests/replay/wrong-s3-key.jsonl"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_console_blocks_print_what_they_show() -> None:
    blocks = re.findall(r"```console\n\$ aimctl ([^\n]+)\n(.*?)```", PAGE, re.DOTALL)
    assert blocks
    for command, output in blocks:
        ran = CliRunner().invoke(app, command.split())
        assert (ran.exit_code, ran.output) == (0, output)


def test_the_steps_lead_to_the_rejected_key() -> None:
    assert "`--service cacher --step --until 117`" in PAGE
    ran = CliRunner().invoke(
        app, ["replay", RECORDING, "--service", "cacher", "--step", "--until", "117"]
    )
    assert ran.exit_code == 0
    assert re.search(
        r"^ +would report on ModelCache/quickstart/\S+: StorageReady=True \(PVCBound\),"
        r" Filled=False \(AuthError\)",
        ran.output,
        re.MULTILINE,
    )
    assert re.search(
        r"^ +reported on ModelCache \S+: StorageReady=True \(PVCBound\),"
        r" Filled=False \(AuthError\)",
        ran.output,
        re.MULTILINE,
    )


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        pytest.param(
            [RECORDING, "--service", "unknown"], 2, "unknown is not one of", id="unknown-service"
        ),
        pytest.param([], 2, "name a file, or --live", id="neither-file-nor-live"),
        pytest.param(["--live"], 2, "--live needs --service", id="live-of-an-unknown-service"),
        pytest.param(["no-such-file"], 2, "does not exist", id="no-file"),
        pytest.param(["README.md"], 1, "no header of a recording", id="no-recording"),
    ],
)
def test_wrong_usage_and_failure_have_different_exit_codes(
    args: list[str], code: int, message: str
) -> None:
    ran = CliRunner().invoke(app, ["replay", *args], env={"COLUMNS": "300"})
    assert ran.exit_code == code, ran.output
    assert message in " ".join(ran.output.split())
