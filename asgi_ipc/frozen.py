"""Frozen: a program that PyInstaller has made starts itself as its own workers.

Law: such a program has no interpreter that could be told to run something else: `sys.executable` is the
program. So a worker is the program with its own arguments, a mark and the descriptors behind them. The
mark is taken away when this package is imported, before the program parses its arguments, and `run`
becomes the worker: what stands above it happens in a worker, too, what stands below it does not. Nothing
else may start here.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from typing import Final

MARK: Final = "--asgi-ipc-worker"

IS_FROZEN: Final = bool(getattr(sys, "frozen", False))


def _take() -> list[str] | None:
    """The arguments behind the mark, taken out of `sys.argv`; None if this process is no worker."""
    if not IS_FROZEN or MARK not in sys.argv:
        return None
    place = sys.argv.index(MARK)
    behind = sys.argv[place + 1 :]
    del sys.argv[place:]
    for fd in behind:
        # A program that is started above `run` inherits none of them.
        if int(fd) >= 0:
            os.set_inheritable(int(fd), False)
    return behind


_worker: Final = _take()

# As they were given: a program may change its list of them.
_arguments: Final = sys.argv[1:]


def command(fds: Sequence[int]) -> list[str]:
    """The command that starts this program as a worker with these descriptors."""
    return [sys.executable, *_arguments, MARK, *map(str, fds)]


def become_worker() -> None:
    """In a worker: be it, and never return. In a child of `multiprocessing`'s: be that. Else nothing."""
    if not IS_FROZEN:
        return
    if _worker is not None:
        from asgi_ipc.worker.main import main

        main(_worker)
        raise SystemExit(0)
    # PyInstaller's is all that keeps a pool's process, or a resource tracker, from being one more server.
    multiprocessing.freeze_support()
