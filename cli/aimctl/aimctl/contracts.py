"""The contracts of all components on the bus: what each reads and sends."""

from aim_watcher.contract import CONTRACT as WATCHER
from aimctl.component_registry import PLANNERS, planner
from aimschema import subjects
from aimschema.schema_compat import Contract

CONSOLE = Contract(
    "aimctl",
    consumes=(subjects.ALL, f"{subjects.LIVE_PROGRESS}.>", f"{subjects.HISTORY}.>"),
    emits=(subjects.dead_letters(),),
)
"""The console reads everything and marks dead letters as handled. What it republishes keeps the
headers of its sender."""
CONTRACTS = (WATCHER, *(planner(name).contract for name in PLANNERS), CONSOLE)
