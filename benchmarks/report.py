"""The report: Markdown tables for people.

Law: pure; a record in, text out. Figures are given as they were measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.results import Record, Result, ratio

# Processes that a line of the table names; the JSON has all.
MAX_NAMED = 2


def everything(record: Record) -> str:
    """Every case of every subject: rates, then times."""
    rates = [_rate_line(record, result) for result in record.results if not result.runs[0].p50_us]
    times = [_time_line(record, result) for result in record.results if result.runs[0].p50_us]
    lines = [record.where.sentence, ""]
    if rates:
        titles = (
            "case",
            "subject",
            "thousand deliveries/s:",
            "least to most:",
            "of Y1:",
            "of Y4:",
            "processes",
        )
        lines += [*head(*titles), *rates, ""]
    if times:
        lines += [*head("case", "subject", "p50, us:", "p99, us:", "of Y3:", "processes"), *times, ""]
    if record.left_out:
        lines += [
            *head("without a figure", "case", "because"),
            *(row([one.subject, one.shape or "all", one.reason]) for one in record.left_out),
        ]
    return "\n".join(lines)


def _rate_line(record: Record, result: Result) -> str:
    rates = [run.per_second for run in result.runs]
    span = f"{thousands(min(rates))} to {thousands(max(rates))}"
    cells = [result.case, title(result), thousands(result.per_second), span]
    for name in ("Y1", "Y4"):
        yardstick = record.find(name, "", name, result.group)
        cells.append(f"{ratio(result, yardstick):.2f}" if yardstick else "")
    return row([*cells, processes(result)])


def _time_line(record: Record, result: Result) -> str:
    where = "one-cpu" if "one-cpu" in result.case else "free"
    yardstick = record.find("Y3", result.loop, f"Y3-{where}", result.group)
    of_y3 = f"{ratio(result, yardstick, lambda run: run.p50_us):.2f}" if yardstick else ""
    p50, p99 = f"{result.p50_us:,.0f}", f"{result.p99_us:,.0f}"
    return row([result.case, title(result), p50, p99, of_y3, processes(result)])


def title(result: Result) -> str:
    """Who."""
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
    return [row([title.rstrip(":") for title in titles]), f"|{'|'.join(rules)}|"]


def row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def thousands(per_second: float) -> str:
    """A rate in thousands, with as many digits as it deserves."""
    rate = per_second / 1000
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:,.1f}" if rate >= 1 else f"{rate:,.2f}"
