"""How many steps of Python code a call takes: a measure of work that is the same on every machine.

A step is a line that is begun. Each round of a loop or comprehension counts.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Steps:
    """`count` is complete once the block has ended."""

    count = 0

    def trace(self, _frame: FrameType, event: str, _arg: Any) -> Any:
        self.count += event == "line"
        return self.trace


@contextmanager
def counted_steps() -> Iterator[Steps]:
    """Counts the steps of the functions that are called within the block."""
    steps = Steps()
    before = sys.gettrace()
    sys.settrace(steps.trace)
    try:
        yield steps
    finally:
        sys.settrace(before)
