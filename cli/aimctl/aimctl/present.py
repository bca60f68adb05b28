"""The commands about the present: doctor, get, wait, logs, retry, top. Exit codes are in
docs/reference/aimctl.md."""

from pathlib import Path
from typing import Annotated

import typer

from aimctl.awaiting import goal_of, wait_for
from aimctl.chains import ROOTS
from aimctl.completing import complete_root
from aimctl.doctor.show import show_findings
from aimctl.listing import show_rows
from aimctl.looking import Named, Namespace, a_console, named, run
from aimctl.output import Output
from aimctl.podlogs import show_logs
from aimctl.top import show_top
from aimctl.trying import try_again
from aimctl.words import duration_s, resource_of

Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig",
        help="Which cluster; left out, as kubectl finds it.",
        exists=True,
        dir_okay=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    for command in (doctor, get, wait, logs, retry, top):
        app.command()(command)


def doctor(kubeconfig: Kubeconfig = None, output: Output = "text") -> None:
    """What a cluster has and lacks for the control plane, before and after its installation,
    each finding with its fix. Exit code 1 for errors."""
    console = a_console()
    raise typer.Exit(0 if run(console, show_findings(kubeconfig, console, output)) else 1)


def get(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="Such as aimsvc; left out, services and what no service uses.",
            autocompletion=complete_root,
        ),
    ] = None,
    namespace: Namespace = None,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", "-w", help="Then each row that is new or has changed, until Ctrl-C."
        ),
    ] = False,
    output: Output = "text",
) -> None:
    """Service, template, model, caches and what they wait for, a chain in each row."""
    root = None if kind is None else resource_of(kind)
    if kind is not None and root not in ROOTS:
        raise typer.BadParameter(
            f"{kind!r} is none of {', '.join(each.kind for each in ROOTS)}", param_hint="KIND"
        )
    if (namespace is None) != everywhere:
        raise typer.BadParameter("name a namespace with -n, or -A for all", param_hint="-n")
    console = a_console()
    run(console, show_rows(root, namespace, console, output, watch=watch))


def wait(
    what: Named,
    namespace: Namespace = None,
    goal: Annotated[
        str, typer.Option("--for", help="ready, deleted, condition=TYPE or condition=TYPE=STATUS.")
    ] = "ready",
    timeout: Annotated[str, typer.Option("--timeout", help="Such as 90s or 5m.")] = "5m",
    output: Output = "text",
) -> None:
    """Wait, saying for what. Exit code 1 as soon as only a person can help, 124 when the time is
    over."""
    key = named(what, namespace)
    try:
        wanted, timeout_s = goal_of(goal), duration_s(timeout)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    console = a_console()
    raise typer.Exit(run(console, wait_for(key, wanted, timeout_s, console, output)))


def logs(
    what: Named,
    namespace: Namespace = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the containers have ended.")
    ] = False,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail",
            min=0,
            help="Only the last lines of each; left out, all, of failed ones the last 20.",
        ),
    ] = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """The logs of all pods that belong to an object through its chain, failed ones first. Exit
    code 1 if there is no pod."""
    console = a_console()
    raise typer.Exit(
        0
        if run(console, show_logs(named(what, namespace), kubeconfig, console, tail, follow=follow))
        else 1
    )


def retry(
    what: Named, namespace: Namespace = None, kubeconfig: Kubeconfig = None, output: Output = "text"
) -> None:
    """Try again at once what has failed of an object or of what it depends on. Exit code 1 if
    nothing has."""
    console = a_console()
    raise typer.Exit(
        0 if run(console, try_again(named(what, namespace), kubeconfig, console, output)) else 1
    )


def top(
    once: Annotated[bool, typer.Option("--once", help="One picture, for scripts.")] = False,
    output: Output = "text",
) -> None:
    """What is being downloaded, and what goes over the bus: events a second, how far behind each
    service is, dead letters."""
    console = a_console()
    run(console, show_top(console, output, once=once))
