"""`python -m benchmarks`: which cases, how often, in which order.

Law: the order is decided here and nothing else. One server for each event
loop and number of workers; its cases take turns, run by run, and the
yardstick takes its turn among them, so that a minute in which the machine is
slow does not fall on one of them alone.

The exit status is 1 if a message was lost, altered, repeated or out of order.
"""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Final, NoReturn

from benchmarks.cases import CASES, Case, Result, Run, measure
from benchmarks.report import circumstances, markdown, write_json
from benchmarks.server import BenchmarkError, serving
from benchmarks.yardsticks import Y1_COUNT, Y1_QUICK_COUNT, measure_y1

LOOPS: Final = ("asyncio", "uvloop")
DEFAULT_RUNS: Final = 3


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure asgi-ipc between real workers."
    )
    parser.add_argument("--runs", type=int, default=DEFAULT_RUNS, help="runs of each case (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer messages: below a minute in all")
    parser.add_argument(
        "--only", metavar="CASE", action="append", choices=[case.name for case in CASES],
        help="this case only; may be repeated. One of: " + ", ".join(case.name for case in CASES),
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error("--runs is at least 1")
    return options


def run_server(loop: str, cases: list[Case], runs: int, *, quick: bool) -> list[Result]:
    """All runs of the cases that need the same number of workers, on one server."""
    with serving(cases[0].workers, loop) as server:
        done: dict[str, list[Run]] = {case.name: [] for case in cases}
        y1: list[Run] = []
        for number in range(runs):
            y1.append(measure_y1(Y1_QUICK_COUNT if quick else Y1_COUNT))
            _say(f"Y1 {number + 1} of {runs}: {y1[-1].per_second:,.0f}/s")
            for case in cases:
                run = measure(case, server, _count(case, quick=quick))
                done[case.name].append(run)
                figure = f"p50 {run.p50_us:.0f} us" if run.p50_us else f"{run.per_second:,.0f}/s"
                _say(f"{loop} {case.name} {number + 1} of {runs}: {figure}, {run.duration_ns / 1e9:.2f} s")
    return [
        Result(case, loop, _count(case, quick=quick), tuple(done[case.name]), tuple(y1)) for case in cases
    ]


def _count(case: Case, *, quick: bool) -> int:
    return case.quick_count if quick else case.count


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """The command; its exit status."""
    options = parse(arguments)
    cases = [case for case in CASES if options.only is None or case.name in options.only]
    where = circumstances()
    results: list[Result] = []
    try:
        for workers in sorted({case.workers for case in cases}):
            for loop in LOOPS:
                alike = [case for case in cases if case.workers == workers]
                results += run_server(loop, alike, options.runs, quick=options.quick)
    except BenchmarkError as error:
        _say(f"FAILED: {error}")
        return 1
    results.sort(key=lambda result: cases.index(result.case))
    print(markdown(where, results), flush=True)
    _say(f"written: {write_json(where, results)}")
    return 0


def _terminated(number: int, frame: object) -> NoReturn:
    # As an exception, so that the server is stopped on the way out.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(main(sys.argv[1:]))
