"""Cases: what is measured, and what must be true of a run before its figure counts.

Law: a case is one line of CASES. The judgement is pure: the facts of a run
in, a measurement or a BenchmarkError out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.server import BenchmarkError, Server

NS_PER_S: Final = 1_000_000_000
NS_PER_US: Final = 1_000

KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Case:
    """One way to send.

    Attributes:
        verb: a function of benchmarks.app, by its name.
        receivers: workers beside the sender, each a process of its own.
        count: messages sent in a run, each to every receiver.
        quick_count: the same under --quick.
    """

    name: str
    verb: str
    receivers: int
    size_bytes: int
    count: int
    quick_count: int

    @property
    def workers(self) -> int:
        """Workers of the server: the receivers and the sender."""
        return self.receivers + 1

    @property
    def is_round_trip(self) -> bool:
        """Whether times are measured, not a rate."""
        return self.verb.startswith("round_trip")


# Counts are such that a run takes about a second (quick: a fraction) on the
# 2-core machine that the first figures come from.
CASES: Final[tuple[Case, ...]] = (
    Case("send-nowait-10B", "send_nowait", 1, 10, 150_000, 20_000),
    Case("send-10B", "send", 1, 10, 100_000, 15_000),
    Case("send-nowait-10KiB", "send_nowait", 1, 10 * KIB, 8_000, 1_000),
    Case("send-10KiB", "send", 1, 10 * KIB, 8_000, 1_000),
    Case("round-trip", "round_trip", 1, 10, 3_000, 500),
    Case("round-trip-nowait", "round_trip_nowait", 1, 10, 3_000, 500),
    Case("broadcast-5-10B", "broadcast", 5, 10, 30_000, 4_000),
    Case("broadcast-nowait-5-10B", "broadcast_nowait", 5, 10, 30_000, 4_000),
    Case("broadcast-5-10KiB", "broadcast", 5, 10 * KIB, 1_600, 200),
    Case("broadcast-nowait-5-10KiB", "broadcast_nowait", 5, 10 * KIB, 1_600, 200),
    Case("broadcast-20-10B", "broadcast", 20, 10, 8_000, 1_000),
    Case("broadcast-nowait-20-10B", "broadcast_nowait", 20, 10, 8_000, 1_000),
    Case("broadcast-20-10KiB", "broadcast", 20, 10 * KIB, 400, 50),
    Case("broadcast-nowait-20-10KiB", "broadcast_nowait", 20, 10 * KIB, 400, 50),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One run whose facts were as they must be.

    Attributes:
        duration_ns: from the first send to the last handler call of any receiver.
        per_second: handler calls of all receivers together.
        p50_us, p99_us: of single round trips; None for a case that measures a rate.
    """

    sender: int
    receivers: tuple[int, ...]
    duration_ns: int
    per_second: float
    p50_us: float | None
    p99_us: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """A case on one event loop.

    Attributes:
        count: messages of each run.
        y1: the yardstick, taken in the same rounds as `runs`.
    """

    case: Case
    loop: str
    count: int
    runs: tuple[Run, ...]
    y1: tuple[Run, ...]

    @property
    def per_second(self) -> float:
        """The median."""
        return statistics.median(run.per_second for run in self.runs)

    @property
    def of_y1(self) -> float:
        """The median of the rates, each as a share of Y1 in the same round."""
        pairs = zip(self.runs, self.y1, strict=True)
        return statistics.median(run.per_second / y1.per_second for run, y1 in pairs)

    def median_us(self, name: str) -> float:
        """The median of `p50_us` or `p99_us`."""
        return float(statistics.median(getattr(run, name) for run in self.runs))


def measure(case: Case, server: Server, count: int) -> Run:
    """Run a case once. Raises BenchmarkError if a message was lost, altered, repeated or out of order."""
    facts = server.order(verb=case.verb, receivers=case.receivers, count=count, size_bytes=case.size_bytes)
    try:
        return judge(case, count, facts)
    except BenchmarkError as error:
        raise BenchmarkError(f"{case.name}: {error}") from None


def judge(case: Case, count: int, facts: Mapping[str, Any]) -> Run:
    """The measurement that the facts of a run allow. Raises BenchmarkError if they do not."""
    sender = facts["sender"]
    reports = facts["reports"]
    receivers = {report["pid"] for report in reports}
    if len(receivers) != case.receivers or sender in receivers:
        raise BenchmarkError(f"sender {sender}, receivers {sorted(receivers)}: not {case.receivers} others")
    if facts["dropped"] or facts["handler_errors"]:
        raise BenchmarkError(
            f"sender {sender} dropped {facts['dropped']}, {facts['handler_errors']} handlers failed"
        )
    for report in reports:
        _check_report(report, sender, count)
    duration_ns = max(report["ended_ns"] for report in reports) - facts["started_ns"]
    if duration_ns <= 0:
        raise BenchmarkError(f"the last handler was called {-duration_ns} ns before the first send")
    times_ns = facts["times_ns"]
    if case.is_round_trip and len(times_ns) != count:
        raise BenchmarkError(f"{len(times_ns)} replies to {count} questions")
    return Run(
        sender=sender,
        receivers=tuple(sorted(receivers)),
        duration_ns=duration_ns,
        per_second=count * case.receivers * NS_PER_S / duration_ns,
        p50_us=_percentile(times_ns, 50) / NS_PER_US if case.is_round_trip else None,
        p99_us=_percentile(times_ns, 99) / NS_PER_US if case.is_round_trip else None,
    )


def _check_report(report: Mapping[str, Any], sender: int, count: int) -> None:
    who = f"receiver {report['pid']}"
    if report["prepared_by"] != sender:
        raise BenchmarkError(f"{who} was prepared by {report['prepared_by']}, not by {sender}")
    if report["taken"] != count:
        raise BenchmarkError(f"{who} got {report['taken']} of {count} messages")
    if report["wrong"]:
        raise BenchmarkError(
            f"{who} got {report['wrong']} messages altered or out of order, the first at {report['wrong_at']}"
        )
    if report["dropped"] or report["discarded"] or report["handler_errors"]:
        raise BenchmarkError(
            f"{who} dropped {report['dropped']}, discarded {report['discarded']}, "
            f"{report['handler_errors']} handlers failed"
        )


def _percentile(values: Sequence[int], percent: int) -> int:
    """The smallest value that `percent` of all do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]
