"""The kinds that the statuswriter watches: those with a status, and the config, which only has
Events."""

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
"""The conditions and status fields that the statuswriter reads, by kind."""


def affected(_state: Projection, key: Key) -> Iterable[Key]:
    """A status or Event depends only on its object and on the reports on it."""
    return (key,)
