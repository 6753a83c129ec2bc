"""Folded stacks (py-spy's raw format) as a flame graph, and summed up by layer.

A folded stack is a line ``frame;frame;frame count``, the outermost first; py-spy's frames are ``name (file:line)``.
The graph is one SVG without scripts: hover a box for its name and share. Boxes are coloured by layer, so that one
sees at a glance what is consensus, storage, state machine, transport, gRPC, or the interpreter.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_FRAME = re.compile(r"^(?P<name>.+) \((?P<file>[^():]+)(?::\d+)?\)$")

LAYERS: tuple[tuple[str, str, str], ...] = (
    # what a frame's file begins with or contains, the layer, its colour
    ("lattice_core/raft/", "consensus", "#e4572e"),
    ("lattice_core/storage/", "storage", "#7a9e3f"),
    ("storage_thread.py", "storage", "#7a9e3f"),
    ("lattice_core/kv/", "state machine", "#f3a712"),
    ("lattice_core/rpc/", "transport", "#4f86c6"),
    ("lattice_core/server/", "server", "#a8729a"),
    ("lattice_core/client/", "client", "#5fb0b7"),
    ("lattice_cli/bench/", "benchmark", "#9a9a9a"),
    ("grpc", "gRPC", "#c9b458"),
    ("google/", "protobuf", "#c98b58"),
    ("asyncio/", "event loop", "#b9c4cc"),
    ("msgpack", "msgpack", "#d8a0a6"),
)
OTHER = ("other", "#dddddd")

ROOTS = re.compile(r"(?:click|rich_click|lattice_cli/main|lattice_cli/__main__|lattice_cli/commands|runpy|importlib)")
"""Frames between the interpreter and what is of interest; left out of the graph."""


@dataclass(slots=True)
class Node:
    """One box: samples in which this stack was a prefix."""

    name: str
    layer: str = ""
    colour: str = ""
    count: int = 0
    children: dict[str, Node] = field(default_factory=dict)


Stack = tuple[list[str], int]


def read_folded(lines: Iterable[str]) -> list[Stack]:
    """Stacks without line numbers, so that one function is one frame, and without the way in."""
    stacks: list[Stack] = []
    for line in lines:
        folded, _, count = line.rstrip("\n").rpartition(" ")
        if not folded or not count.isdigit():
            continue
        frames = [_without_line(frame) for frame in folded.split(";")]
        stacks.append(([frame for frame in frames if not ROOTS.search(frame)], int(count)))
    return stacks


def _without_line(frame: str) -> str:
    matched = _FRAME.match(frame)
    return f"{matched['name']} ({matched['file']})" if matched else frame


def layer_of(frame: str) -> tuple[str, str]:
    """A frame's layer and colour."""
    matched = _FRAME.match(frame)
    file = matched["file"] if matched else frame
    for part, layer, colour in LAYERS:
        if part in file:
            return layer, colour
    return OTHER


def by_layer(stacks: Iterable[Stack]) -> dict[str, float]:
    """The share of samples whose innermost frame of a layer of ours, gRPC's or the loop's is in each layer."""
    counted: Counter[str] = Counter()
    for frames, count in stacks:
        counted[next((layer for layer, _ in map(layer_of, reversed(frames)) if layer != OTHER[0]), OTHER[0])] += count
    total = counted.total()
    return {layer: count / total for layer, count in counted.most_common()} if total else {}


def by_function(stacks: Iterable[Stack], *, inclusive: bool, top: int = 15) -> list[tuple[str, float]]:
    """Where most samples were: in the function itself, or in it and what it called."""
    counted: Counter[str] = Counter()
    for frames, count in stacks:
        for frame in set(frames) if inclusive else frames[-1:]:
            counted[frame] += count
    total = sum(count for _, count in stacks) if isinstance(stacks, list) else counted.total()
    return [(frame, count / total) for frame, count in counted.most_common(top)] if total else []


# -- drawing ------------------------------------------------------------------------------------------

WIDTH = 1400
ROW = 17
TEXT_PIXELS = 6.6
"""Of a letter at 11 px in a sans-serif font, about."""
SMALLEST_SHARE = 0.0008
MARGIN = 10


def tree(stacks: Iterable[Stack], name: str) -> Node:
    root = Node(name)
    for frames, count in stacks:
        node = root
        node.count += count
        for frame in frames:
            child = node.children.get(frame)
            if child is None:
                layer, colour = layer_of(frame)
                child = node.children[frame] = Node(frame, layer, colour)
            child.count += count
            node = child
    return root


def flame_graph(stacks: list[Stack], title: str, subtitle: str) -> str:
    """The SVG: callers above what they call, wider is more samples; legend at the bottom."""
    root = tree(stacks, "all")
    depth = _depth(root, root.count)
    used = {layer for layer, _ in (layer_of(frame) for frames, _ in stacks for frame in frames)}
    height = 62 + ROW * (depth + 1) + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="24" font-size="16" font-weight="bold">{html.escape(title)}</text>',
        f'<text x="{MARGIN}" y="42" fill="#555555">{html.escape(subtitle)}</text>',
    ]
    if root.count:
        out += _boxes(root, MARGIN, WIDTH - 2 * MARGIN, 54, root.count)
    x = MARGIN
    for layer, colour in {layer: colour for _, layer, colour in LAYERS if layer in used}.items():
        out.append(f'<rect x="{x}" y="{height - 26}" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{x + 16}" y="{height - 16}">{layer}</text>')
        x += 30 + int(TEXT_PIXELS * len(layer))
    out.append("</svg>")
    return "\n".join(out) + "\n"


def _depth(node: Node, total: int) -> int:
    """Rows that are drawn below this one."""
    shown = [child for child in node.children.values() if child.count / total >= SMALLEST_SHARE]
    return 1 + max(_depth(child, total) for child in shown) if shown else 0


def _boxes(node: Node, x: float, width: float, y: int, total: int) -> Iterator[str]:
    share = node.count / total
    label = node.name
    tip = f"{label}: {share:.1%} ({node.count} samples)"
    colour = node.colour or "#f2f2f2"
    yield (
        f'<g><title>{html.escape(tip)}</title><rect x="{x:.1f}" y="{y}" width="{max(width - 0.5, 0.3):.1f}" '
        f'height="{ROW - 1}" fill="{colour}" rx="1"/>'
    )
    room = int((width - 6) / TEXT_PIXELS)
    if room >= 3:
        short = label if len(label) <= room else label.partition(" (")[0]
        short = short if len(short) <= room else short[: room - 1] + "…"
        yield f'<text x="{x + 3:.1f}" y="{y + 12}">{html.escape(short)}</text>'
    yield "</g>"
    left = x
    for child in sorted(node.children.values(), key=lambda each: each.name):
        if child.count / total >= SMALLEST_SHARE:
            wide = width * child.count / node.count
            yield from _boxes(child, left, wide, y + ROW, total)
            left += wide
