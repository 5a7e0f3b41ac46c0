"""`python -m benchmarks`: which cases, how often, and what is made of the figures.

Law: options in, an exit status out. 1 if a message was lost, altered,
repeated or out of order.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import signal
import sys
from typing import Final, NoReturn

from benchmarks import ours, peers, yardsticks
from benchmarks.cases import CASES, PAIR, Case
from benchmarks.judgement import BenchmarkError
from benchmarks.report import everything
from benchmarks.results import FOLDER, LeftOut, Record, Result, circumstances, save
from benchmarks.rounds import Entry, run_group

LOOPS: Final = ("asyncio", "uvloop")
DEFAULT_RUNS: Final = 5
DEFAULT_RUN_S: Final = 0.3

# More than an idle system's own housekeeping.
QUIET_CPUS: Final = 0.3


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure asgi-ipc between real workers."
    )
    parser.add_argument("--runs", type=int, default=DEFAULT_RUNS, help="runs of each case (%(default)s)")
    parser.add_argument(
        "--run-seconds", type=float, default=DEFAULT_RUN_S, metavar="S", help="length of a run (%(default)s)"
    )
    parser.add_argument(
        "--only", metavar="CASE", action="append",
        help="these cases only, for instance A-10B-nowait or 'B*'; may be repeated",
    )  # fmt: skip
    parser.add_argument("--loop", choices=LOOPS, action="append", help="this event loop only")
    parser.add_argument("--without-peers", action="store_true", help="this package and the yardsticks only")
    parser.add_argument("--list", action="store_true", help="name all cases, and end")
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error("--runs is at least 1")
    options.cases = [case for case in CASES if _is_meant(case, options.only)]
    if not options.cases:
        parser.error("no such case; --list names them")
    options.loops = tuple(options.loop or LOOPS)
    return options


def _is_meant(case: Case, only: list[str] | None) -> bool:
    return only is None or any(fnmatch.fnmatch(case.name, pattern) for pattern in only)


async def measure(options: argparse.Namespace) -> tuple[list[Result], list[LeftOut]]:
    """All results, group by group; and what has none."""
    subjects, absent = ([], {}) if options.without_peers else peers.subjects()
    results: list[Result] = []
    left_out = [LeftOut(name, "", f"not installed: {lacks}") for name, lacks in absent.items()]
    for size in sorted({case.shape.fleet for case in options.cases}):
        cases = [case for case in options.cases if case.shape.fleet == size]
        shapes = list(dict.fromkeys(case.shape for case in cases))
        entries = [
            Entry(subject, theirs[0].fleet, [Case(shape) for shape in theirs])
            for subject, theirs in yardsticks.subjects(options.loops)
            if size == PAIR or subject.name != "Y3"
        ]
        entries += [Entry(ours.subject(loop), size, cases) for loop in options.loops]
        for subject in subjects:
            reasons = {shape: subject.missing(shape) for shape in shapes}
            left_out += [LeftOut(subject.title, shape.name, why) for shape, why in reasons.items() if why]
            if able := [Case(shape) for shape, why in reasons.items() if not why]:
                entries.append(Entry(subject, size, able))
        results += await run_group(size, entries, options.runs, options.run_seconds)
    return results, left_out


def main(arguments: list[str]) -> int:
    """The command; its exit status."""
    options = parse(arguments)
    if options.list:
        print("\n".join(case.name for case in CASES))
        return 0
    where = circumstances(() if options.without_peers else peers.PACKAGES)
    if where.busy_cpus > QUIET_CPUS:
        print(f"WARNING: others keep {where.busy_cpus:.1f} of {where.cores} CPUs busy", file=sys.stderr)
    try:
        results, left_out = asyncio.run(measure(options))
    except BenchmarkError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    record = Record(where, results, left_out)
    print(everything(record), flush=True)
    path = FOLDER / f"{where.date.replace(':', '').replace('+0000', 'Z')}-{where.commit[:12]}.json"
    save(record, path)
    print(f"written: {path}", file=sys.stderr)
    return 0


def _terminated(number: int, frame: object) -> NoReturn:
    # As an exception, so that servers are stopped on the way out.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(main(sys.argv[1:]))
