"""Reach: the pairs of workers that have exchanged a message, read from the ledgers during the run.

Law: from outside, without a descriptor or a request in any worker. A pair without a message is silent unless
the launcher has named it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asgi_ipc.testing.child import is_running
from tests.faults.ledger import RECORD
from tests.faults.oracle import Pair
from tests.faults.traffic import Traffic
from tests.serving import DEADLINE_S

# How often the ledgers are read: they are memory that others write, which has no event.
POLL_S: Final = 0.1

# How the launcher names a pair.
_NAMED: Final = r"Worker \[(\d+)\] can't send to worker \[(\d+)\] yet: .*RLIMIT_NOFILE.*Raise it"

# Read at once.
_RECORDS: Final = 4096


@dataclass(frozen=True, slots=True)
class Settled:
    """All pairs of workers, as (sender, receiver), by pid."""

    heard: set[Pair]
    # Not heard, but the launcher has said why and what to do.
    named: set[Pair]
    silent: set[Pair]

    @property
    def pairs(self) -> int:
        return len(self.heard) + len(self.named) + len(self.silent)

    def __str__(self) -> str:
        silent = f", silent: {sorted(self.silent)[:3]}" if self.silent else ""
        named = f", {len(self.named)} named by the launcher" if self.named else ""
        return f"{len(self.heard):,} of {self.pairs:,} heard{named}{silent}"


class Reach:
    """The pairs with a message so far in one run."""

    def __init__(self, run: Traffic) -> None:
        self._run = run
        self._places: dict[Path, int] = {}
        self._heard: set[Pair] = set()

    def generations(self) -> dict[int, int]:
        """Return the generations of the running members, by pid."""
        return {
            note["pid"]: note["by"]
            for note in self._run.listener.notes
            if note["what"] == "joined" and is_running(note["pid"])
        }

    def look(self) -> Settled:
        """Return the state of all pairs of present members."""
        for path in self._run.folder.glob("*.got"):
            self._heard |= set(self._read(path))
        told = {
            (int(pids[1]), int(pids[2]))
            for line in self._run.server.found(_NAMED)
            if (pids := re.search(_NAMED, line)) is not None
        }
        generations = self.generations()
        heard, named, silent = set[Pair](), set[Pair](), set[Pair]()
        for sender, its in generations.items():
            for receiver, others in generations.items():
                if (its, others) in self._heard:
                    heard.add((sender, receiver))
                else:
                    (named if (sender, receiver) in told else silent).add((sender, receiver))
        return Settled(heard, named, silent)

    async def settle(
        self, workers: int, *, may_be_named: bool = False, deadline_s: float = DEADLINE_S
    ) -> Settled:
        """Wait until so many are here and every pair is heard, or named if that is enough.

        At the deadline, how it is anyway.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + deadline_s
        while True:
            settled = self.look()
            missing = settled.silent if may_be_named else settled.silent | settled.named
            if (settled.pairs == workers * workers and not missing) or loop.time() >= deadline:
                return settled
            await asyncio.sleep(POLL_S)

    def _read(self, path: Path) -> Iterator[Pair]:
        """Return the new records of one worker's delivered half."""
        with path.open("rb") as file:
            file.seek(self._places.get(path, 0))
            while chunk := file.read(_RECORDS * RECORD.size):
                for sender, receiver, *_, outcome in RECORD.iter_unpack(
                    chunk[: len(chunk) - len(chunk) % RECORD.size]
                ):
                    if not outcome:
                        return
                    self._places[path] = self._places.get(path, 0) + RECORD.size
                    yield sender, receiver
