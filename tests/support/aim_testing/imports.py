"""Which modules a program imports, without what the tests import.

Each program runs in a fork of one interpreter, which has run `base`. The modules of `base` count
for each program, so a test also asserts that they are allowed.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FORKS = """
import contextlib, io, json, os, sys

def run(text, argv, env):
    sys.argv = argv
    os.environ.clear()
    os.environ.update(env)
    code, shown = 0, io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            exec(text, {"__name__": "__main__"})
        except SystemExit as end:
            code = end.code or 0
    shown.seek(0)
    return code, shown.read(), sorted(sys.modules)

base, programs = json.load(sys.stdin)
run(*base)
for program in programs:
    reads, writes = os.pipe()
    if os.fork() == 0:
        with os.fdopen(writes, "w") as into:
            json.dump(run(*program), into)
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as result:
        print(result.read())
    os.wait()
"""


@dataclass(frozen=True)
class Script:
    """Python code to run, with `sys.argv` and the environment that it has."""

    text: str
    argv: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What a script printed to stdout and stderr, and the modules that were imported at its end."""

    code: int
    shown: str
    modules: frozenset[str]


def runs_of(base: Script, scripts: Sequence[Script]) -> list[Run]:
    """In the same order. Raises ValueError where a script raises anything but SystemExit."""
    first, *rest = ([each.text, each.argv, dict(each.env)] for each in (base, *scripts))
    request = json.dumps([first, rest])
    command = [sys.executable, "-c", FORKS]
    done = subprocess.run(
        command, env={}, input=request, capture_output=True, text=True, check=False, timeout=60
    )
    if len(results := done.stdout.splitlines()) != len(scripts) or "" in results:
        raise ValueError(f"a script failed: {done.stderr}")
    found = map(json.loads, results)
    return [Run(code, shown, frozenset(modules)) for code, shown, modules in found]
