"""The table of caches in `aimctl get mc` and `aimctl top`."""

from collections.abc import Sequence
from dataclasses import asdict, fields

from rich.table import Table
from rich.text import Text

from aimctl.analysis.cache_row import CacheRow
from aimschema.sanitize import printable

COLUMNS = [field.name.upper().replace("_", " ") for field in fields(CacheRow)]


def cache_table(rows: Sequence[CacheRow]) -> Table:
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(value)) for value in asdict(row).values()))
    return table
