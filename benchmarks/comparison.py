"""The comparison of a quick run with a saved one.

Law: pure. Machines drift by more than most changes bring, so each figure becomes a share of the yardstick
that has most in common with it, in the same rounds. The comparison is of these shares. Instructions don't
drift, and are compared as they are.
"""

from __future__ import annotations

import statistics
from typing import Final

from benchmarks.cases import CASES, KIB, Case
from benchmarks.judgement import Run
from benchmarks.ours import NAME
from benchmarks.results import Record, Result
from benchmarks.tables import head, row

# Cases that show a change of the hot path, and little else.
QUICK_CASES: Final = (
    "A-10B-*", "A-1KiB-nowait", "A-10KiB-nowait", "B5-10B-nowait", "B5-10B-await", "B5-10KiB-nowait",
    "B8-1MiB-nowait", "C4-10B-nowait", "D-free-*", "D-one-cpu-*", "D-load-await",
)  # fmt: skip


# Two counts of the same code differ by less.
STEADY: Final = 0.02


def comparison(before: Record, after: Record) -> str:
    """Return a table: each case's share of its yardstick then and now, and the verdict."""
    lines = [f"before: {before.where.sentence}", f"now: {after.where.sentence}", ""]
    lines += head("case", "loop", "yardstick", "before:", "now:", "now / before:", "spread:", "")
    for case in CASES:
        for loop in ("asyncio", "uvloop"):
            then, now = (_shares(record, case, loop) for record in (before, after))
            if then and now:
                lines.append(_line(case, loop, then, now))
    return "\n".join([*lines, "", *_instructions(before, after)])


def _instructions(before: Record, after: Record) -> list[str]:
    if after.uncounted:
        return [f"instructions of a message are not counted: {after.uncounted}"]
    lines = head("instructions of a message", "before:", "now:", "now / before:", "")
    for case, now in after.instructions.items():
        then = before.instructions.get(case)
        change = None if then is None else now / then
        verdict = "" if change is None or abs(change - 1) <= STEADY else "better" if change < 1 else "worse"
        was, ratio = ("", "") if then is None or change is None else (f"{then:,.0f}", f"{change:.3f}")
        lines.append(row([case, was, f"{now:,.0f}", ratio, verdict]))
    return lines


def _line(case: Case, loop: str, then: list[float], now: list[float]) -> str:
    change = statistics.median(now) / statistics.median(then)
    # The spread between runs of the same code; a smaller change says nothing.
    spread = max((max(shares) - min(shares)) / statistics.median(shares) for shares in (then, now))
    # A time that has become longer is no progress.
    is_better = (change < 1) == case.shape.is_round_trip
    verdict = "" if abs(change - 1) <= spread else "better" if is_better else "worse"
    shares = [f"{statistics.median(shares):.3g}" for shares in (then, now)]
    return row([case.name, loop, yardstick_of(case), *shares, f"{change:.2f}", f"{spread:.0%}", verdict])


def yardstick_of(case: Case) -> str:
    """Return a case's yardstick, by its limit: wake-ups of a loop, copies of a pipe, or the interpreter."""
    if case.shape.is_round_trip:
        return "Y3-one-cpu" if case.shape.one_cpu else "Y3-free"
    return "Y2" if case.shape.size_bytes > KIB else "Y4"


def _shares(record: Record, case: Case, loop: str) -> list[float]:
    """Of the yardstick, round by round; empty if one of both was not measured."""
    ours, name = record.find(NAME, loop, case.name), yardstick_of(case)
    if ours is None:
        return []
    yardstick = record.find(name[:2], loop if name.startswith("Y3") else "", name, ours.group)
    return [] if yardstick is None else _within_rounds(ours, yardstick, case)


def _within_rounds(ours: Result, yardstick: Result, case: Case) -> list[float]:
    def value(run: Run) -> float:
        return run.p50_us if case.shape.is_round_trip else run.per_second

    return [value(a) / value(b) for a, b in zip(ours.runs, yardstick.runs, strict=True)]
