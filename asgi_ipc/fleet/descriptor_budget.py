"""Limits: the descriptors that a fleet needs, and the sentences for a limit that is too low.

Law: nothing in this file asks the kernel; numbers are arguments. Every sentence names the limit, its value
here, and the way to raise it.
"""

from __future__ import annotations

from typing import Final

# In the launcher: the listening socket, the event loop's own three, and two pipes for `multiprocessing`.
LAUNCHER_OWN: Final = 8

# The launcher keeps the write end, the arena and the lifeline of each worker; while it starts one it has
# two of each open, and the pair by which the child says that its exec has failed.
PER_WORKER: Final = 3
WHILE_STARTING: Final = 8

# In a worker: 0 to 2, the descriptors that it is started with (5), uvloop's own with its reserve for a full
# table (10; asyncio has 3), and a few for imports and clients. A write end and an arena for each other
# worker, and for a newcomer, come on top.
WORKER_OWN: Final = 26
PER_PEER: Final = 2

_RAISE_DESCRIPTORS: Final = (
    "Raise it: ulimit -n, or LimitNOFILE= under systemd, or --ulimit nofile= under Docker"
)


def launcher_needs(workers: int, open_already: int) -> int:
    """The least number of descriptors with which a launcher can start and restart so many workers."""
    return open_already + LAUNCHER_OWN + PER_WORKER * workers + WHILE_STARTING


def worker_needs(workers: int) -> int:
    """The least number of descriptors with which one of so many workers reaches all others."""
    return WORKER_OWN + PER_PEER * workers


def too_few_to_start(workers: int, launcher: int, worker: int, limit: int) -> str:
    """Say why a fleet of so many workers is not started."""
    each = "1 worker needs" if workers == 1 else f"{workers} workers need"
    return (
        f"{each} at least {launcher} descriptors in the launcher and {worker} in each worker, and a process "
        f"may have {limit} here (RLIMIT_NOFILE). {_RAISE_DESCRIPTORS}; or start fewer workers"
    )


def no_descriptor_here(limit: int) -> str:
    """Explain EMFILE in this process."""
    return (
        f"this process may have {limit} descriptors and all are in use (RLIMIT_NOFILE). {_RAISE_DESCRIPTORS}"
    )


def no_descriptor_for(pid: int, of: int, limit: int) -> str:
    """Say why the worker `pid` can't send to the worker `of` yet."""
    return (
        f"Worker [{pid}] can't send to worker [{of}] yet: it may have {limit} descriptors and all are in use "
        f"(RLIMIT_NOFILE). What it sends there waits until it has one to spare. {_RAISE_DESCRIPTORS}."
    )


def no_file_in_system() -> str:
    """Explain ENFILE from os.pipe(): the limit of the system, or of this user's pipes."""
    return (
        "the system has no open file to spare (sysctl fs.file-max), or this user no page for a pipe "
        "(sysctl fs.pipe-user-pages-hard)"
    )


def no_process() -> str:
    """Explain EAGAIN from fork()."""
    return (
        "there may be no more processes. Raise the limit: ulimit -u, or TasksMax= under systemd, "
        "or --pids-limit under Docker"
    )


def small_pipes(given_bytes: int, wanted_bytes: int) -> str:
    """Say the effect of used-up pipe pages: nothing is lost, but senders wait more often."""
    return (
        f"The kernel gives this user pipes of {given_bytes:,} bytes instead of {wanted_bytes:,}, as when its "
        "pages for pipes are used up. Messages arrive all the same, more slowly. Raise the limit: "
        "sysctl fs.pipe-user-pages-soft (in pages), and fs.pipe-max-size for --pipe-bytes."
    )
