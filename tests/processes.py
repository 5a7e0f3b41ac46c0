"""Processes: what the kernel says of them, beyond what the test kit itself asks (`asgi_ipc.testing.child`).

Law: psutil asks where it can. psutil does not show the pipes and sockets behind descriptors, signal masks,
pid namespaces and capabilities; only this file reads them from /proc. Nothing here ends a process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from asgi_ipc.testing.child import is_running

# capabilities(7), as bits: what frees from the limits on pipes and on descriptors in flight.
_CAP_SYS_ADMIN: Final = 21
_CAP_SYS_RESOURCE: Final = 24

# The mapping of an arena.
ARENA: Final = "/memfd:asgi-ipc"


# --- descriptors


def links(pid: int | None = None) -> dict[int, str]:
    """By number, what the descriptors of a process (or of this one) are; empty when it has ended."""
    folder = f"/proc/{pid or 'self'}/fd"
    found: dict[int, str] = {}
    with suppress(FileNotFoundError, ProcessLookupError):
        for fd in os.listdir(folder):
            # The descriptor that lists them is gone by now.
            with suppress(FileNotFoundError):
                found[int(fd)] = os.readlink(f"{folder}/{fd}")
    return found


def open_descriptors(pid: int | None = None) -> int:
    """How many a process has."""
    return psutil.Process(pid).num_fds()


def named(found: Iterable[str], *kinds: str) -> set[str]:
    """Pipes and sockets, or only one of both: each has a name of its own, other kinds share one."""
    return {
        link for link in found if link.startswith(tuple(f"{kind}:" for kind in kinds or ("pipe", "socket")))
    }


def first_free(pid: int) -> int:
    """The number that the next descriptor of a process gets."""
    taken = links(pid)
    return next(number for number in range(len(taken) + 1) if number not in taken)


def inherited(worker: int) -> list[str]:
    """What a worker was started with: its lifeline, the read end of its pipe, the listening sockets.

    Their numbers are the last of its arguments, with that of its arena (or -1) as the third, which it closes
    once it has mapped it.
    """
    arguments = psutil.Process(worker).cmdline()
    numbers: list[int] = []
    while arguments[-1].lstrip("-").isdigit():
        numbers.append(int(arguments.pop()))
    lifeline, pipe, _, *listeners = reversed(numbers)
    here = links(worker)
    return [here[number] for number in (lifeline, pipe, *listeners)]


def message_pipe(pid: int) -> str:
    """Return the path at which the pipe of the worker `pid` can be opened.

    The worker reads this pipe without waiting and has no write end of it. An event loop may have both ends of
    another pipe, its standard input may be a pipe, and the pipe that ends with the launcher is never read.
    """
    reads: dict[str, str] = {}
    writes: set[str] = set()
    for fd, pipe in links(pid).items():
        if fd > 2 and pipe.startswith("pipe:"):
            flags = int(_fields(f"/proc/{pid}/fdinfo/{fd}")["flags"], 8)
            if flags & os.O_ACCMODE != os.O_RDONLY:
                writes.add(pipe)
            elif flags & os.O_NONBLOCK:
                reads[pipe] = f"/proc/{pid}/fd/{fd}"
    (path,) = (path for pipe, path in reads.items() if pipe not in writes)
    return path


# --- memory


def own_bytes(pid: int | None = None) -> int:
    """What of a process's resident memory is its own.

    Not what it has mapped from files: a ledger is the test's, and grows with every message.
    """
    memory = psutil.Process(pid).memory_info()
    return int(memory.rss - memory.shared)


def arenas(pid: int) -> list[int]:
    """How much of each arena that a process has mapped is in its memory, in bytes."""
    maps = psutil.Process(pid).memory_maps(grouped=False)
    return [each.rss for each in maps if each.path.startswith(ARENA)]


# --- states, and parents


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has reached a process."""
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def of_session(leader: int) -> list[int]:
    """The pids of all that run in the session of a server, its orphans among them; zombies don't run."""
    found = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError):
            if os.getsid(pid) == leader and is_running(pid):
                found.append(pid)
    return found


def name_inside(pid: int) -> int:
    """Return the pid of a process in the innermost of its pid namespaces (proc(5), NSpid)."""
    return int(_status(pid)["NSpid"].split()[-1])


def is_ordinary(pid: int) -> bool:
    """Whether the kernel counts what a process has against its user's limits."""
    capabilities = int(_status(pid)["CapEff"], 16)
    exempt = capabilities & (1 << _CAP_SYS_ADMIN | 1 << _CAP_SYS_RESOURCE)
    return psutil.Process(pid).uids().effective != 0 and not exempt


def hard_limit(pid: int) -> int:
    """How many descriptors a process may ever have. prlimit(2) may refuse root to look."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("Max open files"))
    return int(line.split()[4])


def masks(pid: int | None = None) -> dict[str, int]:
    """The signals that a process blocks, ignores and handles, as bits, those of its main thread."""
    # Those below the real-time signals that are the C library's own don't count.
    known = sum(1 << (number - 1) for number in signal.valid_signals())
    status = _status(pid)
    return {name: int(status[name], 16) & known for name in ("SigBlk", "SigIgn", "SigCgt")}


def _status(pid: int | None) -> dict[str, str]:
    return _fields(f"/proc/{pid or 'self'}/status")


def _fields(path: str) -> dict[str, str]:
    lines = Path(path).read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
