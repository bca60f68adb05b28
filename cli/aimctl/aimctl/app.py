"""The command line: the arguments and the help of every command.

What a command does is in `aimctl.commands`, and is imported when it runs: help and shell completion
need none of it.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from aimctl.completion import complete_root
from aimctl.component_registry import PLANNERS
from aimctl.nats import ROTATABLE
from aimctl.options import Kubeconfig, Named, NamedOrNone, Namespace, Output, Since, StateDir
from aimschema.names import SYSTEM_NAMESPACE

LIVE_MOST_PER_S = 2000.0

app = typer.Typer(no_args_is_help=True, help="Inspect and operate the AIM control plane.")
dead = typer.Typer(help="List and retry dead letters (NATS server: AIM_NATS_URL).")
nats = typer.Typer(no_args_is_help=True, help="Manage NATS keys, certificates and permissions.")
app.add_typer(dead, name="dead")
app.add_typer(nats, name="nats")


cache = typer.Typer(no_args_is_help=True, help="Show what an eviction of caches would delete.")
app.add_typer(cache, name="cache")


class ShowByDefault(TyperGroup):
    """`aimctl history KIND/NAME` is `aimctl history show KIND/NAME`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["show", *args]
        return super().parse_args(ctx, args)


history = typer.Typer(
    cls=ShowByDefault, no_args_is_help=True, help="Show the recorded versions of a spec."
)
app.add_typer(history, name="history")


@app.command()
def up(state: StateDir = None) -> None:
    """Run the six services against the current kubeconfig until Ctrl-C, with an embedded NATS
    server unless AIM_NATS_URL is set."""
    from aimctl.commands import up as command

    command.up(state)


@app.command()
def timeline(
    what: Named,
    namespace: Namespace = None,
    since: Since = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Follow new events until Ctrl-C.")
    ] = False,
    output: Output = "text",
) -> None:
    """Show what happened to an object, its dependencies and what it owns, in causal order. Exits
    1 if nothing is known."""
    from aimctl.commands import timeline as command

    command.timeline(what, namespace, since, output, follow=follow)


@app.command()
def explain(what: Named, namespace: Namespace = None, output: Output = "text") -> None:
    """Explain what an object waits for, since when, and what you need to do. Exits 1 if it has
    failed or does not exist."""
    from aimctl.commands import explain as command

    command.explain(what, namespace, output)


@app.command()
def plan(
    files: Annotated[
        list[Path],
        typer.Option("--filename", "-f", help="Manifest file or directory.", exists=True),
    ],
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", "-n", help="Namespace of objects that name none. Default: default."
        ),
    ] = None,
    output: Output = "text",
) -> None:
    """Preview what applying these manifests would create and change, as a diff. Exits 1 if there
    are changes."""
    from aimctl.commands import plan as command

    command.plan(files, namespace, output)


@app.command()
def record(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace to record.")],
    file: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    since: Since = None,
) -> None:
    """Save the events of a namespace to a file for `aimctl replay`, without literal values of
    environment variables (NATS server: AIM_NATS_URL)."""
    from aimctl.commands import record as command

    command.record(namespace, file, since)


RecordingFile = Annotated[
    Path | None, typer.Argument(help="A recording.", exists=True, dir_okay=False)
]
FromBus = Annotated[
    bool,
    typer.Option("--live", help="Read from the NATS server of AIM_NATS_URL instead of a file."),
]
ServiceName = Annotated[
    str | None,
    typer.Option("--service", help=f"One of {', '.join(PLANNERS)}; left out, all in the file."),
]
Steps = Annotated[
    bool,
    typer.Option("--step", help="For each step, compare planned and recorded actions and reports."),
]
Until = Annotated[int | None, typer.Option("--until", help="Stop after this sequence number.")]
Rate = Annotated[
    float,
    typer.Option("--rate", min=1, help="With --live: read at most this many events per second."),
]


