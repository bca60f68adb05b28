"""A forked process is to its starter what a started one is."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimctl.local.processes import Children, Program, start, stop
from aimlab import forkserver
from aimlab.testing import eventually

STARTER = """
import asyncio, pathlib, sys
from aimctl.local.processes import Program, start
async def main():
    process = await start(Program([sys.executable, sys.argv[1]], pathlib.Path(sys.argv[2])))
    print(process.pid, flush=True)
    await process.wait()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("fork")
    with forkserver.fork_server(folder, ["aimctl.local.ports"]) as place:
        yield place


@pytest.fixture(autouse=True)
def use_server(listening: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(forkserver.SOCKET, str(listening))
    monkeypatch.delenv("PYTHONPATH", raising=False)  # of other code, for which nothing is forked


def script(folder: Path, text: str) -> list[str]:
    (folder / "script.py").write_text(text)
    return [sys.executable, str(folder / "script.py")]


async def ended(folder: Path, text: str, *args: str) -> tuple[int, str]:
    process = await start(
        Program([*script(folder, text), *args], folder / "out", {"A": "b"}, folder)
    )
    return await process.wait(), (folder / "out").read_text()


async def test_it_has_arguments_environment_and_folder(tmp_path: Path) -> None:
    text = "import os, sys; print(sys.argv[1:], dict(os.environ), os.getcwd())"
    assert await ended(tmp_path, text, "c", "d e") == (0, f"['c', 'd e'] {{'A': 'b'}} {tmp_path}\n")


async def test_it_is_forked(tmp_path: Path) -> None:
    assert await ended(tmp_path, "import sys; print('aimctl.local.ports' in sys.modules)") == (
        0,
        "True\n",
    )


async def test_other_code_is_started_and_not_forked(tmp_path: Path) -> None:
    text = "import sys; print('aimctl.local.ports' in sys.modules)"
    env = {"PYTHONPATH": str(tmp_path / "former" / "release")}
    program = Program(script(tmp_path, text), tmp_path / "out", env, tmp_path)
    assert await (await start(program)).wait() == 0
    assert (tmp_path / "out").read_text() == "False\n"


@pytest.mark.parametrize(
    ("text", "code", "output"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('why')", 1, "why\n"),
        ("import os; os.kill(os.getpid(), 15)", -15, ""),
        ("import os; os.kill(os.getpid(), 2)", -2, "KeyboardInterrupt\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import atexit; atexit.register(print, 'bye')", 0, "bye\n"),
        ("import atexit, sys; atexit.register(print, 'bye'); sys.exit(4)", 4, "bye\n"),
        ("import threading; threading.Timer(0.01, print, ['late']).start()", 0, "late\n"),
        ("import sys; sys.exit()", 0, ""),
    ],
)
async def test_its_end_is_reported(tmp_path: Path, text: str, code: int, output: str) -> None:
    got, log = await ended(tmp_path, text)
    assert (got, "".join(log.splitlines(keepends=True)[-1:])) == (code, output)


async def test_memory_that_is_shared_is_not_taken_apart(tmp_path: Path) -> None:
    text = "class Kept:\n    def __del__(self): print('taken apart')\nkept = Kept()"
    assert await ended(tmp_path, text) == (0, "")


async def test_a_module_runs_as_with_python_m(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import sys; print(__name__, sys.argv[1:])")
    program = Program([sys.executable, "-m", "mine", "x"], tmp_path / "out", {}, tmp_path)
    assert await (await start(program)).wait() == 0
    assert (tmp_path / "out").read_text() == "__main__ ['x']\n"


async def test_it_can_be_stopped_with_its_children(tmp_path: Path) -> None:
    text = "import subprocess, sys; subprocess.run(['sleep', '100'])"
    async with Children(tmp_path / "log") as children:
        process = await children.start("one", script(tmp_path, text))
        assert os.getsid(process.pid) == process.pid
        assert await stop(process, grace_s=5) == -signal.SIGTERM


async def test_stdout_and_stderr_can_be_two_files(tmp_path: Path) -> None:
    argv = script(tmp_path, "import sys; print('out'); print('err', file=sys.stderr)")
    with (tmp_path / "1").open("ab") as out, (tmp_path / "2").open("ab") as err:
        assert await (await forkserver.fork(argv, [out, err], {}, None)).wait() == 0
    assert [(tmp_path / name).read_text() for name in "12"] == ["out\n", "err\n"]


async def test_it_ends_with_its_starter(tmp_path: Path) -> None:
    sleeps = script(tmp_path, "import time; time.sleep(100)")[1]
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, sleeps, str(tmp_path / "out"), stdout=asyncio.subprocess.PIPE
    )
    assert starter.stdout is not None
    pid = int(await starter.stdout.readline())
    starter.kill()
    await starter.wait()

    async def is_ended() -> bool:
        return not Path(f"/proc/{pid}").exists()  # noqa: ASYNC240 (no disk is asked)

    await eventually(is_ended, "the process ends")
