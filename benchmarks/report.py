"""The report: Markdown tables for people.

Law: pure; a record in, text out. Figures are given as they were measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Final

from benchmarks.figures import LOOP, MIB, figures, interval, peers_of
from benchmarks.ours import NAME
from benchmarks.results import Record, Result, ratio

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
KNOWN_PEERS: Final = ("ZeroMQ", "NATS", "Redis pipelined")

VERBS: Final = {"nowait": "`_nowait`", "await": "`await`", "nowait-async": "`_nowait`, async handler"}

REACHED: Final = {True: "reached", False: "**not reached**", None: "not measured"}


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
    """Case, ratio, target, and whether it is reached."""
    lines = head("case", "against", "measured:", "target:", "")
    for one in figures(record):
        if one.is_reached is not None or not measured_only:
            lines.append(row([one.case, one.against, one.measured, one.target, REACHED[one.is_reached]]))
    return "\n".join(lines)


def side_by_side(record: Record) -> str:
    """This package's verbs and every peer, on uvloop, for the shapes that say most."""
    shapes = [shape for shape in SIDE_BY_SIDE if any(result.shape == shape for result in record.results)]
    lines = head("", *(f"{shape}:" for shape in shapes))
    lines += _ours(record, shapes)
    peers = {shape: {title(peer): peer for peer in peers_of(record, shape)} for shape in shapes}
    for name in dict.fromkeys(name for shape in shapes for name in peers[shape]):
        lines.append(row([name, *(_cell(peers[shape].get(name)) for shape in shapes)]))
    for yardstick in ("Y1", "Y4"):
        lines.append(
            row([yardstick, _cell(record.find(yardstick, "", yardstick)), *[""] * (len(shapes) - 1)])
        )
    return "\n".join(lines)


def best_known(record: Record) -> str:
    """The same for a few shapes, and of each peer of a name the fastest one."""
    lines = head("", *(f"{title}:" for title in BEST_KNOWN.values()))
    lines += _ours(record, BEST_KNOWN)
    for name in KNOWN_PEERS:
        found = [
            next((peer for peer in peers_of(record, shape) if peer.subject == name), None)
            for shape in BEST_KNOWN
        ]
        if any(found):
            lines.append(row([name, *map(_cell, found)]))
    return "\n".join(lines)


def _ours(record: Record, shapes: Iterable[str]) -> list[str]:
    lines = []
    for verb, name in VERBS.items():
        found = [record.find(NAME, LOOP, f"{shape}-{verb}") for shape in shapes]
        lines.append(row([f"**asgi-ipc**, {name}", *map(_cell, found)]))
    return lines


def _cell(result: Result | None) -> str:
    return "" if result is None else thousands(result.per_second)


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


def _rate_line(record: Record, result: Result) -> str:
    rates = [run.per_second for run in result.runs]
    span = f"{thousands(min(rates))} to {thousands(max(rates))}"
    cells = [result.case, title(result), thousands(result.per_second), span]
    for name in ("Y1", "Y4"):
        yardstick = record.find(name, "", name, result.group)
        cells.append(f"{ratio(result, yardstick):.2g}" if yardstick else "")
    cells.append(f"{result.cpu_us:.2f}" if result.cpu_us else "")
    return row([*cells, processes(result)])


def _time_line(record: Record, result: Result) -> str:
    where = "one-cpu" if "one-cpu" in result.case else "free"
    yardstick = record.find("Y3", result.loop, f"Y3-{where}", result.group)
    of_y3 = f"{ratio(result, yardstick, lambda run: run.p50_us):.2f}" if yardstick else ""
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


def head(*titles: str) -> list[str]:
    """The first two lines of a table; a title that ends in a colon is that of numbers."""
    rules = ["--:" if title.endswith(":") else "---" for title in titles]
    return [row([title.removesuffix(":") for title in titles]), f"|{'|'.join(rules)}|"]


def row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def thousands(per_second: float) -> str:
    """A rate in thousands, with as many digits as it deserves."""
    rate = per_second / 1000
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:,.1f}" if rate >= 1 else f"{rate:,.2f}"