@app.command()
def replay(  # noqa: PLR0913, PLR0917 (the options of a command)
    file: RecordingFile = None,
    from_bus: FromBus = False,
    service: ServiceName = None,
    steps: Steps = False,
    until: Until = None,
    most_per_s: Rate = LIVE_MOST_PER_S,
    output: Output = "text",
) -> None:
    """Replay recorded events through a service without writing anything, and show where it would
    now act differently. Exits 1 if it would."""
    _check_options(file, service, from_bus=from_bus)
    from aimctl.commands import replay as command

    command.replay(command.Source(file, service, most_per_s, until), output, steps=steps)


def _check_options(file: Path | None, service: str | None, *, from_bus: bool) -> None:
    if (file is None) != from_bus:
        raise typer.BadParameter("name a file, or --live")
    if service is not None and service not in PLANNERS:
        raise typer.BadParameter(
            f"{service} is not one of {', '.join(PLANNERS)}", param_hint="--service"
        )
    if from_bus and service is None:
        raise typer.BadParameter("--live needs --service", param_hint="--service")


@app.command()
def doctor(kubeconfig: Kubeconfig = None, output: Output = "text") -> None:
    """Check the prerequisites of the control plane, before and after installation; each finding
    names its fix. Exits 1 on errors."""
    from aimctl.commands import doctor as command

    command.doctor(kubeconfig, output)


@app.command()
def get(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="Resource kind, for example aimsvc. Default: services and unused resources.",
            autocompletion=complete_root,
        ),
    ] = None,
    namespace: Namespace = None,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="List all namespaces.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Watch for changes until Ctrl-C."),
    ] = False,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", help="List the specs of a time: 15m or 3d ago, or 2030-01-02T03:04:05Z."
        ),
    ] = None,
    output: Output = "text",
) -> None:
    """List services, templates, models and caches with what they wait for; one dependency chain per
    row. With --at, list the recorded specs of a time, as manifests with -o yaml."""
    if at is not None and watch:
        raise typer.BadParameter("--at or --watch, not both")
    if (namespace is None) != everywhere:
        raise typer.BadParameter("name a namespace with -n, or -A for all", param_hint="-n")
    from aimctl.commands import get as command

    if at is not None:
        command.get_past(kind, namespace, at, output)
        return
    command.get(kind, namespace, output, watch=watch)


@app.command()
def wait(
    what: Named,
    namespace: Namespace = None,
    goal: Annotated[
        str,
        typer.Option(
            "--for", help="Goal: ready, deleted, condition=TYPE or condition=TYPE=STATUS."
        ),
    ] = "ready",
    timeout: Annotated[str, typer.Option("--timeout", help="For example 90s or 5m.")] = "5m",
    output: Output = "text",
) -> None:
    """Wait until an object is ready. Exits 1 if manual action is required, 124 on timeout."""
    from aimctl.commands import wait as command

    command.wait(what, namespace, goal, timeout, output)


