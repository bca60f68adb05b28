"""Kubernetes quantities (`10Gi`, `500m`, `1e3`) as exact numbers. The grammar is that of
apimachinery's resource.Quantity."""

import re
from decimal import Decimal

PATTERN = re.compile(r"^([+-]?(?:\d+(?:\.\d*)?|\.\d+))([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$")
BINARY = {
    unit: Decimal(1024) ** power
    for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)
}
DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def parse(text: str) -> Decimal:
    """The exact value; ValueError if the text is no quantity."""
    match = PATTERN.match(text)
    if not match:
        raise ValueError(f"{text!r} is not a quantity such as 10Gi, 500m or 2")
    number, unit = Decimal(match[1]), match[2] or ""
    if unit in BINARY:
        return number * BINARY[unit]
    if unit in DECIMAL:
        return number.scaleb(DECIMAL[unit])
    return number.scaleb(int(unit[1:]))


def text_of(value: Decimal, *, binary: bool) -> str:
    """The canonical text of an amount; `binary` where one of its parts had a unit such as Gi."""
    if binary and value and value == value.to_integral_value():
        unit = max(
            (unit for unit in BINARY if value % BINARY[unit] == 0),
            key=BINARY.__getitem__,
            default="",
        )
        return f"{value / BINARY[unit] if unit else value:f}" + unit
    for unit in ("E", "P", "T", "G", "M", "k", "", "m", "u"):
        scaled = value.scaleb(-DECIMAL[unit])
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{unit if value else ''}"
    return f"{value.normalize():f}"


def canonical(text: str | float) -> str:
    """As a server writes it back: 10240Mi is 10Gi, 0.5 is 500m. What is no quantity stays as it
    is."""
    try:
        return text_of(parse(str(text)), binary=str(text).endswith("i"))
    except ValueError:
        return str(text)
