"""Equal parts of bodies share memory: the InferenceServices and pods of a template differ in their
metadata and times alone.

1. A part is replaced only by an equal one. Bodies are read only, so no reader can tell.
2. The MOST_SPECS that were seen last are known. New objects share no spec that came earlier.
3. Malformed parts stay as they are.
"""

from collections import OrderedDict
from sys import intern
from typing import Any, Final

import msgspec

Body = dict[str, Any]
MOST_SPECS: Final = 512
LEAST_BYTES: Final = 64
"""As JSON. A smaller spec takes less memory than its entry."""
_TEXTS: Final = ("type", "status", "reason", "message", "lastTransitionTime")
_encode = msgspec.json.Encoder().encode
_specs: OrderedDict[int, Any] = OrderedDict()
"""By the hash of their JSON."""


def share_parts(body: Body) -> None:
    """Put known equal parts in the place of the spec and of the texts in conditions."""
    spec = body.get("spec")
    if spec:
        body["spec"] = _known_spec(spec)
    status = body.get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    for condition in conditions if isinstance(conditions, list) else ():
        if isinstance(condition, dict):
            for name in _TEXTS:
                text = condition.get(name)
                if type(text) is str:
                    condition[name] = intern(text)


def _known_spec(spec: Any) -> Any:
    """The equal spec that came first; this one where none did."""
    try:
        encoded = _encode(spec)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return spec
    if len(encoded) < LEAST_BYTES:
        return spec
    place = hash(encoded)
    known = _specs.get(place)
    if known is not None and known == spec:
        _specs.move_to_end(place)
        return known
    _specs[place] = spec
    if len(_specs) > MOST_SPECS:
        _specs.popitem(last=False)
    return spec
