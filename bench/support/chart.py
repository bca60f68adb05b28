"""A line chart as SVG, without a library: curves over a logarithmic axis of amounts."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from math import log10

WIDTH = 640
HEIGHT = 360
LEFT = 60
RIGHT = 150
TOP = 40
BOTTOM = 50
"""Of the plot, from the edges of the picture, in pixels."""
LINE = 14
"""Height of a line of text."""
COLOURS = ("#1f5fa8", "#c0392b", "#2e7d32", "#8e44ad", "#d68910", "#117a65", "#5d6d7e")
Points = Sequence[tuple[float, float]]


def line_chart(title: str, y_title: str, x_title: str, curves: Mapping[str, Points]) -> str:
    """`curves`: points by label, the amounts positive. The axis of values begins at 0."""
    xs = sorted({x for points in curves.values() for x, _ in points})
    top = max(y for points in curves.values() for _, y in points) * 1.1 or 1.0
    first, last = log10(xs[0]), log10(xs[-1])
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        share = 0.5 if first == last else (log10(x) - first) / (last - first)
        return LEFT + share * width, TOP + height * (1 - y / top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 20, title, size=15),
        _text(LEFT, TOP - 6, y_title),
        _text(LEFT + width, HEIGHT - 10, x_title, anchor="end"),
    ]
    for step in range(5):
        y = top * step / 4
        _, line = place(xs[0], y)
        parts.append(f'<path d="M{LEFT} {line:.1f}h{width}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, line + 4, f"{y:.0f}", anchor="end"))
    for x in xs:
        column, _ = place(x, 0)
        parts.append(_text(column, HEIGHT - BOTTOM + 18, f"{x:,.0f}", anchor="middle"))
    places = {label: [place(*point) for point in points] for label, points in curves.items()}
    colours = dict(zip(places, cycle(COLOURS), strict=False))
    for label, path in places.items():
        parts += _curve(path, colours[label])
    parts += _labels({label: path[-1] for label, path in places.items()}, colours)
    return "\n".join([*parts, "</svg>", ""])


def _curve(places: Points, colour: str) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    return [line, *dots]


def _labels(ends: Mapping[str, tuple[float, float]], colours: Mapping[str, str]) -> list[str]:
    """Beside the ends of the curves, none over another."""
    parts = []
    lowest = 0.0
    for label, (x, y) in sorted(ends.items(), key=lambda end: end[1][1]):
        lowest = max(lowest + LINE, y + 4)
        parts.append(_text(x + 8, lowest, label, colour=colours[label]))
    return parts


def _text(
    x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", colour: str = "#222"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
        f' fill="{colour}">{escape(text)}</text>'
    )
