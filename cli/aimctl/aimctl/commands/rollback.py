"""`aimctl rollback`: bring the spec of an object back to a recorded version."""

import datetime
from dataclasses import replace

import typer

from aimctl.connect import connected_bus
from aimctl.invocation import a_console, parse_key, run
from aimctl.output.console import PlainConsole
from aimctl.put_back import Options, put_back
from aimctl.spec_history import VERSION, read_versions, version_at
from aimschema.resources import Key


async def roll_back(key: Key, to: str, options: Options, console: PlainConsole) -> int:
    """Returns the exit code. Raises RuntimeError."""
    now = datetime.datetime.now(datetime.UTC)
    async with connected_bus() as bus:
        versions = await read_versions(bus, key)
        try:
            version = version_at(versions, to, now)
        except ValueError as error:
            raise RuntimeError(str(error)) from error
        name = to if VERSION.fullmatch(to) else version.name
        where = "" if key.namespace is None else f" -n {key.namespace}"
        again = f"aimctl rollback {key.kind}/{key.name}{where} --to {name}{options.again}"
        return await put_back(bus, {key: version}, [], replace(options, again=again), console)


def rollback(what: str, namespace: str | None, to: str, options: Options) -> None:
    console = a_console()
    work = roll_back(parse_key(what, namespace), to, options, console)
    raise typer.Exit(run(console, work))
