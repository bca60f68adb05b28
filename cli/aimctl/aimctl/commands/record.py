"""`aimctl record`: a namespace's events as a file."""

import datetime
from pathlib import Path

from aimctl.connect import connected_bus
from aimctl.invocation import a_console, run, since_when
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.replay.check import services_in
from aimctl.replay.recording import (
    make_recording,
    save,
)


async def record_namespace(
    namespace: str, since: datetime.datetime | None, file: Path, console: PlainConsole
) -> None:
    async with connected_bus() as bus:
        recording = await make_recording(bus, namespace, since, datetime.datetime.now(datetime.UTC))
    if not recording.events:
        raise RuntimeError(f"no events in namespace {namespace}")
    save(recording, file)
    took_part = ", ".join(service.name for service in services_in(recording, None)) or "no service"
    print_text(
        console, f"{len(recording.events)} events of namespace {namespace} in {file}: {took_part}"
    )


def record(namespace: str, file: Path, since: str | None) -> None:
    console = a_console()
    begin = since_when(since)
    run(console, record_namespace(namespace, begin, file, console))
