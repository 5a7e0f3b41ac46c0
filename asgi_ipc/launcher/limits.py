"""Limits: the kernel's limits, read by the launcher.

Law: ask when it matters and keep nothing: an operator can change a limit of a
running process (prlimit(1)). The sentences stand in `fleet/descriptor_budget.py`.
"""

from __future__ import annotations

import errno
import math
import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from asgi_ipc.errors import LauncherError
from asgi_ipc.fleet import descriptor_budget
from asgi_ipc.logs import server_logger as logger

# Linux gives a pipe 16 pages unless its user has used up all pages for pipes (pipe(7)).
DEFAULT_PIPE_BYTES: Final = 16 * os.sysconf("SC_PAGE_SIZE")


def descriptor_limit(pid: int = 0) -> int:
    """How many descriptors a process may have. Where the kernel tells only its own limit, that one."""
    if hasattr(resource, "prlimit"):  # Linux
        with suppress(OSError):
            return resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def check_descriptors(workers: int) -> None:
    """Refuse a fleet that is too large for the limit of this process, which its workers inherit.

    Raises LauncherError.
    """
    limit = descriptor_limit()
    launcher = descriptor_budget.launcher_needs(workers, _open_descriptors())
    worker = descriptor_budget.worker_needs(workers)
    if limit != resource.RLIM_INFINITY and limit < max(launcher, worker):
        raise LauncherError(descriptor_budget.too_few_to_start(workers, launcher, worker, limit))


def _open_descriptors() -> int:
    try:
        # Less the descriptor that reads the folder.
        return len(os.listdir("/dev/fd")) - 1
    except OSError:
        # Not mounted here. 0 to 2 are open in any case.
        return 3


def describe_refusal(error: OSError) -> str:
    """Why the kernel has refused a pipe, a socket or a process, and what to do about it."""
    match error.errno:
        case errno.EMFILE:
            return f"{error.strerror}: {descriptor_budget.no_descriptor_here(descriptor_limit())}"
        case errno.ENFILE:
            return f"{error.strerror}: {descriptor_budget.no_file_in_system()}"
        case errno.EAGAIN:
            return f"{error.strerror}: {descriptor_budget.no_process()}"
        case _:
            return str(error)


def tell_reach(pid: int, to: int, is_reached: bool) -> None:
    """Say that a worker can't send to another for want of a descriptor, or that now it can."""
    if is_reached:
        logger.info("Worker [%d] can send to worker [%d] now.", pid, to)
    else:
        logger.error("%s", descriptor_budget.no_descriptor_for(pid, to, descriptor_limit(pid)))


class PipeWatch:
    """Warns when pipes are smaller than they should be; at most once in WARN_AGAIN_S.

    While the pages for pipes run out, each process that ends gives some back: pipes of
    both sizes are made in turn, and a warning for each change would fill the log.
    """

    WARN_AGAIN_S: Final = 3600.0

    def __init__(self, wanted_bytes: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._wanted_bytes = wanted_bytes or DEFAULT_PIPE_BYTES
        self._clock = clock
        self._quiet_until = -math.inf

    def saw(self, given_bytes: int | None) -> None:
        """The kernel has given a pipe of that size; None: it does not say."""
        if given_bytes is None or given_bytes >= self._wanted_bytes or self._clock() < self._quiet_until:
            return
        self._quiet_until = self._clock() + self.WARN_AGAIN_S
        logger.warning("%s", descriptor_budget.small_pipes(given_bytes, self._wanted_bytes))
