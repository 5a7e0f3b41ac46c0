"""Belongings: what processes hold open, and how to end those that outlive their parents.

Law: it only looks, at the kernel's tables; a process is ended through a
descriptor of it, so that nobody who has its number by now is hit.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from asgi_ipc.testing.child import children, is_running
from tests.serving import eventually


def links(pid: int) -> dict[int, str]:
    """What each descriptor of a process is, as the kernel names it; empty when it has ended."""
    found: dict[int, str] = {}
    with suppress(FileNotFoundError, ProcessLookupError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
    return found


def first_free(pid: int) -> int:
    """The number that the next descriptor of a process gets."""
    taken = links(pid)
    return next(number for number in range(len(taken) + 1) if number not in taken)


def named(found: Iterable[str]) -> set[str]:
    """Those that have a name of their own; all anonymous ones of a kind share one."""
    return {link for link in found if link.startswith(("pipe:", "socket:"))}


def inherited(worker: int) -> list[str]:
    """What a worker was started with: its lifeline, the read end of its pipe, the listening sockets.

    Their numbers are the last of its arguments, with that of its arena (or -1) as the third, which it closes
    once it has mapped it.
    """
    arguments = Path(f"/proc/{worker}/cmdline").read_bytes().split(b"\0")[:-1]
    numbers: list[int] = []
    while arguments[-1].lstrip(b"-").isdigit():
        numbers.append(int(arguments.pop()))
    lifeline, pipe, _, *listeners = reversed(numbers)
    here = links(worker)
    return [here[number] for number in (lifeline, pipe, *listeners)]


def descendants(pid: int) -> set[int]:
    """Children, and theirs, that run."""
    found: set[int] = set()
    for child in children(pid):
        if is_running(child):
            found |= {child} | descendants(child)
    return found


class Kept:
    """Processes that may outlive their parents, and are ended here."""

    def __init__(self) -> None:
        self._fds: dict[int, int] = {}

    def keep(self, pids: Iterable[int]) -> None:
        """Remember these, which run now."""
        for pid in pids:
            if pid not in self._fds:
                with suppress(ProcessLookupError):
                    self._fds[pid] = os.pidfd_open(pid)

    @property
    def running(self) -> list[int]:
        """Those of them that run."""
        return [pid for pid in self._fds if is_running(pid)]

    async def end(self, pids: Iterable[int] | None = None) -> None:
        """Kill these, or all, and wait until they have gone."""
        for pid in list(self._fds if pids is None else pids):
            fd = self._fds.pop(pid)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.close(fd)
            await eventually(lambda pid=pid: not is_running(pid), f"{pid} has ended")  # type: ignore[misc]
