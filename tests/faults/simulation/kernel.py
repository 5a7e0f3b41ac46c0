"""The kernel: processes, their descriptors, their signals, and one clock for all.

Law: only virtual time and seeded chance decide. Every call goes through `enter` and `done`, and either may
kill a process: `Killed` then unwinds its stack, and its further calls have no effect.
"""

from __future__ import annotations

import errno
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.faults.simulation.files import File, Flight, ReadEnd, WriteEnd

# Pids begin above everything that could be taken for a descriptor or a generation.
FIRST_PID: Final = 1000

# How often a new process gets the pid of one that is gone.
PID_REUSE_CHANCE: Final = 0.3


class Killed(KeyboardInterrupt):  # no error of anybody's
    """This process has ended. The one kind of exception, with SystemExit, that asyncio lets through."""


class Process:
    """One process: its descriptors, and whether it lives. `number` is never reused; a pid may be."""

    def __init__(self, pid: int, number: int) -> None:
        self.pid = pid
        self.number = number
        self.fds: dict[int, File] = {}
        self.is_alive = True
        self.is_stopped = False
        self.is_reaped = False
        self.status = 0
        # The descriptors that its event loop watches; closing one of these is a bug (see
        # worker/transport/pipes.py).
        self.watched: Callable[[int], bool] = lambda fd: False

    @property
    def name(self) -> str:
        """How the trace calls it."""
        return f"w{self.number}" if self.number else "launcher"

    def open(self, file: File) -> int:
        """A descriptor for `file`: the lowest that is free, as POSIX has it."""
        fd = next(fd for fd in range(3, 10_000) if fd not in self.fds)
        file.hold()
        self.fds[fd] = file
        return fd

    def file(self, fd: int) -> File:
        """Return the file that `fd` names. Raises EBADF."""
        if not self.is_alive:
            raise Killed
        try:
            return self.fds[fd]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the kernel of one run, and the chances of its unkind answers."""

    page_bytes: int
    pipe_pages: int
    socket_bytes: int
    flight: int
    short_write_chance: float
    truncate_chance: float


@dataclass(slots=True)
class Watch:
    """Watchers of the kernel's calls; each is called after the fact."""

    wrote: Callable[[Process, WriteEnd, bytes], None]
    read: Callable[[Process, ReadEnd, bytes, set[int]], None]
    ended: Callable[[Process], None]
    signalled: Callable[[Process, int], None]
    # Says whether a process dies in this very call.
    strikes: Callable[[Process], bool]
    failed: Callable[[str], None]


class Kernel:
    """The machine that all processes of one run share."""

    def __init__(self, limits: Limits, chance: random.Random, watch: Watch) -> None:
        self.limits = limits
        self.chance = chance
        self.watch = watch
        self.now = 0.0
        self.flight = Flight(limits.flight)
        self.processes: list[Process] = []
        self.current: Process | None = None
        # (when, who, what, and what of it)
        self.trace: list[tuple[float, str, str, tuple[object, ...]]] = []

    def note(self, who: str, what: str, *values: object) -> None:
        """A line for the trace."""
        self.trace.append((self.now, who, what, values))

    # --- processes

    def spawn(self, inherited: dict[int, File]) -> Process:
        """A new process with these descriptors, of the same numbers."""
        process = Process(self._new_pid(), len(self.processes))
        self.processes.append(process)
        for fd, file in inherited.items():
            file.hold()
            process.fds[fd] = file
        self.note(process.name, "starts as %d", process.pid)
        return process

    def _new_pid(self) -> int:
        used = {process.pid for process in self.processes if not process.is_reaped}
        free = [process.pid for process in self.processes if process.pid not in used]
        if free and self.chance.random() < PID_REUSE_CHANCE:
            return free[0]
        return FIRST_PID + len(self.processes)

    def find(self, pid: int) -> Process:
        """The process that has this pid now. Raises ESRCH."""
        for process in reversed(self.processes):
            if process.pid == pid and not process.is_reaped:
                return process
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))

    def end(self, process: Process, status: int) -> None:
        """End a process and close its files. Its parent learns of the end later."""
        if not process.is_alive:
            return
        process.is_alive = False
        process.is_stopped = False
        process.status = status
        self.note(process.name, "ends with status %d", status)
        self.watch.ended(process)
        for file in process.fds.values():
            file.release()
        process.fds.clear()

    def exit(self, process: Process, status: int) -> None:
        """The running process ends by itself; does not return."""
        self.end(process, status)
        raise Killed

    def kill(self, process: Process, number: int) -> None:
        """Send a signal."""
        self.note(process.name, "gets %s", signal.Signals(number).name)
        self.watch.signalled(process, number)
        if number == signal.SIGKILL:
            self.end(process, -number)

    # --- calls

    def enter(self) -> Process:
        """The process that calls, or its end."""
        process = self.current
        assert process is not None, "a system call from nowhere"
        if not process.is_alive:
            raise Killed
        if self.watch.strikes(process):
            self.end(process, -signal.SIGKILL)
            raise Killed
        return process

    def done(self) -> None:
        """A call has had its effect; its caller may not live to see the result."""
        process = self.current
        assert process is not None
        if self.watch.strikes(process):
            self.end(process, -signal.SIGKILL)
        if not process.is_alive:
            raise Killed

    def close(self, process: Process, fd: int) -> None:
        """close(2), and a look whether the event loop still waits for it."""
        file = process.file(fd)
        if process.watched(fd):
            self.watch.failed(f"{process.name} closes descriptor {fd}, which its loop still watches")
        del process.fds[fd]
        file.release()
