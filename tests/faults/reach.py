"""Reach: the pairs of workers that have exchanged a message, read from the ledgers during the run.

Law: from outside, without a descriptor or a request in any worker. A pair without a message is silent unless
the launcher has named it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asgi_ipc.testing.child import is_running
from tests.faults.ledger import RECORD
from tests.faults.oracle import Pair
from tests.faults.traffic import Traffic
from tests.faults.trial import Trial

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

    @property
    def is_whole(self) -> bool:
        """Return whether every pair is heard."""
        return not (self.named or self.silent)

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

    def look(self) -> Settled:
        """Return the state of all pairs of present members."""
        for path in self._run.folder.glob("*.got"):
            self._heard |= set(self._read(path))
        members = {pid: generation for pid, generation in self._run.joined.items() if is_running(pid)}
        pairs = {(sender, receiver) for sender in members for receiver in members}
        heard = {pair for pair in pairs if (members[pair[0]], members[pair[1]]) in self._heard}
        lines = "\n".join(self._run.server.found(_NAMED))
        told = {(int(sender), int(receiver)) for sender, receiver in re.findall(_NAMED, lines)}
        named = (pairs - heard) & told
        return Settled(heard, named, pairs - heard - named)

    async def settle(self, workers: int, *, may_be_named: bool = False) -> Settled:
        """Wait until so many are here and every pair is heard, or named if that is enough.

        At the server's deadline, how it is anyway.
        """
        deadline = time.monotonic() + self._run.server.deadline_s
        while True:
            settled = self.look()
            is_whole = not settled.silent if may_be_named else settled.is_whole
            if (is_whole and settled.pairs == workers * workers) or time.monotonic() >= deadline:
                return settled
            await asyncio.sleep(POLL_S)

    async def check(self, trial: Trial, when: str, workers: int) -> None:
        """Every pair of so many is heard, sooner or later."""
        settled = await self.settle(workers)
        trial.check(f"pairs {when}", settled, settled.is_whole)

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
