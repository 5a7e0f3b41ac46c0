"""Judgement: the conditions under which the figure of a run counts.

Law: pure. The facts of a run in, a measurement or a BenchmarkError out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from benchmarks.control import Facts, Order

NS_PER_S: Final = 1_000_000_000
NS_PER_US: Final = 1_000


class BenchmarkError(Exception):
    """The command fails with this: what was expected, and what was seen."""


class Run(msgspec.Struct, frozen=True):
    """One run whose facts were as they must be.

    Attributes:
        senders, receivers: their pids.
        duration_ns: from the first send to the last handler call of any receiver.
        per_second: handler calls of all receivers together; round trips, where those are measured.
        p50_us, p99_us: of single round trips; 0 for a case that measures a rate.
        cpu_us: processor time, user and system, of all parties together for each delivery; 0 for times.
    """

    senders: list[int]
    receivers: list[int]
    duration_ns: int
    per_second: float
    p50_us: float = 0.0
    p99_us: float = 0.0
    cpu_us: float = 0.0


def judge(order: Order, facts: Sequence[Facts], cpu_ns: Sequence[int]) -> Run:
    """The measurement that the facts, one for each of `order.pids`, allow.

    `cpu_ns` is what each had used when all had ended: a sender's threads go on after it has sent.

    Raises BenchmarkError if a message was lost, altered, repeated or out of order.
    """
    if len(set(order.pids)) != len(order.pids):
        raise BenchmarkError(f"not a process for each party: {order.pids}")
    for index, one in enumerate(facts):
        _check(order, index, one)
    senders, receivers = ([order.pids[index] for index in part] for part in (order.senders, order.receivers))
    if order.pattern == "ask":
        return _round_trips(order, facts[0], senders, receivers)
    started_ns = min(facts[index].started_ns for index in order.senders)
    duration_ns = max(facts[index].ended_ns for index in order.receivers) - started_ns
    if not started_ns or duration_ns <= 0:
        raise BenchmarkError(f"the last handler was called {-duration_ns} ns before the first send")
    deliveries = order.count * sum(len(order.sources(index)) for index in order.receivers)
    used_ns = sum(after - one.cpu_from_ns for one, after in zip(facts, cpu_ns, strict=True))
    rate, cpu_us = deliveries * NS_PER_S / duration_ns, used_ns / NS_PER_US / deliveries
    return Run(senders, receivers, duration_ns, rate, cpu_us=cpu_us)


def _check(order: Order, index: int, facts: Facts) -> None:
    who = f"party {index} (pid {order.pids[index]})"
    expected = 0 if order.pattern == "ask" else order.count * len(order.sources(index))
    if facts.wrong:
        raise BenchmarkError(
            f"{who} got {facts.wrong} messages altered or out of order, the first at {facts.wrong_at}"
        )
    if facts.troubles:
        raise BenchmarkError(f"{who} dropped or failed: {facts.troubles}")
    if facts.taken != expected:
        raise BenchmarkError(f"{who} got {facts.taken} of {expected} messages")


def _round_trips(order: Order, facts: Facts, senders: list[int], receivers: list[int]) -> Run:
    times_ns = sorted(facts.times_ns)
    if len(times_ns) != order.count:
        raise BenchmarkError(f"{len(times_ns)} replies to {order.count} questions")
    duration_ns = sum(times_ns)
    return Run(
        senders,
        receivers,
        duration_ns,
        order.count * NS_PER_S / duration_ns,
        p50_us=percentile(times_ns, 50) / NS_PER_US,
        p99_us=percentile(times_ns, 99) / NS_PER_US,
    )


def percentile(ascending: Sequence[int], percent: int) -> int:
    """The smallest value that `percent` of all do not exceed."""
    return ascending[math.ceil(len(ascending) * percent / 100) - 1]
