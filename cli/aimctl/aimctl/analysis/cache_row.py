"""A row of the table of caches. Apart from what computes it, which takes longer to import. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheRow:
    """A cache. `size`: of its volume. `evictable`: yes, evicting, or why not. `why`: the message of
    Ready."""

    namespace: str
    cache: str
    size: str
    last_used: str
    used_by: str
    evictable: str
    state: str
    why: str
