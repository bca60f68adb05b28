"""The contract of the watcher: it alone publishes cluster objects and their history, and it reads
its own messages."""

from typing import Final

from aimschema import subjects
from aimschema.reasons import WATCHER
from aimschema.schema_compat import Contract

CONTRACT: Final = Contract(
    WATCHER,
    consumes=(f"{subjects.OBJECT}.>", f"{subjects.SYNCED}.>", subjects.dead_letters(WATCHER)),
    emits=(
        f"{subjects.OBJECT}.>",
        f"{subjects.SYNCED}.>",
        subjects.dead_letters(WATCHER),
        f"{subjects.HISTORY}.>",
    ),
)
