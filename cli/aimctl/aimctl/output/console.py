"""The terminal. Most of what is shown was written by others: it is shown as it is, and can do
nothing to the terminal."""

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from aimschema.sanitize import printable


class PlainConsole(Console):
    """Strings are no markup, and of every rendered piece of text only what is printable reaches
    the terminal; styles and colours are ours."""

    def __init__(
        self, file: TextIO | None = None, width: int | None = None, *, terminal: bool | None = None
    ) -> None:
        super().__init__(
            file=file,
            width=width,
            force_terminal=terminal,
            markup=False,
            emoji=False,
            highlight=False,
        )

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield (
                segment
                if segment.control or segment.text.isprintable()
                else Segment(_lines(segment.text), segment.style)
            )


def _lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))
