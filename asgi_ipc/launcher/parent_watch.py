"""The starter: a process that runs a server for a while, such as a test, and must not leave it behind.

Law: it holds the write end of a pipe, and says nothing; the kernel closes that when it ends, however it
does. So the end of file is all that is listened for. The descriptor is the launcher's alone: no worker
inherits it, and the starter's end is nobody's here.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from asgi_ipc.errors import LauncherError

READ_BYTES: Final = 4096


def take(fd: int) -> None:
    """Keep the descriptor from every process that is started here. Raises LauncherError if it is none."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError as error:
        raise LauncherError(f"stop_at_eof is an open descriptor, not {fd}: {error}") from error
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        # epoll takes no files (epoll_ctl(2), EPERM), and they have no end that could come.
        raise LauncherError(f"stop_at_eof is the descriptor of a pipe or a socket; {fd} is none")
    os.set_inheritable(fd, False)


def has_gone(fd: int) -> bool:
    """Whether what can be read there is its end."""
    try:
        return not os.read(fd, READ_BYTES)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
