"""One process that fuzzes: a seeded random part, then a part guided by coverage.

Law: a file that outlives the process always has the next execution, so that an end by a signal, or no end at
all, has its decisions, too.
"""

from __future__ import annotations

import importlib
import inspect
import json
import mmap
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from asgi_ipc.wire.batch import Reassembler
from asgi_ipc.wire.packet import PacketParser
from tests.faults.fuzzing.judge import execute

# Enough for every change that a script may have, with all its arguments.
MAX_DECISIONS_BYTES: Final = 96
# A script needs some to be more than its genuine packets.
MIN_DECISIONS_BYTES: Final = 8

# Failures that are kept with their decisions; all are counted.
MAX_KEPT_FAILURES: Final = 20

# The guided part starts from this; from an empty input libFuzzer finds nothing useful for long.
SEED_INPUTS: Final = 64

# One execution that takes this long hangs.
TIMEOUT_S: Final = 60


@dataclass(slots=True)
class Tally:
    """The sum of the outcomes of executions."""

    executions: int = 0
    guided: int = 0
    # Executions that gave the reassembler at least one packet.
    reached: int = 0
    # Packets that made the receiver deliver.
    delivered: int = 0
    # Executions in which a sender was owed every message, and its messages all came.
    unharmed: int = 0
    # Senders that lost a message to a cut packet, completed by chance by their own first bytes.
    chances: int = 0
    # Executions that broke a promise or raised, and those of them that raised.
    failed: int = 0
    crashed: int = 0
    failures: list[str] = field(default_factory=list)

    def execute(self, decisions: bytes) -> None:
        """Run one execution and add it."""
        outcome = execute(decisions)
        self.executions += 1
        self.reached += outcome.reached > 0
        self.delivered += outcome.delivered
        self.unharmed += outcome.unharmed > 0
        self.chances += outcome.chances
        if outcome.failure is not None:
            self.failed += 1
            self.crashed += outcome.crashed
            if len(self.failures) < MAX_KEPT_FAILURES:
                self.failures.append(f"{decisions.hex()} {outcome.failure}")


def random_decisions(seed: str, executions: int) -> Iterator[bytes]:
    """Decisions for so many executions, the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(executions):
        yield rng.randbytes(rng.randrange(MIN_DECISIONS_BYTES, MAX_DECISIONS_BYTES + 1))


class Now:
    """The decisions of the execution under way, in a file that a dead process leaves behind."""

    def __init__(self, path: Path) -> None:
        size = 1 + MAX_DECISIONS_BYTES
        path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)

    def note(self, decisions: bytes) -> None:
        """This is executed next."""
        size = len(decisions)
        self._map[: size + 1] = size.to_bytes(1, "little") + decisions

    @staticmethod
    def read(path: Path) -> bytes:
        """Return the last execution."""
        content = path.read_bytes() if path.exists() else b"\0"
        return content[1 : 1 + content[0]]


def _instrument(atheris: Any) -> None:
    # Branches only: to follow the compared values, too, halves the speed, and
    # the decisions are not what is compared with the cookie or the CRC.
    for cls in (PacketParser, Reassembler):
        for function in vars(cls).values():
            if inspect.isfunction(function):
                function.__code__ = atheris.patch_code(function.__code__, trace_dataflow=False)


def _guided(folder: Path, executions: int, seed: str, execute_one: Callable[[bytes], None]) -> None:
    """Have libFuzzer choose the decisions. Does not return: `execute_one` ends the process."""
    atheris = importlib.import_module("atheris")
    _instrument(atheris)
    inputs = []
    for index, decisions in enumerate(random_decisions(f"{seed} inputs", SEED_INPUTS)):
        path = folder / f"input-{index}"
        path.write_bytes(decisions)
        inputs.append(str(path))
    options = [
        "fuzz",
        f"-max_len={MAX_DECISIONS_BYTES}",
        "-len_control=0",
        f"-seed={random.Random(seed).randrange(1, 2**31)}",
        f"-timeout={TIMEOUT_S}",
        f"-artifact_prefix={folder}/",
        # It ends later than we do, who count.
        f"-runs={2 * executions + 1000}",
        f"-seed_inputs={','.join(inputs)}",
    ]
    atheris.Setup(options, execute_one)
    atheris.Fuzz()


def main(folder: Path, executions: int, guided: int, seed: str) -> None:
    """`executions` in all, `guided` of them guided; the tally goes into the folder."""
    tally = Tally()
    now = Now(folder / "now")

    def finish() -> None:
        (folder / "tally.json").write_text(json.dumps(asdict(tally)))

    for decisions in random_decisions(seed, executions - guided):
        now.note(decisions)
        tally.execute(decisions)
    if not guided:
        finish()
        return

    def execute_one(decisions: bytes) -> None:
        now.note(decisions)
        tally.execute(decisions)
        tally.guided += 1
        if tally.guided == guided:
            finish()
            # libFuzzer has no other way out that leaves the exit status 0.
            os._exit(0)

    _guided(folder, guided, seed, execute_one)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
