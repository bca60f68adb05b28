"""`aimctl cache evict --plan`: which unused caches would be deleted."""

import datetime

import typer
from rich.table import Table
from rich.text import Text

from aimctl.analysis.cache_storage import EvictionPlan, plan_eviction
from aimctl.invocation import a_console, run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.output.structured import print_data
from aimctl.state_stream import current_state
from aimschema import quantities


async def show_eviction(
    console: PlainConsole, form: Form, namespace: str, needed_bytes: int
) -> bool:
    """Whether enough storage can be freed. Raises RuntimeError without a stream to read."""
    now = datetime.datetime.now(datetime.UTC)
    found = plan_eviction(await current_state(), namespace, needed_bytes, now)
    if form != "text":
        print_data(console, data(found), form)
    else:
        render(console, found)
    return found.is_enough


def render(console: PlainConsole, found: EvictionPlan) -> None:
    if not found.is_enough:
        print_text(
            console,
            f"{_gi(found.needed_bytes)} cannot be freed: unused caches hold"
            f" {_gi(found.evictable_bytes)}; aimctl get mc shows why the others stay",
        )
    elif not found.victims:
        print_text(console, "nothing would be evicted")
    else:
        table = Table("CACHE", "SIZE", "LAST USED", box=None, pad_edge=False)
        for each in found.victims:
            table.add_row(*map(Text, (each.key.name, _gi(each.held_bytes), each.used_at)))
        console.print(table)
        print_text(console, f"{_gi(sum(each.held_bytes for each in found.victims))} would be freed")


def data(found: EvictionPlan) -> dict[str, object]:
    victims = [
        {"cache": each.key.name, "bytes": each.held_bytes, "lastUsed": each.used_at}
        for each in found.victims
    ]
    return {
        "neededBytes": found.needed_bytes,
        "evictableBytes": found.evictable_bytes,
        "victims": victims,
    }


def evict(plan: str, namespace: str | None, form: Form) -> None:
    try:
        needed_bytes = quantities.parse(plan)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; use for example 500Gi", param_hint="--plan") from error
    if namespace is None:
        raise typer.BadParameter("name a namespace with -n", param_hint="-n")
    console = a_console()
    shown = show_eviction(console, form, namespace, needed_bytes)
    raise typer.Exit(0 if run(console, shown) else 1)


def _gi(size_bytes: int) -> str:
    return f"{size_bytes / quantities.GI:.4g}Gi"
