"""The command: run a sample of mutants, each against the tests of its room, and report the survivors.

    python -m tests.mutants                       # 300 mutants of all rooms
    python -m tests.mutants --room fleet --count 100 --seed 2
    python -m tests.mutants --room dispatch --count 100    # which is sampled by itself
    python -m tests.mutants --list                # run nothing, show the sample

Exit status: 0 if at least 85 % of the mutants died and docs/mutants.md has a reason for every other one;
1 if not; 2 if a room's tests fail without a mutant.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.planted import ROOT, Copy, RunError, Verdict, attempt_all, say
from tests.mutants.mutations import Mutant, sample
from tests.mutants.survivors import PAGE, reasons, row

LEAST_SCORE: Final = 0.85

# Bounds one mutant's run: the slowest room takes less than a minute without one, on a slow core.
RUN_TIMEOUT_S: Final = 240.0


@dataclass(frozen=True, slots=True)
class Room:
    """Modules that are mutated, and the tests that must notice; both relative to the project."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]

    def files(self) -> list[str]:
        """The paths of its modules."""
        found = (sorted(ROOT.glob(f"asgi_ipc/{pattern}")) for pattern in self.modules)
        return [str(path.relative_to(ROOT)) for paths in found for path in paths]

    def tests_of(self, module: str) -> list[str]:
        """Its tests, those that are named like the module first: most of its mutants die there."""
        name = f"test_{Path(module).stem}.py"
        named = [f"{folder}/{name}" for folder in self.tests if (ROOT / folder / name).exists()]
        return [*named, *self.tests]


ROOMS: Final = {
    "fleet": Room(("fleet/*.py",), ("tests/fleet",)),
    "features": Room(
        ("worker/features/*.py",),
        (
            "tests/worker/features/test_topics.py",
            "tests/worker/features",
            # Verbs that wait for room, and those that are refused before and after the lifespan.
            "tests/worker/test_endpoint.py",
            "--ignore-glob=*_live.py",
        ),
    ),
    "typed data": Room(
        ("worker/dispatch/annotation.py", "worker/dispatch/conversion*.py"),
        ("tests/worker/dispatch/test_conversion.py",),
    ),
    "launcher": Room(
        ("launcher/options.py", "launcher/listening.py", "launcher/limits.py"),
        (
            "tests/launcher/test_decisions.py",
            "tests/launcher/test_limits.py",
            "tests/launcher/test_options.py",
            "tests/launcher/test_uds.py",
        ),
    ),
}

# Without typed data.
_DISPATCH: Final = [
    "backpressure",
    "calls",
    "deliver",
    "dispatcher",
    "eager",
    "entries",
    "handler",
    "registry",
    "steps",
]

# Sampled by themselves, when they are asked for.
APART: Final = {
    "cluster": Room(("cluster/*.py",), ("tests/cluster",)),
    "dispatch": Room(
        tuple(f"worker/dispatch/{name}.py" for name in _DISPATCH),
        ("tests/worker/dispatch", "tests/worker/test_endpoint.py"),
    ),
}
ALL: Final = ROOMS | APART


def _room(mutant: Mutant) -> str:
    return next(name for name, room in ALL.items() if mutant.module in room.files())


def main() -> int:
    """As asked for on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--room", choices=ALL, help="only mutants of this room")
    parser.add_argument("--count", type=int, default=300, metavar="N", help="mutants of all rooms together")
    parser.add_argument("--seed", type=int, default=14, metavar="N")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many at a time")
    parser.add_argument("--list", action="store_true", help="run nothing, show the sample")
    chosen = parser.parse_args()
    rooms = ROOMS if chosen.room is None else {chosen.room: ALL[chosen.room]}
    sampled = APART if chosen.room in APART else ROOMS
    files = [file for room in sampled.values() for file in room.files()]
    mutants = [each for each in sample(ROOT, files, chosen.count, chosen.seed) if _room(each) in rooms]
    if chosen.list:
        for mutant in mutants:
            say(row(mutant.key, ""))
        return 0
    # Few examples, and the same every time (tests/strategies.py).
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    # Ended politely like with Ctrl-C, so that no copy stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return report(mutants, run(mutants, rooms, chosen.jobs))
    except RunError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130


def run(mutants: list[Mutant], rooms: dict[str, Room], jobs: int) -> list[Verdict]:
    """What the tests say to each mutant, `jobs` at a time; in the order given."""
    stop = threading.Event()
    copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()

    def attempt(mutant: Mutant) -> Verdict:
        copy = copies.get()
        path = copy.root / mutant.module
        before = path.read_text()
        began = time.monotonic()
        try:
            path.write_text(mutant.code)
            verdict = copy.test(ALL[_room(mutant)].tests_of(mutant.module))
        finally:
            path.write_text(before)
            copies.put(copy)
        what = verdict.failed or verdict.remark or "SURVIVED"
        say(f"{what} ({time.monotonic() - began:.0f} s): {' '.join(mutant.key)}")
        return verdict

    with ExitStack() as stack:
        for _ in range(jobs):
            folder = tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True)
            copy = Copy(ROOT, stack.enter_context(folder), stop, RUN_TIMEOUT_S)
            copies.put(copy)
        for room in rooms.values():
            if (verdict := copy.test(room.tests)) != Verdict():
                raise RunError(f"without a mutant: {verdict.failed or verdict.remark}")
        return attempt_all(attempt, mutants, jobs, stop)


def report(mutants: list[Mutant], verdicts: list[Verdict]) -> int:
    """Print the score of each room and the survivors; the exit status."""
    survivors = [each for each, verdict in zip(mutants, verdicts, strict=True) if verdict == Verdict()]
    listed = reasons(PAGE.read_text()).keys()
    for name in ALL:
        of_room = [each for each in mutants if _room(each) == name]
        alive = [each for each in survivors if each in of_room]
        if of_room:
            say(f"{name}: {len(of_room) - len(alive)} of {len(of_room)} died")
    unlisted = [each for each in survivors if each.key not in listed]
    for mutant in unlisted:
        say(row(mutant.key, "NO REASON"))
    dead = {each.key for each in mutants} - {each.key for each in survivors}
    for where, change in sorted(listed & dead):
        say(f"a test notices it now, so it needs no reason any more: {where}: {change}")
    score = 1 - len(survivors) / max(len(mutants), 1)
    hung = sum(verdict.hung for verdict in verdicts)
    say(f"{score:.1%} of {len(mutants)} mutants died, {hung} by hanging")
    say(f"{len(unlisted)} of {len(survivors)} survivors have no reason in {PAGE.relative_to(ROOT)}")
    return 1 if unlisted or score < LEAST_SCORE else 0


if __name__ == "__main__":
    sys.exit(main())
