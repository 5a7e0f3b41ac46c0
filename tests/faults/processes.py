"""Processes: their ends as events, and who still belongs to a server.

Law: it waits for the kernel's word, whoever the parent is, and ends nobody.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.serving import DEADLINE_S


class Ends:
    """When each of some processes has ended, on the machine's monotonic clock."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._fds: dict[int, int] = {}
        self._at: dict[int, asyncio.Future[float]] = {}
        # Opened before anything happens to them: a descriptor means that very process, a pid whoever has it.
        for pid in pids:
            self._at[pid] = self._loop.create_future()
            try:
                fd = self._fds[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                self._at[pid].set_result(time.monotonic())
                continue
            self._loop.add_reader(fd, partial(self._note, pid))

    @property
    def at(self) -> dict[int, float]:
        """By pid, for those that have ended."""
        return {pid: future.result() for pid, future in self._at.items() if future.done()}

    async def all(self, *, but: Collection[int] = (), timeout_s: float = DEADLINE_S) -> list[int]:
        """Wait for all of them but some; the pids of those that still run at the deadline."""
        awaited = {pid: future for pid, future in self._at.items() if pid not in but}
        await asyncio.wait(awaited.values(), timeout=timeout_s)
        return sorted(awaited.keys() - self.at.keys())

    async def last(self, *, but: Collection[int] = ()) -> float:
        """Wait for all of them but some; when the last has ended, infinity if one still runs."""
        running = await self.all(but=but)
        return float("inf") if running else max(at for pid, at in self.at.items() if pid not in but)

    def close(self) -> None:
        """Watch no more."""
        for fd in self._fds.values():
            self._loop.remove_reader(fd)
            os.close(fd)

    def _note(self, pid: int) -> None:
        # Once: the descriptor of a process that has ended stays readable.
        self._loop.remove_reader(self._fds[pid])
        self._at[pid].set_result(time.monotonic())


@contextmanager
def watching(pids: Iterable[int]) -> Iterator[Ends]:
    """Watch these processes, which run now, for their ends."""
    ends = Ends(pids)
    try:
        yield ends
    finally:
        ends.close()


def state_and_parent(pid: int) -> tuple[str, int]:
    """A process's state, one letter as in proc(5), and its parent; ("", 0) if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    state, parent = stat.rpartition(")")[2].split()[:2]
    return state, int(parent)


def name_inside(pid: int) -> int:
    """What a process is called in the innermost of its pid namespaces (proc(5), NSpid)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("NSpid:")]
    return int(line.split()[-1])


def of_session(leader: int) -> list[int]:
    """The pids of all that run in the session of a server, its orphans among them; zombies don't run."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        pid = int(each.name)
        with suppress(ProcessLookupError):
            if os.getsid(pid) == leader and state_and_parent(pid)[0] not in ("", "Z", "X"):
                found.append(pid)
    return sorted(found)
