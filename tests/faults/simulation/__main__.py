"""The command: run many seeds and print the report, or replay one and print its events.

Law: as `simulate`; the exit status says whether all promises have held.
"""

from __future__ import annotations

import argparse
import os
import sys

from asgi_ipc import engine
from tests.faults.simulation.report import simulate, trace_hash, trace_lines
from tests.faults.simulation.seeds import NAMED, find, plan_of
from tests.faults.simulation.world import World


def main() -> int:
    """As asked for on the command line, on the reference: what is swapped are globals of Python modules."""
    if engine.name() == "native":
        command = [sys.executable, "-m", "tests.faults.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, engine.VARIABLE: "1"})
    parser = argparse.ArgumentParser(prog="python -m tests.faults.simulation")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first")
    parser.add_argument("--seed", type=int, help="one, with its trace")
    parser.add_argument("--named", choices=list(NAMED), help="a run with this event, with its trace")
    arguments = parser.parse_args()
    if arguments.named is not None:
        return _show(find(arguments.named))
    if arguments.seed is not None:
        world = World(plan_of(arguments.seed))
        world.run()
        return _show(world)
    report = simulate(range(arguments.start, arguments.start + arguments.seeds))
    print(report)  # noqa: T201
    return 1 if report.failures else 0


def _show(world: World) -> int:
    print(world.plan, *trace_lines(world), f"trace {trace_hash(world)}", sep="\n")  # noqa: T201
    print("\n".join(world.failures) or "all promises have held")  # noqa: T201
    return 1 if world.failures else 0


if __name__ == "__main__":
    sys.exit(main())