@app.command()
def logs(
    what: Named,
    namespace: Namespace = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow until the containers have ended.")
    ] = False,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail",
            min=0,
            help="Lines per container. Default: all lines (20 for failed containers).",
        ),
    ] = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the logs of all pods that belong to an object and its dependencies, failed ones
    first. Exits 1 if there is no pod."""
    from aimctl.commands import logs as command

    command.logs(what, namespace, kubeconfig, tail, follow=follow)


@app.command()
def retry(
    what: Named, namespace: Namespace = None, kubeconfig: Kubeconfig = None, output: Output = "text"
) -> None:
    """Retry failed steps of an object and its dependencies now. Exits 1 if nothing has failed."""
    from aimctl.commands import retry as command

    command.retry(what, namespace, kubeconfig, output)


@app.command()
def top(
    once: Annotated[bool, typer.Option("--once", help="Print one snapshot and exit.")] = False,
    output: Output = "text",
) -> None:
    """Show running downloads, message rates, consumer lag and dead letters."""
    from aimctl.commands import top as command

    command.top(output, once=once)


@cache.command(name="evict")
def cache_evict(
    plan: Annotated[
        str, typer.Option("--plan", metavar="BYTES", help="Storage to free, for example 500Gi.")
    ],
    namespace: Namespace = None,
    output: Output = "text",
) -> None:
    """Show which unused caches of a namespace would be deleted to free so much storage. Nothing is
    deleted. Exits 1 if they do not hold enough."""
    from aimctl.commands import cache as command

    command.evict(plan, namespace, output)


@history.command(name="show")
def history_show(what: Named, namespace: Namespace = None, output: Output = "text") -> None:
    """Show the recorded versions of a spec, with managers and changes. `aimctl history KIND/NAME`
    is enough. Exits 1 if there are none."""
    from aimctl.commands import history as command

    command.history(what, namespace, output)


@history.command(name="forget")
def history_forget(
    what: Named,
    namespace: Namespace = None,
    version: Annotated[
        str | None,
        typer.Option("--version", help="Remove only this version. Default: all versions."),
    ] = None,
) -> None:
    """Remove recorded versions of a spec for ever (NATS user: operator)."""
    from aimctl.commands import history as command

    command.history_forget(what, namespace, version)


@app.command()
def diff(
    start: Annotated[
        str, typer.Option("--from", help="Compare with this time: 15m, 3d or RFC 3339.")
    ],
    what: NamedOrNone = None,
    namespace: Namespace = None,
    end: Annotated[str | None, typer.Option("--to", help="Until this time. Default: now.")] = None,
    output: Output = "text",
) -> None:
    """Show what changed in the spec of an object, or in all specs of a namespace. Exits 1 if
    something did."""
    from aimctl.commands import diff as command

    command.diff(what, namespace, start, end, output)


@app.command()
def blame(what: Named, namespace: Namespace = None, output: Output = "text") -> None:
    """Show for each field of a spec which manager gave it its value, and when."""
    from aimctl.commands import blame as command

    command.show(what, namespace, output)


Yes = Annotated[
    bool, typer.Option("--yes", help="Write. Default: only show what would be written.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Also write what a GitOps tool manages, and may undo.")
]


@app.command()
def rollback(  # noqa: PLR0913, PLR0917 (the options of a command)
    what: Named,
    to: Annotated[str, typer.Option("--to", help="A version, or a time: 15m, 3d or RFC 3339.")],
    namespace: Namespace = None,
    yes: Yes = False,
    force: Force = False,
    kubeconfig: Kubeconfig = None,
    output: Output = "text",
) -> None:
    """Bring the spec of an object back to a recorded version: show the plan, and with --yes write
    it. Exits 2 if immutable fields differ."""
    from aimctl.commands import rollback as command
    from aimctl.put_back import Options

    again = " --force" if force else ""
    command.rollback(what, namespace, to, Options(kubeconfig, output, again, yes, force))


@app.command()
def rewind(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace to bring back.")],
    to: Annotated[str, typer.Option("--to", help="A time: 15m, 3d or RFC 3339.")],
    yes: Yes = False,
    force: Force = False,
    kubeconfig: Kubeconfig = None,
    output: Output = "text",
) -> None:
    """Bring all specs of a namespace back to a time: show the plan, and with --yes write it. The
    same command continues an interrupted one. Exits 2 if immutable fields differ."""
    from aimctl.commands import rewind as command
    from aimctl.put_back import Options

    again = " --force" if force else ""
    command.rewind(namespace, to, Options(kubeconfig, output, again, yes, force))


@dead.callback(invoke_without_command=True)
def dead_list(context: typer.Context, output: Output = "text") -> None:
    """List dead letters: undecodable messages and work that keeps failing (NATS server:
    AIM_NATS_URL)."""
    if context.invoked_subcommand is None:
        from aimctl.commands import dead_letters as command

        command.dead_list(output)


@dead.command(name="retry", no_args_is_help=True)
def dead_retry(
    subject: Annotated[
        list[str] | None, typer.Argument(help="IDs as listed by `aimctl dead`.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Retry all dead letters.")] = False,
) -> None:
    """Republish undecodable messages unchanged, requeue failing objects, and mark both as
    handled."""
    if every == bool(subject):
        raise typer.BadParameter("name subjects, or --all")
    from aimctl.commands import dead_letters as command

    command.dead_retry(subject or None)


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
    from aimctl.commands import nats as command

    command.nats_init(namespace, output, rotate or (), apply=apply)
