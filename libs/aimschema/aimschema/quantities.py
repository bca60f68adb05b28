"""Kubernetes quantities (apimachinery resource.Quantity) as whole numbers of bytes, parsed once
at the edge."""

import re
from decimal import ROUND_CEILING, Decimal, DecimalException
from typing import Final

GI: Final = 1 << 30
LARGEST: Final = (1 << 63) - 1
"""Kubernetes caps quantities here."""
_FORM = re.compile(
    r"([+-]?[0-9]*\.?[0-9]+|[+-]?[0-9]+\.)(?:([eE][+-]?[0-9]+)|([KMGTPE]i|[numkMGTPE])?)"
)
_SCALE: Final = {
    "": Decimal(1),
    **{suffix: Decimal(1000) ** -power for power, suffix in enumerate("mun", start=1)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{
        suffix: Decimal(1024) ** power
        for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)
    },
}


def exact(quantity: str | int | float) -> Decimal:
    """The value, not rounded. Raises ValueError where it is no quantity."""
    form = _FORM.fullmatch(str(quantity))
    if form is None:
        raise ValueError(f"{quantity!r} is not a quantity")
    number, exponent, suffix = form.groups()
    try:
        return Decimal(number + (exponent or "")) * _SCALE[suffix or ""]
    except DecimalException as error:
        raise ValueError(f"{quantity!r} is out of range") from error


def parse(quantity: str | int) -> int:
    """Bytes, rounded up and capped at `LARGEST` either side of zero. Raises ValueError where it
    is no quantity."""
    size = exact(quantity)
    if size and size.adjusted() >= 19:  # as a whole number it could take all memory (1e999999)
        return LARGEST if size > 0 else -LARGEST
    return max(-LARGEST, min(LARGEST, int(size.to_integral_value(rounding=ROUND_CEILING))))


def with_headroom(size_bytes: int) -> str:
    """A volume for so many bytes: 10 % more, rounded up to whole Gi."""
    return f"{max(1, -(-size_bytes * 11 // (10 * GI)))}Gi"


def human(size_bytes: float) -> str:
    """For people, in decimal units, as disks and networks count: `640 B`, `1.5 GB`, `207 GB`."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
