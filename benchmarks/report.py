"""The report: Markdown tables for people.

Law: pure; a record in, text out. Figures are given as they were measured.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from benchmarks.cases import MIB
from benchmarks.figures import LOOP, figures, p50_us, peers_of
from benchmarks.ours import NAME
from benchmarks.peers import JOINED, ZEROMQ
from benchmarks.results import Record, Result, ratio
from benchmarks.tables import head, row, thousands

# Processes that a line of the table names; the JSON has all.
MAX_NAMED: Final = 2

# Columns of the table side by side.
SIDE_BY_SIDE: Final = (
    "A-10B", "A-1KiB", "A-10KiB", "A-1MiB", "B5-10B", "B20-10B", "B20-1KiB", "B20-10KiB", "B8-1MiB", "C4-10B",
)  # fmt: skip

# The same for readers who know neither: columns, and the best known peers.
BEST_KNOWN: Final = {
    "A-10B": "one to one, 10 B",
    "A-10KiB": "one to one, 10 KiB",
    "B20-10B": "to 20 workers, 10 B",
    "B20-10KiB": "to 20 workers, 10 KiB",
}
KNOWN_PEERS: Final = {
    "ZeroMQ": ZEROMQ,
    "hand-written asyncio Protocol": (JOINED,),
    "NATS": ("NATS",),
    "Redis, pipelined": ("Redis pipelined",),
}

VERBS: Final = {"nowait": "`_nowait`", "await": "`await`", "nowait-async": "`_nowait`, async handler"}

REACHED: Final = {True: "yes", False: "**no**", None: ""}

RESAMPLES: Final = 4_000


def everything(record: Record, *, with_figures: bool = True) -> str:
    """Every case of every subject: rates, times, what has no figure; and the figures to reach."""
    rates = [_rate_line(record, result) for result in record.results if not result.runs[0].p50_us]
    times = [_time_line(record, result) for result in record.results if result.runs[0].p50_us]
    lines = [record.where.sentence, ""]
    if rates:
        titles = ["case", "subject", "thousand deliveries/s:", "least to most:", "of Y1:", "of Y4:"]
        lines += [*head(*titles, "CPU, us:", "processes"), *rates, ""]
    if times:
        titles = ["case", "subject", "per second:", "p50, us:", "p99, us:", "of Y3:", "processes"]
        lines += [*head(*titles), *times, ""]
    if with_figures:
        if record.footprints:
            lines += [servers_table(record), ""]
        lines += [figures_table(record, measured_only=True), ""]
    if record.left_out:
        lines += head("without a figure", "case", "because")
        lines += [row([one.subject, one.shape or "all", one.reason]) for one in record.left_out]
    return "\n".join(lines)


def figures_table(record: Record, *, measured_only: bool = False) -> str:
    """Case, the figure aimed at, what was measured, and whether it is reached."""
    lines = head("case", "figure aimed at", "measured:", "reached")
    for one in figures(record):
        if one.measured != "-" or not measured_only:
            measured = "not measured" if one.measured == "-" else one.measured
            lines.append(row([one.case, one.aim or "", measured, REACHED[one.is_reached]]))
    return "\n".join(lines)


def side_by_side(record: Record, cell: Callable[[Result], str]) -> str:
    """This package's verbs, its other builds and every peer, on uvloop, for the shapes that say most."""
    shapes = [shape for shape in SIDE_BY_SIDE if any(result.shape == shape for result in record.results)]

    def line(name: str, found: Iterable[Result | None]) -> str:
        return row([name, *("" if one is None else cell(one) for one in found)])

    lines = head("", *(f"{shape}:" for shape in shapes))
    for verb, name in VERBS.items():
        lines.append(line(f"**asgi-ipc**, {name}", _ours(record, NAME, verb, shapes)))
    others = [one.subject for one in record.results if one.subject.startswith(NAME) and one.subject != NAME]
    for subject in dict.fromkeys(others):
        lines.append(line(f"{subject}, {VERBS['nowait']}", _ours(record, subject, "nowait", shapes)))
    peers = {shape: {peer.subject: peer for peer in peers_of(record, shape)} for shape in shapes}
    for name in dict.fromkeys(name for shape in shapes for name in peers[shape]):
        lines.append(line(name, (peers[shape].get(name) for shape in shapes)))
    for name, place in (("Y1", "A-10B"), ("Y4", "A-10B"), ("Y5", "A-1MiB")):
        lines.append(
            line(name, (record.find(name, "", name) if shape == place else None for shape in shapes))
        )
    lines.append(line("Y6", (record.find("Y6", LOOP, shape) for shape in shapes)))
    return "\n".join(lines)


