"""Label selectors. Pure."""

from collections.abc import Mapping

from aimkube.transport import Body


def expression_holds(expression: Body, labels: Mapping[str, str]) -> bool:
    """One requirement of a label or node selector, without the numeric operators."""
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return False
