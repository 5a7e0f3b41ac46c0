"""The figures aimed at, each beside what was measured.

Law: pure; a record in, lines out. Ratios are taken in the rounds in which both were measured, on uvloop.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.cases import GROWTH
from benchmarks.judgement import Run
from benchmarks.ours import NAME
from benchmarks.peers import JOINED, ONE_BY_ONE, ZEROMQ
from benchmarks.results import Footprint, Record, Result, ratio

# The figures are those on uvloop.
LOOP: Final = "uvloop"

# Subjects that are neither this package nor a peer.
YARDSTICKS: Final = ("Y1", "Y2", "Y3", "Y4", "Y5", "Y6", "uvicorn")

# The same code differs by so much from hour to hour on a small shared machine.
NOT_SLOWER: Final = 1.2

Of = Callable[[Run], float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line.

    Attributes:
        aim: None for what has no aim of its own.
        is_reached: None if it was not measured, or has no aim.
    """

    case: str
    aim: str | None
    measured: str
    is_reached: bool | None


def peers_of(record: Record, shape: str) -> list[Result]:
    """Return the peers with a figure in that shape, the fastest first."""
    found = [
        result
        for result in record.results
        if result.shape == shape
        and result.subject not in YARDSTICKS
        and not result.subject.startswith(NAME)
        and result.loop in ("", LOOP)
    ]
    return sorted(found, key=lambda result: -result.per_second)


def per_second(run: Run) -> float:
    """Deliveries."""
    return run.per_second


def us_each(run: Run) -> float:
    """Time of the clock for each delivery."""
    return 1e6 / run.per_second


def cpu_us(run: Run) -> float:
    """Processor time for each delivery."""
    return run.cpu_us


def p50_us(run: Run) -> float:
    """The median round trip."""
    return run.p50_us


def p99_us(run: Run) -> float:
    """The slowest round trip but one in a hundred."""
    return run.p99_us


def figures(record: Record) -> list[Figure]:
    """All of them."""
    return [*_small(record), *_larger(record), *_round_trips(record), *_not_slower(record)]


def _small(record: Record) -> Iterator[Figure]:
    for case in ("A-10B-nowait", "A-10B-await", "A-10B-nowait-async"):
        yield _to_older(record, case, "the CPU per delivery", cpu_us, most=0.4)
    a = "A-10B-nowait"
    yield _to_peer(record, a, ZEROMQ, "ZeroMQ", 1.5)
    yield _to_peer(record, a, (JOINED,), f"{JOINED}, which carries the same", 2)
    yield _to_yardstick(record, a, "Y6", "A-10B", LOOP)
    yield _to_peer(record, "A-10B-await", ZEROMQ, "ZeroMQ", 1.2)
    yield _to_peer(record, "A-10B-nowait-async", ZEROMQ, "ZeroMQ", 1)
    for case in ("B5-10B-nowait", "B20-10B-nowait", "C4-10B-nowait"):
        yield _to_peer(record, case, ZEROMQ, "ZeroMQ", 1.2)
        yield _to_peer(record, case, _Others(ZEROMQ), "the fastest other peer", 2)


def _larger(record: Record) -> Iterator[Figure]:
    for case in ("A-1KiB-nowait", "B5-1KiB-nowait", "B20-1KiB-nowait"):
        yield _to_peer(record, case, _Others(()), "the fastest peer", 1.5)
    for case in ("A-10KiB-nowait", "B5-10KiB-nowait", "B20-10KiB-nowait"):
        yield _to_peer(record, case, _Others(()), "the fastest peer", 1.5)
        yield _to_older(record, case, "the throughput", per_second, least=3)
    for case in ("A-1MiB-nowait", "B8-1MiB-nowait"):
        yield _to_yardstick(record, case, "Y5", "Y5", "", us_each, 2)
        yield _to_peer(record, case, _Others(()), "the fastest peer", 4)


