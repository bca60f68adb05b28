"""What the watcher does on the bus: it alone says what is in the cluster, and reads back what it
said."""

from typing import Final

from aimschema import subjects
from aimschema.reasons import WATCHER
from aimschema.schema_compat import Contract

CONTRACT: Final = Contract(
    WATCHER,
    consumes=(f"{subjects.OBJECT}.>", f"{subjects.SYNCED}.>", subjects.letters(WATCHER)),
    emits=(f"{subjects.OBJECT}.>", f"{subjects.SYNCED}.>", subjects.letters(WATCHER)),
)
