"""Figures to reach: the measurements beside the targets of this project.

Law: pure; a record in, lines out. A figure is against the fastest peer in its shape, in the rounds in which
both were measured.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.judgement import Run
from benchmarks.ours import NAME
from benchmarks.results import Footprint, Record, Result, ratio

# The figures are those on uvloop.
LOOP: Final = "uvloop"

# Subjects that are neither this package nor a peer.
YARDSTICKS: Final = ("Y1", "Y2", "Y3", "Y4")

MIB: Final = 1024 * 1024

# A loss of HTTP requests that is none.
HTTP_LOSS: Final = 0.02

# Beside the beat: what the measurement of wake-ups over some seconds may be off.
WAKEUPS: Final = 1.2

RESAMPLES: Final = 4_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One line.

    Attributes:
        against: what it is a ratio to.
        is_reached: None if it was not measured.
    """

    case: str
    against: str
    measured: str
    target: str
    is_reached: bool | None


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The geometric mean of ratios and its 95 % interval, by bootstrap over the pairs."""
    logs = [math.log(one) for one in ratios]
    # The same numbers give the same interval.
    source = random.Random(0)
    means = sorted(statistics.fmean(source.choices(logs, k=len(logs))) for _ in range(RESAMPLES))
    low, high = means[int(RESAMPLES * 0.025)], means[int(RESAMPLES * 0.975)]
    return math.exp(statistics.fmean(logs)), math.exp(low), math.exp(high)


def peers_of(record: Record, shape: str) -> list[Result]:
    """Return the peers with a figure in that shape, the fastest first."""
    found = [
        result
        for result in record.results
        if result.shape == shape and result.subject not in (NAME, *YARDSTICKS) and result.loop in ("", LOOP)
    ]
    return sorted(found, key=lambda result: -result.per_second)


def figures(record: Record) -> list[Figure]:
    """All of them."""
    return [*_rates(record), *_round_trips(record), *_http(record), *_footprint(record), *_growth(record)]


def _rates(record: Record) -> Iterator[Figure]:
    yield _to_peer(record, "A-10B", "nowait", 4)
    yield _to_yardstick(record, "A-10B-nowait", "Y1", 2)
    yield _to_yardstick(record, "A-10B-nowait", "Y4", 0.5)
    yield _to_peer(record, "A-10B", "await", 2)
    yield _to_peer(record, "A-10B", "nowait-async", 1)
    for shape in ("B5-10B", "B20-10B", "C4-10B"):
        yield _to_peer(record, shape, "nowait", 4)
    for size, least in (("1KiB", 3.0), ("10KiB", 2.5)):
        for shape in (f"A-{size}", f"B5-{size}", f"B20-{size}"):
            yield _to_peer(record, shape, "nowait", least)
    yield _to_peer(record, "B8-1MiB", "nowait", 8)


def _to_peer(record: Record, shape: str, verb: str, least: float) -> Figure:
    case, target = f"{shape}-{verb}", f"at least {least:g}"
    ours, peers = record.find(NAME, LOOP, case), peers_of(record, shape)
    if ours is None or not peers:
        return Figure(case, "the fastest peer", "-", target, None)
    measured = ratio(ours, peers[0])
    return Figure(case, _title(peers[0]), f"{measured:.2f}", target, measured >= least)


def _to_yardstick(record: Record, case: str, name: str, least: float) -> Figure:
    ours, target = record.find(NAME, LOOP, case), f"at least {least:g}"
    yardstick = None if ours is None else record.find(name, "", name, ours.group)
    if ours is None or yardstick is None:
        return Figure(case, name, "-", target, None)
    measured = ratio(ours, yardstick)
    return Figure(case, name, f"{measured:.2f}", target, measured >= least)


def _round_trips(record: Record) -> Iterator[Figure]:
    for verb in ("await", "nowait"):
        for where, most in (("free", 1.25), ("one-cpu", 2.0)):
            yield _at_most(
                f"D-{where}-{verb}, p50", record.find(NAME, LOOP, f"D-{where}-{verb}"),
                f"Y3, {where}", record.find("Y3", LOOP, f"Y3-{where}"), _p50, most,
            )  # fmt: skip
        quickest = min(
            (peer for peer in peers_of(record, "D-free") if peer.loop),
            key=lambda peer: peer.p50_us,
            default=None,
        )
        yield _at_most(
            f"D-free-{verb}, p50", record.find(NAME, LOOP, f"D-free-{verb}"),
            _title(quickest) if quickest else "the quickest peer", quickest, _p50, 1.0,
        )  # fmt: skip
        yield _at_most(
            f"D-load-{verb}, p99", record.find(NAME, LOOP, f"D-load-{verb}"),
            "idle p99", record.find(NAME, LOOP, f"D-free-{verb}"), _p99, 3.0,
        )  # fmt: skip


def _http(record: Record) -> Iterator[Figure]:
    plain, idle, load = (record.find(*names) for names in (
        ("uvicorn", LOOP, "E-plain"), (NAME, LOOP, "E-idle"), (NAME, LOOP, "E-load"),
    ))  # fmt: skip
    target = f"interval reaches {1 - HTTP_LOSS:g}"
    if plain is None or idle is None:
        yield Figure("E, requests/s, ipc idle", "uvicorn", "-", target, None)
    else:
        ratios = [a.per_second / b.per_second for a, b in zip(idle.runs, plain.runs, strict=True)]
        mean, low, high = interval(ratios)
        yield Figure(
            "E, requests/s, ipc idle", f"uvicorn, {len(ratios)} pairs",
            f"{mean:.3f} ({low:.3f} to {high:.3f})", target, high >= 1 - HTTP_LOSS,
        )  # fmt: skip
    yield _at_most("E, p99 at 10,000 messages/s", load, "uvicorn", plain, _p99, 1.5)


def _footprint(record: Record) -> Iterator[Figure]:
    yield _difference(record, "F, ready", "s", 0.1, lambda one: statistics.median(one.ready_s))
    yield _difference(
        record, "F, memory per worker", "MiB", 3.0, lambda one: statistics.median(one.pss_bytes) / MIB
    )
    yield _difference(
        record,
        "G, idle, wake-ups a second per worker",
        "",
        WAKEUPS,
        lambda one: statistics.median(one.idle_wakeups),
    )


def _growth(record: Record) -> Iterator[Figure]:
    """Fleets of different sizes have no rounds in common: Y4 stands between them."""
    costs = [_cost(record, workers) for workers in (64, 4)]
    case, target = "G, CPU per delivery at 64 workers", "at most 1.3"
    if costs[0] is None or costs[1] is None:
        yield Figure(case, "at 4", "-", target, None)
    else:
        measured = costs[0] / costs[1]
        yield Figure(case, "at 4", f"{measured:.2f}", target, measured <= 1.3)


def _cost(record: Record, workers: int) -> float | None:
    """Processor time of a delivery, in deliveries of Y4."""
    ours = record.find(NAME, LOOP, f"G-{workers}-nowait")
    y4 = None if ours is None else record.find("Y4", "", "Y4", ours.group)
    if ours is None or y4 is None:
        return None
    return statistics.median(a.cpu_us * b.per_second for a, b in zip(ours.runs, y4.runs, strict=True)) / 1e6


def _at_most(
    case: str,
    ours: Result | None,
    against: str,
    other: Result | None,
    of: Callable[[Run], float],
    most: float,
) -> Figure:
    target = f"at most {most:g}"
    if ours is None or other is None:
        return Figure(case, against, "-", target, None)
    measured = ratio(ours, other, of)
    return Figure(case, against, f"{measured:.2f}", target, measured <= most)


def _difference(
    record: Record, case: str, unit: str, most: float, of: Callable[[Footprint], float]
) -> Figure:
    plain, ours = (record.footprint(name, LOOP) for name in ("uvicorn", NAME))
    target = f"at most {most:g} {unit} more".replace("  ", " ")
    if plain is None or ours is None:
        return Figure(case, "uvicorn", "-", target, None)
    measured = of(ours) - of(plain)
    return Figure(case, "uvicorn", f"{measured:+.2f} {unit}".rstrip(), target, measured <= most)


def _p50(run: Run) -> float:
    return run.p50_us


def _p99(run: Run) -> float:
    return run.p99_us


def _title(result: Result) -> str:
    return f"{result.subject} ({result.loop})" if result.loop else result.subject