def _round_trips(record: Record) -> Iterator[Figure]:
    for verb, most in (("nowait", 2.0), ("await", 6.0), ("request", 8.0)):
        yield _to_yardstick(record, f"D-one-cpu-{verb}", "Y3", "Y3-one-cpu", LOOP, p50_us, most)
    ours = record.find(NAME, LOOP, "D-free-nowait")
    peer = next((peer for peer in peers_of(record, "D-free") if peer.subject == ONE_BY_ONE), None)
    yield _line("D-free-nowait", f"p50 of {ONE_BY_ONE}", ours, peer, p50_us, most=1.1)


def _not_slower(record: Record) -> Iterator[Figure]:
    """What has no other aim."""
    mine = [result for result in record.results if (result.subject, result.loop) == (NAME, LOOP)]
    for result in mine:
        if result.case.startswith(("H", "I-")):
            yield _to_older(record, result.case, "p50", p50_us, most=NOT_SLOWER)
    for case in ("E-idle", "E-load"):
        yield _to_older(record, case, "the time per request", us_each, most=NOT_SLOWER)
    parts: list[tuple[str, Callable[[Footprint], list[float]]]] = [
        ("F, ready", lambda one: one.ready_s),
        ("F, memory per worker", lambda one: one.pss_bytes),
        ("F, idle CPU", lambda one: one.idle_cpu_us),
    ]
    for case, of in parts:
        ours, older = (record.footprint(name, LOOP) for name in (NAME, record.against))
        aim = f"at most {NOT_SLOWER:g} x that of {_of_older(record)}"
        if ours is None or older is None:
            yield Figure(case, aim, "-", None)
        else:
            measured = statistics.median(of(ours)) / statistics.median(of(older))
            yield Figure(case, aim, f"{measured:.2f} x", measured <= NOT_SLOWER)
    for workers in GROWTH:
        yield _to_older(record, f"G-{workers}-nowait", "the CPU per delivery", cpu_us, most=NOT_SLOWER)


# --- one line each


@dataclass(frozen=True, slots=True)
class _Others:
    """All peers but these."""

    these: Container[str]

    def __contains__(self, subject: object) -> bool:
        return subject not in self.these


def _to_peer(record: Record, case: str, subjects: Container[str], name: str, least: float) -> Figure:
    ours = record.find(NAME, LOOP, case)
    shape = case.partition("-nowait")[0].partition("-await")[0]
    peer = next((one for one in peers_of(record, shape) if one.subject in subjects), None)
    if peer is not None and peer.subject != name:
        name = f"{name} ({peer.subject})" if not name.startswith(peer.subject) else name
    return _line(case, name, ours, peer, per_second, least=least)


def _to_older(
    record: Record, case: str, what: str, of: Of, *, most: float | None = None, least: float | None = None
) -> Figure:
    ours = record.find(NAME, LOOP, case)
    older = None if ours is None else record.find(record.against, LOOP, case, ours.group)
    return _line(case, f"{what} of {_of_older(record)}", ours, older, of, most=most, least=least)


def _of_older(record: Record) -> str:
    return record.against.removeprefix(NAME).strip() or "an older commit"


def _to_yardstick(
    record: Record,
    case: str,
    name: str,
    yardstick_case: str,
    loop: str,
    of: Of = per_second,
    most: float | None = None,
) -> Figure:
    ours = record.find(NAME, LOOP, case)
    yardstick = None if ours is None else record.find(name, loop, yardstick_case, ours.group)
    return _line(case, name, ours, yardstick, of, most=most)


def _line(
    case: str,
    against: str,
    ours: Result | None,
    other: Result | None,
    of: Of,
    *,
    most: float | None = None,
    least: float | None = None,
) -> Figure:
    aim = None
    if most is not None or least is not None:
        aim = f"at {'least' if most is None else 'most'} {most or least:g} x {against}"
    if ours is None or other is None:
        return Figure(case, aim, "-", None)
    measured = ratio(ours, other, of)
    reached = None
    if aim is not None:
        reached = (most is None or measured <= most) and (least is None or measured >= least)
    return Figure(case, aim, f"{measured:.2f} x" + (f" {against}" if aim is None else ""), reached)
