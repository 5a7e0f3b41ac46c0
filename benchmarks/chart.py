"""The chart: this package and its peers side by side, and how cost grows with the number of workers.

Law: pure; a record in, SVG out, without a dependency. It has no background of
its own and follows the reader's colour scheme, so that it looks right on a
light page and on a dark one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.cases import GROWTH
from benchmarks.figures import LOOP, peers_of
from benchmarks.ours import NAME
from benchmarks.results import Record

WIDTH: Final = 960
MARGIN: Final = 16
GAP: Final = 40

# A bar chart: a name, a bar, a figure.
NAME_WIDTH: Final = 168
FIGURE_WIDTH: Final = 52
ROW: Final = 20
BAR: Final = 12
TITLE: Final = 44

GROWTH_HEIGHT: Final = 220

# Shapes that are shown, and in which words.
PANELS: Final = (
    ("A-10B", "One to one, 10 B"),
    ("A-10KiB", "One to one, 10 KiB"),
    ("B5-10B", "Broadcast to 5 workers, 10 B"),
    ("B20-10B", "Broadcast to 20 workers, 10 B"),
    ("C4-10B", "Four workers, all to all, 10 B"),
    ("B8-1MiB", "Broadcast to 8 workers, 1 MiB"),
)
VERBS: Final = {
    "nowait": "asgi-ipc, _nowait",
    "await": "asgi-ipc, await",
    "nowait-async": "asgi-ipc, async handler",
}

STYLE: Final = """\
text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #57606a }
.title { font-size: 14px; font-weight: 600; fill: #1f2328 }
.ours { fill: #0969da }
.name.ours, .figure.ours { font-weight: 600 }
.peer { fill: #afb8c1 }
text.peer { fill: #57606a }
.axis { stroke: #d0d7de; stroke-width: 1 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.line.ours { fill: none; stroke: #0969da }
@media (prefers-color-scheme: dark) {
  text, text.peer { fill: #9198a1 }
  .title { fill: #f0f6fc }
  .ours { fill: #4493f8 }
  .peer { fill: #525c68 }
  .axis { stroke: #3d444d }
  .line.ours { fill: none; stroke: #4493f8 }
}"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a panel; `value` in thousand deliveries a second."""

    name: str
    value: float
    is_ours: bool


def chart(record: Record) -> str:
    """The whole picture."""
    panels = [(title, bars) for shape, title in PANELS if (bars := bars_of(record, shape))]
    width = (WIDTH - 2 * MARGIN - GAP) / 2
    parts: list[str] = []
    top = float(MARGIN)
    for start in range(0, len(panels), 2):
        pair = panels[start : start + 2]
        for column, (title, bars) in enumerate(pair):
            parts += _panel(MARGIN + column * (width + GAP), top, width, title, bars)
        top += TITLE + ROW * max(len(bars) for _, bars in pair) + GAP / 2
    if costs := costs_of(record):
        parts += _growth(MARGIN, top, WIDTH - 2 * MARGIN, costs)
        top += TITLE + GROWTH_HEIGHT
    height = math.ceil(top + MARGIN)
    parts.append(_text(MARGIN, height - 4, _origin(record), "origin"))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 8}" role="img">',
            "<title>Messages between workers: asgi-ipc and what else one could use</title>",
            f"<style>\n{STYLE}\n</style>",
            *parts,
            "</svg>\n",
        ]
    )


def bars_of(record: Record, shape: str) -> list[Bar]:
    """This package's verbs and all peers, the fastest first."""
    ours = {verb: record.find(NAME, LOOP, f"{shape}-{verb}") for verb in VERBS}
    bars = [Bar(VERBS[verb], one.per_second / 1000, True) for verb, one in ours.items() if one is not None]
    bars += [Bar(peer.subject, peer.per_second / 1000, False) for peer in peers_of(record, shape)]
    return sorted(bars, key=lambda bar: -bar.value)


def costs_of(record: Record) -> list[tuple[int, float]]:
    """Workers, and microseconds of processor time for each delivery."""
    found = [(workers, record.find(NAME, LOOP, f"G-{workers}-nowait")) for workers in GROWTH]
    return [(workers, one.cpu_us) for workers, one in found if one is not None]


def _panel(left: float, top: float, width: float, title: str, bars: Sequence[Bar]) -> Iterator[str]:
    yield _text(left, top + 14, title, "title")
    yield _text(left, top + 30, "thousand deliveries a second")
    start, scale = left + NAME_WIDTH, (width - NAME_WIDTH - FIGURE_WIDTH) / bars[0].value
    for number, bar in enumerate(bars):
        kind, y = "ours" if bar.is_ours else "peer", top + TITLE + number * ROW
        length = max(bar.value * scale, 1.0)
        yield _text(start - 8, y + 10, bar.name, f"name {kind}", "end")
        yield f'<rect class="{kind}" x="{start:g}" y="{y:g}" width="{length:.1f}" height="{BAR}" rx="2"/>'
        yield _text(start + length + 6, y + 10, _figure(bar.value), f"figure {kind}")


def _growth(left: float, top: float, width: float, costs: Sequence[tuple[int, float]]) -> Iterator[str]:
    yield _text(left, top + 14, "What a delivery costs, by the number of workers", "title")
    yield _text(left, top + 30, "microseconds of processor time, all workers together")
    bottom, height = top + TITLE + GROWTH_HEIGHT - 40, GROWTH_HEIGHT - 60.0
    highest = _round_up(max(cost for _, cost in costs))
    first, step = left + 60, (width - 120) / max(1, len(costs) - 1)
    for part in (0.0, 0.5, 1.0):
        y = bottom - part * height
        yield f'<line class="axis" x1="{left + 36:g}" x2="{left + width:g}" y1="{y:g}" y2="{y:g}"/>'
        yield _text(left + 28, y + 4, f"{highest * part:g}", anchor="end")
    points = [
        (first + number * step, bottom - cost / highest * height) for number, (_, cost) in enumerate(costs)
    ]
    yield f'<polyline class="line ours" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
    for (workers, cost), (x, y) in zip(costs, points, strict=True):
        yield f'<circle class="ours" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        yield _text(x, y - 10, f"{cost:.1f}", "figure ours", "middle")
        yield _text(x, bottom + 18, f"{workers}", anchor="middle")
    yield _text(left + width / 2, bottom + 34, "workers", anchor="middle")


def _round_up(value: float) -> float:
    """To 1, 2, 4, 6 or 8 times a power of ten: half of it is a number for an axis, too."""
    power = float(10 ** math.floor(math.log10(value)))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value)


def _origin(record: Record) -> str:
    where = record.where
    return f"{where.cpu}, {where.cores} cores, {where.date[:10]}, commit {where.commit[:12]}; uvloop; medians"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    attributes = f' class="{kind}"' * bool(kind) + f' text-anchor="{anchor}"' * (anchor != "start")
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(text)}</text>'
