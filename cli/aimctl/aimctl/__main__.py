"""`aimctl`: the command line."""

import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer

from aimctl import looking, present
from aimctl.console import PlainConsole
from aimctl.dead import list_letters, retry_letters
from aimctl.demo import run_demo
from aimctl.dev import run_dev, run_up
from aimctl.nats_secrets import ROTATABLE, init_cluster, init_folder, to_text
from aimctl.output import Output
from aimlab.lab import SYSTEM_NAMESPACE

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, help="The AIM control plane: run it, try it.")
dead = typer.Typer(help="What the services could not deal with (NATS server: AIM_NATS_URL).")
app.add_typer(dead, name="dead")
nats = typer.Typer(
    no_args_is_help=True, help="Who may do what on NATS: keys, certificates, permissions."
)
app.add_typer(nats, name="nats")
looking.add_to(app)
present.add_to(app)
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="Folder to keep everything in; left out, a temporary one that goes at the end.",
    ),
]


@app.command()
def demo(state: StateDir = None) -> None:
    """The whole way in a laptop cluster: five manifests become an answer through the gateway.
    Exit code 0 only if all of it was true."""
    raise typer.Exit(0 if _in_state_dir(state, run_demo) else 1)


@app.command()
def dev(state: StateDir = None) -> None:
    """A laptop cluster with the control plane, until Ctrl-C."""
    _in_state_dir(state, run_dev)


@app.command()
def up(state: StateDir = None) -> None:
    """The six services against the current kubeconfig, until Ctrl-C, with an embedded NATS
    server unless AIM_NATS_URL is set."""
    kept = state or Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "aim"
    _in_state_dir(kept, run_up)


@dead.callback(invoke_without_command=True)
def dead_list(context: typer.Context, output: Output = "text") -> None:
    """What the services could not deal with: unreadable messages, and work that keeps failing
    (NATS server: AIM_NATS_URL)."""
    if context.invoked_subcommand is None:
        _on_bus(lambda console: list_letters(console, output))


@dead.command(name="retry", no_args_is_help=True)
def dead_retry(
    subject: Annotated[
        list[str] | None, typer.Argument(help="As `aimctl dead` shows them.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All that are listed.")] = False,
) -> None:
    """Send unreadable messages again as they were, make services look at failing objects again,
    and take both off the list."""
    if every == bool(subject):
        raise typer.BadParameter("name subjects, or --all")
    raise typer.Exit(0 if _on_bus(lambda console: retry_letters(subject or None, console)) else 1)


@nats.callback()
def nats_group() -> None:
    """So that `init` is a command of its own, though it is the only one."""


@nats.command(name="init")
def nats_init(
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Of the control plane and its NATS server.")
    ] = SYSTEM_NAMESPACE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of manifests to make or complete.")
    ] = None,
    apply: Annotated[
        bool,
        typer.Option(
            "--apply", help="Make or complete the Secrets in the cluster of the current kubeconfig."
        ),
    ] = False,
    rotate: Annotated[
        list[str] | None,
        typer.Option("--rotate", help=f"Replace what is there of: {', '.join(ROTATABLE)}."),
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


def _on_bus(work: Callable[[PlainConsole], Coroutine[Any, Any, T]]) -> T:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    console = PlainConsole()
    try:
        return asyncio.run(work(console))
    except RuntimeError as error:
        console.print(f"error: {error}", style="bold red", soft_wrap=True)
        raise typer.Exit(1) from error


def _in_state_dir(state: Path | None, work: Any) -> Any:
    """Run until done or told to stop; a temporary folder goes at the end, but for when a part
    did not come up: its log is in there."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    console = PlainConsole()
    folder = state or Path(tempfile.mkdtemp(prefix="aim-"))
    try:
        result = asyncio.run(_until_told(work(folder.absolute(), console)))
    except (RuntimeError, ExceptionGroup) as error:
        problem = _first(error)
        if not isinstance(problem, RuntimeError):
            raise
        console.print(f"error: {problem}", style="bold red", soft_wrap=True)
        raise typer.Exit(1) from error
    if state is None:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _first(error: Exception) -> Exception:
    """What went wrong first, out of the groups that tasks wrap it in."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def _until_told(work: Coroutine[Any, Any, Any]) -> Any:
    """SIGINT and SIGTERM cancel the work, which cleans up; then there is no result."""
    task = asyncio.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None


def main() -> None:
    sys.exit(app())


if __name__ == "__main__":
    main()
