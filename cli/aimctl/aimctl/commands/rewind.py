"""`aimctl rewind`: bring all specs of a namespace back to a time."""

import datetime
from dataclasses import replace

import typer

from aimctl.analysis.history import time_text
from aimctl.connect import connected_bus
from aimctl.invocation import a_console, parse_moment, run
from aimctl.output.console import PlainConsole
from aimctl.put_back import Options, put_back
from aimctl.spec_history import read_states


async def rewind_namespace(
    namespace: str, to: datetime.datetime, options: Options, console: PlainConsole
) -> int:
    """Returns the exit code. Raises RuntimeError."""
    async with connected_bus() as bus:
        states = await read_states(bus, None, namespace, to)
        versions = states.at(0)
        if not versions:
            raise RuntimeError(f"AIM_HISTORY has no object of {namespace} from before that time")
        later = [
            key
            for key, newest in states.newest().items()
            if key not in versions and not newest.deleted
        ]
        again = f"aimctl rewind -n {namespace} --to {time_text(to)}{options.again}"
        return await put_back(bus, versions, later, replace(options, again=again), console)


def rewind(namespace: str, to: str, options: Options) -> None:
    console = a_console()
    work = rewind_namespace(namespace, parse_moment(to, "--to"), options, console)
    raise typer.Exit(run(console, work))
