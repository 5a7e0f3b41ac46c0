"""The opening of the page: the lines that a reader wants, and what is not reached.

Law: pure; a record in, Markdown out. The words come from the figures: a page that praises what is slower
can't be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.figures import LOOP, NOT_SLOWER, Of, figures, p50_us, peers_of, us_each
from benchmarks.ours import NAME
from benchmarks.results import Record, Result, ratio
from benchmarks.tables import head, row, thousands

# One line each: the case, its shape, and what it means.
LINES: Final = (
    ("A-10B-nowait", "A-10B", "one to one, 10 B"),
    ("A-10B-nowait-async", "A-10B", "one to one, 10 B, async handler"),
    ("A-1KiB-nowait", "A-1KiB", "one to one, 1 KiB"),
    ("A-10KiB-nowait", "A-10KiB", "one to one, 10 KiB"),
    ("A-1MiB-nowait", "A-1MiB", "one to one, 1 MiB"),
    ("B20-10B-nowait", "B20-10B", "to 20 workers, 10 B"),
    ("B20-10KiB-nowait", "B20-10KiB", "to 20 workers, 10 KiB"),
    ("B8-1MiB-nowait", "B8-1MiB", "to 8 workers, 1 MiB"),
    ("C4-10B-nowait", "C4-10B", "four workers, all to all, 10 B"),
    ("D-free-nowait", "D-free", "send and reply, p50"),
)


@dataclass(frozen=True, slots=True)
class Standing:
    """This package beside the fastest peer in one case.

    Attributes:
        share: how many times as long this package takes.
    """

    ours: Result
    peer: Result
    share: float

    @property
    def verdict(self) -> str:
        """Who is faster, and by how much."""
        if 1 / NOT_SLOWER <= self.share <= NOT_SLOWER:
            return f"about as fast ({1 / self.share:.2f} x)"
        return f"**{1 / self.share:.1f} x faster**" if self.share < 1 else f"{self.share:.1f} x slower"


def standing(record: Record, case: str, shape: str) -> Standing | None:
    """Of one case, or None if it was not measured with a peer."""
    ours, peers = record.find(NAME, LOOP, case), peers_of(record, shape)
    if ours is None or not peers:
        return None
    of, peer = _measure(ours), min(peers, key=_quickness)
    return Standing(ours, peer, ratio(ours, peer, of))


def opening(record: Record) -> str:
    """The lines, and which figures are not reached."""
    lines = head("", "asgi-ipc:", "the fastest peer:", "", "asgi-ipc is")
    for case, shape, words in LINES:
        if (one := standing(record, case, shape)) is not None:
            lines.append(row([words, _value(one.ours), _value(one.peer), one.peer.subject, one.verdict]))
    return "\n".join([*lines, "", _reached(record)])


def _reached(record: Record) -> str:
    aims = [one for one in figures(record) if one.aim is not None]
    measured = [one for one in aims if one.is_reached is not None]
    missed = list(dict.fromkeys(one.case for one in measured if not one.is_reached))
    said = f"{sum(bool(one.is_reached) for one in measured)} of {len(aims)} figures aimed at are reached"
    if len(measured) < len(aims):
        said += f", {len(aims) - len(measured)} were not measured"
    return f"{said}. {_where_not(missed)}"


def _where_not(cases: Sequence[str]) -> str:
    return f"Not reached: {', '.join(cases)}." if cases else "None is missed."


def _measure(result: Result) -> Of:
    return p50_us if result.p50_us else us_each


def _quickness(result: Result) -> float:
    return result.p50_us or 1 / result.per_second


def _value(result: Result) -> str:
    return f"{result.p50_us:,.1f} us" if result.p50_us else f"{thousands(result.per_second)} k/s"
