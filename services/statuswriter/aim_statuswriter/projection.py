"""The kinds that the statuswriter watches: those with a status, and the config, which only has
Events."""

from collections.abc import Iterable

from aimcontroller.projection import Projection
from aimschema.reasons import READY
from aimschema.resources import CACHE, CONFIG, MODEL, SERVICE, TEMPLATE, Key

RECONCILES = (MODEL, TEMPLATE, SERVICE, CACHE, CONFIG)
WATCHES = RECONCILES
READS_STATUS_OF = {
    resource.kind: frozenset({READY, "status", "conditions"})
    for resource in RECONCILES
    if resource != CONFIG
}
"""The conditions and status fields that the statuswriter reads, by kind."""


def map_to_keys(_state: Projection, key: Key) -> Iterable[Key]:
    """A status or Event depends only on its object and on the reports on it."""
    return (key,)
