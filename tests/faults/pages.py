"""Pages: a process that uses up its user's pages for pipes, and holds them until its input ends.

Law: it runs as the owner of the pages, and prints in one line of JSON the pages that it holds and the size of
a new pipe.

    python -m tests.faults.pages
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.faults.ordinary import User
from tests.serving import helping

# The largest that a user may ask for, unless the system has another maximum (pipe(7)).
LARGE_BYTES: Final = 1024 * 1024

# A new pipe has two pages when the user's pages are used up (pipe(7)).
SMALL_BYTES: Final = 2 * os.sysconf("SC_PAGE_SIZE")

# More than any system gives one user (64 MiB by default); then there is no limit to reach.
MOST_PIPES: Final = 400

# Pipes of two pages may be had beyond the limit. So many more, and what a server gives back when it
# replaces its workers does not bring its user below the limit again.
BEYOND: Final = 100


def hold() -> dict[str, int]:
    """Take pages until new pipes are small; what is held then."""
    held = 0
    size = LARGE_BYTES
    pipes = 0
    given = 0
    small = 0
    while small < BEYOND and pipes < MOST_PIPES:
        fd = os.pipe()[1]
        pipes += 1
        if given != SMALL_BYTES:
            size = _enlarge(fd, size)
        given = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
        small += given == SMALL_BYTES
        held += given
    return {"pipes": pipes, "bytes": held, "new_pipe_bytes": given}


def _enlarge(fd: int, size: int) -> int:
    """Ask for that size, or for less if that is refused; what to ask for next."""
    while size > SMALL_BYTES:
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
        except PermissionError:
            size //= 2
        else:
            break
    return size


@asynccontextmanager
async def pages_used_up(user: User) -> AsyncIterator[dict[str, int]]:
    """Have that user's pages for pipes used up; what is held."""
    async with helping("-m", "tests.faults.pages", under=user.under) as holder:
        yield json.loads(await holder.ask())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(hold()) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
