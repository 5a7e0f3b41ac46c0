"""Traffic: a server whose workers talk and keep ledgers, seen from outside.

Law: it starts `tests/apps/traffic.py`, whose workers never stop talking, or `tests/apps/pressure.py`, whose
workers talk on command. It reads the workers' notes while they live, and asks the oracle when they have
ended. It injects no fault.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.ledger import NOTES, NOTES_SOCKET
from tests.faults.oracle import Note, Verdict, judge
from tests.faults.ordinary import User
from tests.faults.trial import Trial
from tests.puppets import Puppets
from tests.serving import DEADLINE_S, Server, serving

# The app whose workers talk on command.
PRESSURE = "tests.apps.pressure:app"

# A round's moment: after so many large messages, so that the moment differs and is often within a message.
_LARGE_AT_MOST = 5

# All workers together must send at least so many messages a second.
LEAST_RATE = 5_000


def noted(what: str, **values: object) -> Callable[[Note], bool]:
    """Whether a note is of that kind, with these values."""
    return lambda note: note["what"] == what and all(note[name] == value for name, value in values.items())


class Listener:
    """Hears the workers' notes as they are written."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(folder / NOTES_SOCKET))
        self._file = (folder / NOTES).open("ab+")
        self._place = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)
        self._waiting: list[tuple[Callable[[Note], bool], asyncio.Future[Note]]] = []
        self.notes: list[Note] = []

    def close(self) -> None:
        """Hear no more."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._file.close()

    async def next(self, is_meant: Callable[[Note], bool], timeout_s: float = DEADLINE_S) -> Note:
        """The first note from now on that is meant. Raises TimeoutError."""
        future: asyncio.Future[Note] = self._loop.create_future()
        self._waiting.append((is_meant, future))
        async with asyncio.timeout(timeout_s):
            return await future

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(1)
        # All datagrams first: a line is there before its datagram is.
        self._file.seek(self._place)
        lines, _, begun = self._file.read().rpartition(b"\n")
        self._place = self._file.tell() - len(begun)
        for line in lines.splitlines():
            self._hear(json.loads(line))

    def _hear(self, note: Note) -> None:
        self.notes.append(note)
        for entry in list(self._waiting):
            is_meant, future = entry
            if future.done() or is_meant(note):
                self._waiting.remove(entry)
                if not future.done():
                    future.set_result(note)


@dataclass
class Traffic:
    """A server under traffic."""

    server: Server
    folder: Path
    listener: Listener
    # The strings of the workers of tests/apps/pressure.py.
    strings: Puppets
    began: float = field(default_factory=time.monotonic)

    @property
    def joined(self) -> dict[int, int]:
        """The generation of every worker that has joined so far, by pid."""
        return {note["pid"]: note["by"] for note in self.listener.notes if note["what"] == "joined"}

    def verdict(self) -> Verdict:
        """Return the verdict of the ledgers; the server has ended."""
        return judge(self.folder)

    async def finish(
        self,
        trial: Trial,
        *,
        is_lossless: bool = False,
        excused: Collection[int] = (),
        what: str = "exit status",
    ) -> Verdict:
        """Stop the server; check its exit status and the ledgers."""
        status = await self.server.stop()
        verdict = self.verdict()
        check_verdict(trial, verdict, is_lossless=is_lossless, excused=excused)
        trial.ended(status, what)
        return verdict

    def check_rate(self, trial: Trial, verdict: Verdict, seconds: float) -> None:
        """At least so many messages a second, over all of the run."""
        trial.least("messages a second", verdict.accepted / seconds, LEAST_RATE)

    async def moment(self, number: int) -> None:
        """Wait for the moment of a round of that number."""
        for _ in range(1 + number % _LARGE_AT_MOST):
            await self.listener.next(noted("large"))


@asynccontextmanager
async def traffic(
    trial: Trial,
    *options: str,
    workers: int = 4,
    env: dict[str, str] | None = None,
    app: str = "tests.apps.traffic:app",
    user: User | None = None,
    deadline_s: float = DEADLINE_S,
    is_awaited: bool = True,
) -> AsyncIterator[Traffic]:
    """Run `asgi-ipc serve` of that app in the trial's variant, as that user, or as the present one.

    Ready, unless it is not awaited here.
    """
    folder = trial.folder
    listener = Listener(folder)
    if user is not None:
        user.own(folder)
    env = {"TRAFFIC_FOLDER": str(folder), **(env or {})}
    options = (*trial.variant.options, "--no-access-log", *options)
    try:
        under = () if user is None else user.under
        async with serving(app, *options, workers=workers, env=env, under=under) as server:
            server.deadline_s = deadline_s
            if is_awaited:
                await server.started(workers)
            yield Traffic(server, folder, listener, Puppets(server, folder))
    finally:
        listener.close()


def check_verdict(
    trial: Trial, verdict: Verdict, *, excused: Collection[int] = (), is_lossless: bool = False
) -> None:
    """Nothing duplicated, reordered, altered, misdelivered or missing but to or from the `excused`, ever.

    Nothing at all is lost where it `is_lossless`: nobody was killed, and nobody's time for a leave was up.
    """
    trial.sums("messages", verdict.summary())
    trial.none("duplicated, reordered, altered, misdelivered", verdict.faults)
    missing = verdict.missing_between(verdict.left - set(excused))
    trial.none("missing between workers that lived or left cleanly", missing)
    if is_lossless:
        trial.equal("delivered", verdict.delivered, verdict.accepted)
        trial.none("counted as lost", verdict.lost)
