"""`aimctl nats init`: the Secrets of NATS, made or completed."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import typer

from aimctl.nats.secrets import init_cluster, init_folder, to_text
from aimctl.output.console import PlainConsole


def nats_init(namespace: str, output: Path | None, rotate: Sequence[str], *, apply: bool) -> None:
    console = PlainConsole()
    try:
        if apply:
            asyncio.run(init_cluster(namespace, rotate, console.print))
        elif output is not None:
            init_folder(output, namespace, rotate, console.print)
        else:
            typer.echo(to_text(namespace), nl=False)
    except (RuntimeError, ValueError, OSError) as error:
        console.print(f"error: {error}", style="bold red", soft_wrap=True)
        raise typer.Exit(1) from error
