"""`aimctl nats init`: the Secrets of NATS, made or completed."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from aimctl.nats.secrets import ROTATABLE, init_cluster, init_folder, to_text
from aimctl.output.console import PlainConsole
from aimschema.names import SYSTEM_NAMESPACE

nats = typer.Typer(no_args_is_help=True, help="Manage NATS keys, certificates and permissions.")


@nats.callback()
def nats_group() -> None:
    """Makes `init` a subcommand, though it is the only one."""


@nats.command(name="init")
def nats_init(
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Namespace of the control plane and NATS.")
    ] = SYSTEM_NAMESPACE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write manifests to this directory.")
    ] = None,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Create missing Secrets in the current cluster."),
    ] = False,
    rotate: Annotated[
        list[str] | None,
        typer.Option("--rotate", help=f"Replace these keys: {', '.join(ROTATABLE)}."),
    ] = None,
) -> None:
    """Keys and permissions of every user, an authority and a certificate for the server, as
    Secrets; what is there is kept. Else prints new ones."""
    if unknown := sorted(set(rotate or ()) - set(ROTATABLE)):
        raise typer.BadParameter(
            f"{', '.join(unknown)}: one of {', '.join(ROTATABLE)}", param_hint="--rotate"
        )
    if apply and output is not None:
        raise typer.BadParameter("--output or --apply, not both")
    if rotate and not apply and output is None:
        raise typer.BadParameter("--rotate needs what is there: --output or --apply")
    console = PlainConsole()
    try:
        if apply:
            asyncio.run(init_cluster(namespace, rotate or (), console.print))
        elif output is not None:
            init_folder(output, namespace, rotate or (), console.print)
        else:
            typer.echo(to_text(namespace), nl=False)
    except (RuntimeError, ValueError, OSError) as error:
        console.print(f"error: {error}", style="bold red", soft_wrap=True)
        raise typer.Exit(1) from error