def _ours(record: Record, subject: str, verb: str, shapes: Iterable[str]) -> list[Result | None]:
    return [record.find(subject, LOOP, f"{shape}-{verb}") for shape in shapes]


def rate(result: Result) -> str:
    """Thousand deliveries a second."""
    return thousands(result.per_second)


def cpu(result: Result) -> str:
    """Microseconds of processor time for each delivery."""
    return f"{result.cpu_us:,.2f}" if result.cpu_us else ""


def best_known(record: Record) -> str:
    """The same for a few shapes, and of each peer of a name the fastest one."""
    lines = head("", *(f"{title}:" for title in BEST_KNOWN.values()))
    rows = {f"**asgi-ipc**, {name}": _ours(record, NAME, verb, BEST_KNOWN) for verb, name in VERBS.items()}
    for name, subjects in KNOWN_PEERS.items():
        rows[name] = [
            next((peer for peer in peers_of(record, shape) if peer.subject in subjects), None)
            for shape in BEST_KNOWN
        ]
    for name, found in rows.items():
        if any(found):
            lines.append(row([name, *("" if one is None else rate(one) for one in found)]))
    return "\n".join(lines)


def servers_table(record: Record) -> str:
    """E and F: a line for each server and loop."""
    lines: list[str] = []
    if record.footprints:
        titles = [
            "",
            "workers:",
            "ready, s:",
            "memory each, MiB:",
            "idle, us of CPU/s each:",
            "idle, wake-ups/s each:",
        ]
        lines += head(*titles)
        for one in record.footprints:
            ready, cpu, wakeups, pss = map(
                statistics.median, (one.ready_s, one.idle_cpu_us, one.idle_wakeups, one.pss_bytes)
            )
            cells = [f"{ready:.2f}", f"{pss / MIB:.1f}", f"{cpu:,.0f}", f"{wakeups:.1f}"]
            lines.append(row([f"{one.subject} ({one.loop})", str(one.workers), *cells]))
        lines.append("")
    http = [result for result in record.results if result.shape == "E"]
    if http:
        lines += head("HTTP", "", "requests/s:", "p50, us:", "p99, us:", "requests/s, of plain (95 %):")
    for result in http:
        plain = record.find("uvicorn", result.loop, "E-plain")
        assert plain is not None
        mean, low, high = interval(
            [a.per_second / b.per_second for a, b in zip(result.runs, plain.runs, strict=True)]
        )
        share = "" if result is plain else f"{mean:.3f} ({low:.3f} to {high:.3f})"
        times = [f"{result.p50_us:,.0f}", f"{result.p99_us:,.0f}"]
        lines.append(row([title(result), result.case, f"{result.per_second:,.0f}", *times, share]))
    return "\n".join(lines).rstrip()


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The geometric mean of ratios and its 95 % interval, by bootstrap over the pairs."""
    logs = [math.log(one) for one in ratios]
    # The same numbers give the same interval.
    source = random.Random(0)
    means = sorted(statistics.fmean(source.choices(logs, k=len(logs))) for _ in range(RESAMPLES))
    low, high = means[int(RESAMPLES * 0.025)], means[int(RESAMPLES * 0.975)]
    return math.exp(statistics.fmean(logs)), math.exp(low), math.exp(high)


def _rate_line(record: Record, result: Result) -> str:
    rates = [run.per_second for run in result.runs]
    span = f"{thousands(min(rates))} to {thousands(max(rates))}"
    cells = [result.case, title(result), thousands(result.per_second), span]
    for name in ("Y1", "Y4"):
        yardstick = record.find(name, "", name, result.group)
        cells.append(f"{ratio(result, yardstick):.2g}" if yardstick else "")
    return row([*cells, cpu(result), processes(result)])


def _time_line(record: Record, result: Result) -> str:
    where = "one-cpu" if "one-cpu" in result.case else "free"
    yardstick = record.find("Y3", result.loop, f"Y3-{where}", result.group)
    of_y3 = f"{ratio(result, yardstick, p50_us):.2f}" if yardstick else ""
    figures = [f"{result.per_second:,.0f}", f"{result.p50_us:,.1f}", f"{result.p99_us:,.1f}"]
    return row([result.case, title(result), *figures, of_y3, processes(result)])


def title(result: Result) -> str:
    """Return the name of a result's subject."""
    return f"{result.subject} ({result.loop})" if result.loop else result.subject


def processes(result: Result) -> str:
    """From which pids to which, in the first run."""
    run = result.runs[0]
    return f"{_named(run.senders)} to {_named(run.receivers)}"


def _named(pids: Sequence[int]) -> str:
    more = len(pids) - MAX_NAMED
    return ", ".join(map(str, pids[:MAX_NAMED])) + (f" and {more} more" if more > 0 else "")
