"""The command line: every command under its name."""

import typer

from aimctl.commands.dead_letters import dead
from aimctl.commands.doctor import doctor
from aimctl.commands.explain import explain
from aimctl.commands.get import get
from aimctl.commands.logs import logs
from aimctl.commands.nats import nats
from aimctl.commands.plan import plan
from aimctl.commands.record import record
from aimctl.commands.replay import replay
from aimctl.commands.retry import retry
from aimctl.commands.timeline import timeline
from aimctl.commands.top import top
from aimctl.commands.up import up
from aimctl.commands.wait import wait

app = typer.Typer(no_args_is_help=True, help="Inspect and operate the AIM control plane.")
app.add_typer(dead, name="dead")
app.add_typer(nats, name="nats")
for command in (
    up,
    timeline,
    explain,
    plan,
    record,
    replay,
    doctor,
    get,
    wait,
    logs,
    retry,
    top,
):
    app.command()(command)
