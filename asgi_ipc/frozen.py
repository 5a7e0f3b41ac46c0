"""Frozen: a program that PyInstaller has made starts itself as its own workers.

Law: nothing starts here. In such a program `sys.executable` is the program, and no interpreter can run other
code. So a worker is the program with its own arguments, a mark, and the descriptors. The import of this
package takes the mark away, before the program parses its arguments, and `run` becomes the worker. Code above
the call of `run` happens in a worker, too; code below it does not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

MARK: Final = "--asgi-ipc-worker"

IS_FROZEN: Final = bool(getattr(sys, "frozen", False))


def _take() -> list[str] | None:
    """Take the mark and the arguments behind it out of `sys.argv`; None if this process is no worker."""
    if not IS_FROZEN or MARK not in sys.argv:
        return None
    place = sys.argv.index(MARK)
    behind = sys.argv[place + 1 :]
    del sys.argv[place:]
    for fd in behind:
        # A program that the code above `run` starts inherits none of them.
        if int(fd) >= 0:
            os.set_inheritable(int(fd), False)
    return behind


WORKER_ARGUMENTS: Final = _take()

# As they were given: a program may change its list of them.
_arguments: Final = sys.argv[1:]


def command(fds: Sequence[int]) -> list[str]:
    """The command that starts this program as a worker with these descriptors."""
    return [sys.executable, *_arguments, MARK, *map(str, fds)]
