"""A flame graph as SVG from collapsed stacks, without the frames of threads that wait.

Width is the share of the samples; the name and the share of a frame appear under the mouse. Frames
narrower than LEAST are left out, which keeps the files small.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape

WIDTH = 1200
ROW = 15
LEAST = 1.0
"""In pixels."""
_WAITS = re.compile(r"_worker \(.*thread\.py|\w*\.?select \(.*selectors\.py")
"""Where a thread of a service waits for work."""
_FOLDERS = re.compile(r"\(\S*/((?:[^/\s]+/){2}[^/\s]+\))")
"""All but the last two of the folders of a file."""
_LINE = re.compile(r":\d+\)$")
_CHARACTER = 6.5


@dataclass
class Node:
    samples: int = 0
    children: dict[str, "Node"] = field(default_factory=dict)


def flame_graph(title: str, stacks: Iterable[str]) -> str:
    """`stacks`: lines of `py-spy record --format raw`."""
    root = Node()
    for line in stacks:
        path, _, count = line.rpartition(" ")
        frames = [_LINE.sub(")", _FOLDERS.sub(r"(\1", frame)) for frame in path.split(";")]
        if not _WAITS.match(frames[-1]):
            _add(root, frames, int(count))
    boxes = list(_boxes(root, 0.0, 0, WIDTH / max(root.samples, 1), root.samples))
    height = (max((depth for depth, _ in boxes), default=0) + 3) * ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="monospace" font-size="11">'
    )
    name = f'<text x="4" y="12">{escape(title)}, {root.samples:,} samples</text>'
    return "\n".join([head, name, *(box for _, box in boxes), "</svg>", ""])


def _add(node: Node, frames: list[str], count: int) -> None:
    node.samples += count
    for frame in frames:
        node = node.children.setdefault(frame, Node())
        node.samples += count


def _boxes(
    node: Node, left: float, depth: int, scale: float, total: int
) -> Iterator[tuple[int, str]]:
    for name, child in sorted(node.children.items()):
        width = child.samples * scale
        if width >= LEAST:
            yield depth, _box(name, left, depth, width, child.samples / total)
            yield from _boxes(child, left, depth + 1, scale, total)
        left += width


def _box(name: str, left: float, depth: int, width: float, share: float) -> str:
    top = (depth + 1) * ROW + 4
    red = 205 + sum(map(ord, name)) % 50
    green = 100 + sum(map(ord, name)) * 7 % 110
    shown = name[: int(width / _CHARACTER)] if width > 3 * _CHARACTER else ""
    label = f'<text x="{left + 2:.1f}" y="{top + 11}">{escape(shown)}</text>' if shown else ""
    return (
        f"<g><title>{escape(name)} {share:.1%}</title>"
        f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 1}"'
        f' fill="rgb({red},{green},60)"/>{label}</g>'
    )
