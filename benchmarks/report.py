"""The report: a Markdown table for people, JSON for programs, both with what they were measured on.

Law: figures are given as they were measured; nothing is chosen here but the
median. A figure without its machine, versions and commit is not written.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.cases import Result, Run
from benchmarks.server import ROOT

RESULTS: Final = Path(__file__).parent / "results"

PACKAGES: Final = {
    "asgi-ipc": "asgi-worker-ipc",
    "uvicorn": "uvicorn",
    "uvloop": "uvloop",
    "msgspec": "msgspec",
}

# Receivers that a line of the table names; the JSON has all.
MAX_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the figures depend on."""

    date: str
    commit: str
    # Files differ from that commit.
    modified: bool
    cpu: str
    cores: int
    kernel: str
    # Runnable processes before the start: others use this machine, too.
    load: float
    versions: dict[str, str]


def circumstances() -> Circumstances:
    """Those of now and here."""
    return Circumstances(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=_git("rev-parse", "HEAD") or "unknown",
        modified=bool(_git("status", "--porcelain")),
        cpu=_cpu_model(),
        cores=os.cpu_count() or 0,
        kernel=f"{platform.system()} {platform.release()}",
        load=round(os.getloadavg()[0], 2),
        versions={"python": platform.python_version()} | {name: version(of) for name, of in PACKAGES.items()},
    )


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]
    try:
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def markdown(where: Circumstances, results: Sequence[Result]) -> str:
    """The tables, and the line that says where they come from."""
    yardsticks = _yardsticks(results)
    rates, times = [], []
    for result in results:
        pids = _processes(result.runs[0])
        if result.case.is_round_trip:
            p50, p99 = result.median_us("p50_us"), result.median_us("p99_us")
            times.append(f"| {result.case.name} | {result.loop} | {p50:,.0f} | {p99:,.0f} | {pids} |")
        else:
            rates.append(
                f"| {result.case.name} | {result.loop} | {_thousands(result.per_second)} "
                f"| {_span(result.runs)} | {result.of_y1:.2g} | {pids} |"
            )
    y1, pids = _thousands(_median(yardsticks)), _processes(yardsticks[0])
    rates.append(f"| Y1 (26 B) | - | {y1} | {_span(yardsticks)} | 1 | {pids} |")
    lines = [
        _origin(where),
        "",
        *_head("case", "loop", "thousand deliveries/s:", "least to most:", "of Y1:", "processes"),
        *rates,
    ]
    if times:
        lines += ["", *_head("case", "loop", "p50, us:", "p99, us:", "processes"), *times]
    return "\n".join(lines)


def _head(*titles: str) -> list[str]:
    """The first two lines of a table; a title that ends in a colon is that of numbers."""
    rules = ["--:" if title.endswith(":") else "---" for title in titles]
    return [f"| {' | '.join(title.rstrip(':') for title in titles)} |", f"|{'|'.join(rules)}|"]


def _origin(where: Circumstances) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in where.versions.items())
    return (
        f"{where.cpu}, {where.cores} cores, {where.kernel}, load {where.load:g}; {versions}; "
        f"commit {where.commit[:12]}{' with changes' if where.modified else ''}; {where.date}"
    )


def _yardsticks(results: Iterable[Result]) -> tuple[Run, ...]:
    """Every run of Y1 once; the cases of one server share theirs."""
    return tuple(dict.fromkeys(run for result in results for run in result.y1))


def _median(runs: Sequence[Run]) -> float:
    return statistics.median(run.per_second for run in runs)


def _span(runs: Sequence[Run]) -> str:
    rates = [run.per_second for run in runs]
    return f"{_thousands(min(rates))} to {_thousands(max(rates))}"


def _thousands(per_second: float) -> str:
    return f"{per_second / 1000:,.1f}" if per_second < 100_000 else f"{per_second / 1000:,.0f}"


def _processes(run: Run) -> str:
    named = ", ".join(str(pid) for pid in run.receivers[:MAX_NAMED])
    more = len(run.receivers) - MAX_NAMED
    return f"{run.sender} to {named}" + (f" and {more} more" if more > 0 else "")


def write_json(where: Circumstances, results: Sequence[Result]) -> Path:
    """Everything that was measured, in a new file under benchmarks/results/; its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{where.date.replace(':', '').replace('+0000', 'Z')}-{where.commit[:12]}.json"
    yardsticks = _yardsticks(results)
    y1 = {"per_second": _median(yardsticks), "runs": [asdict(run) for run in yardsticks]}
    content = {
        **asdict(where),
        "yardsticks": {"Y1": y1},
        "results": [_as_json(result) for result in results],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def _as_json(result: Result) -> dict[str, object]:
    medians: dict[str, object] = {"per_second": result.per_second, "of_y1": result.of_y1}
    if result.case.is_round_trip:
        medians |= {name: result.median_us(name) for name in ("p50_us", "p99_us")}
    case = result.case
    return {
        "case": case.name,
        "loop": result.loop,
        "verb": case.verb,
        "receivers": case.receivers,
        "size_bytes": case.size_bytes,
        "count": result.count,
        **medians,
        "runs": [asdict(run) for run in result.runs],
    }
