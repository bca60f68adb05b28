"""What the statuswriter sees: the kinds that have a status, the one that has Events alone, and
every report on them."""

from collections.abc import Iterable

from aimcontroller.projection import Projection
from aimschema.reasons import READY
from aimschema.resources import CACHE, CONFIG, MODEL, SERVICE, TEMPLATE, Key

PLANS_FOR = (MODEL, TEMPLATE, SERVICE, CACHE, CONFIG)
FOLLOWS = PLANS_FOR
READS = {
    resource.kind: frozenset({READY, "status", "conditions"})
    for resource in PLANS_FOR
    if resource != CONFIG
}
"""By kind, the conditions and status fields that it reads on the objects."""


def affected(_state: Projection, key: Key) -> Iterable[Key]:
    """A status, or what is sent instead, depends on its object and the reports on it alone."""
    return (key,)
