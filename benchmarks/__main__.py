"""`python -m benchmarks`: options in, an exit status out.

Law: this file measures and judges nothing. The status is 1 if a message was lost, altered, repeated or out of
order.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

from msgspec import structs

from benchmarks import instructions, peers
from benchmarks.cases import CASES
from benchmarks.comparison import QUICK_CASES, comparison
from benchmarks.judgement import BenchmarkError
from benchmarks.ours import builds
from benchmarks.plan import FOOTPRINT, HTTP, Plan, carry_out
from benchmarks.publication import publish
from benchmarks.report import everything
from benchmarks.results import FOLDER, Circumstances, Record, circumstances, load, save
from benchmarks.rounds import Extent

LOOPS: Final = ("asyncio", "uvloop")

# More than an idle system's own housekeeping.
QUIET_CPUS: Final = 0.3

FULL: Final = Extent(runs=5, starts=2, run_s=0.2)
QUICK: Final = Extent(runs=4, starts=4, run_s=0.15)

# The name of a run that `--save` or `--quick` got no name for.
SAVED: Final = "saved"


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure asgi-ipc between real workers."
    )
    option = parser.add_argument
    option("--runs", type=int, metavar="N", help="runs of each case (5; quick: 4)")
    option("--starts", type=int, metavar="N", help="starts that they are spread over (2; quick: 4)")
    option("--run-seconds", type=float, metavar="S", help="length of a run (0.2; quick: 0.15)")
    option(
        "--only", metavar="CASE", action="append", help="for instance A-10B-nowait or 'B*'; may be repeated"
    )
    option("--loop", choices=LOOPS, action="append", help="this event loop only (quick: uvloop)")
    option("--against-commit", metavar="REV", help="build an older commit and measure it in the same rounds")
    option("--python", metavar="PATH", help="measure on another interpreter, too, which has what is needed")
    option("--without-peers", action="store_true", help="this package and the yardsticks only")
    option("--quick", action="store_true", help="some cases in less than two minutes, beside a saved run")
    option("--against", metavar="NAME", default=SAVED, help="the saved run for --quick (%(default)s)")
    option("--save", metavar="NAME", nargs="?", const=SAVED, help="keep this run under that name (%(const)s)")
    option("--publish", action="store_true", help="write docs/benchmarks.md and .svg, and the README's part")
    option("--publish-from", metavar="NAME", help="the same from a run that was kept: its name, or a .json")
    option("--list", action="store_true", help="name all cases, and end")
    options = parser.parse_args(arguments)
    default = QUICK if options.quick else FULL
    extent = Extent(
        default.runs if options.runs is None else options.runs,
        default.starts if options.starts is None else options.starts,
        options.run_seconds or default.run_s,
    )
    options.plan = Plan(
        loops=tuple(options.loop or (LOOPS[1:] if options.quick else LOOPS)),
        extent=extent,
        only=options.only or (QUICK_CASES if options.quick else None),
        with_peers=not options.without_peers and not options.quick,
        against_commit=options.against_commit,
        python=options.python,
    )
    if min(extent.runs, extent.starts) < 1:
        parser.error("--runs and --starts are at least 1")
    if options.plan.is_empty:
        parser.error("no such case; --list names them")
    if options.publish and (options.only or options.loop or options.quick or options.without_peers):
        parser.error("a part of the figures is not published")
    return options


def main(arguments: list[str]) -> int:
    """The command; its exit status."""
    options = parse(arguments)
    if options.list:
        print("\n".join([case.name for case in CASES] + [HTTP, FOOTPRINT]))
        return 0
    if options.publish_from:
        # Nothing is measured.
        try:
            return _publish(load(_kept(options.publish_from)))
        except OSError as error:
            _say(f"FAILED: {error}")
            return 1
    where = circumstances(peers.PACKAGES if options.plan.with_peers else ())
    if where.busy_cpus > QUIET_CPUS:
        _say(f"WARNING: others keep {where.busy_cpus:.1f} of {where.cores} CPUs busy")
    try:
        record = asyncio.run(carry_out(options.plan, where))
        if options.quick:
            record = counted(record)
    except BenchmarkError as error:
        _say(f"FAILED: {error}")
        return 1
    _write(record, _own_path(where))
    print(_compared(record, options.against) if options.quick else everything(record), flush=True)
    if options.save:
        _write(record, _path(options.save))
    return _publish(record) if options.publish else 0


def counted(record: Record) -> Record:
    """With instructions of a message; or with the reason why there are none."""
    if why := instructions.are_missing():
        return structs.replace(record, uncounted=why)
    with builds.present() as build:
        return structs.replace(record, instructions=instructions.count(build))


def _publish(record: Record) -> int:
    for path in publish(record):
        _say(f"written: {path}")
    return 0


def _compared(record: Record, name: str) -> str:
    try:
        before = load(_path(name))
    except FileNotFoundError:
        return f"{everything(record)}\nNothing to compare with: keep a run with --save."
    return comparison(before, record)


def _write(record: Record, path: Path) -> None:
    save(record, path)
    _say(f"written: {path}")


def _path(name: str) -> Path:
    return FOLDER / f"{name}.json"


def _kept(name: str) -> Path:
    return Path(name) if name.endswith(".json") else _path(name)


def _own_path(where: Circumstances) -> Path:
    return _path(f"{where.date.replace(':', '').replace('+0000', 'Z')}-{where.commit[:12]}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _terminated(number: int, frame: object) -> NoReturn:
    # As an exception, so that servers are stopped on the way out.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(main(sys.argv[1:]))
