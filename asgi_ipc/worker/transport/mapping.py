"""Mapping: the only mmap calls, of this worker's arena and of the others'.

Law: one's own arena is read and written, anybody else's is only read. A
mapping that can't be had is no error: then what would be in it travels in
packets. A child that the app forks unmaps them, but for what was being read in
that moment.
"""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import suppress

from asgi_ipc.wire.arena import ARENA_BYTES
from asgi_ipc.worker import descriptors
from asgi_ipc.worker.logs import logger


class Mapping:
    """Owns one mapped arena; `memory` is what is in it. The descriptor is closed in any case.

    Raises OSError if it can't be mapped.
    """

    def __init__(self, fd: int, *, writable: bool) -> None:
        try:
            # Before 3.13 an mmap keeps a duplicate of its descriptor.
            untracked = {"trackfd": False} if sys.version_info >= (3, 13) else {}
            protection = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
            self._mapped = mmap.mmap(fd, ARENA_BYTES, mmap.MAP_SHARED, protection, **untracked)
        finally:
            descriptors.close(fd)
        self.memory = memoryview(self._mapped)
        descriptors.register(self)

    def close(self) -> None:
        """Unmap it."""
        self.memory.release()
        with descriptors.changing_hands:
            self._mapped.close()

    def abandon(self) -> None:
        """In a forked child: this memory is its parent's."""
        # A fork on another thread may have come while something was being read. Then it stays mapped there,
        # where nobody knows of it.
        with suppress(BufferError):
            self.memory.release()
            self._mapped.close()

    def give_back(self, unused: range) -> None:
        """Free the memory of these bytes, from the start of a page on; they read as zeros from then on."""
        self._mapped.madvise(mmap.MADV_REMOVE, unused.start, -(-len(unused) // mmap.PAGESIZE) * mmap.PAGESIZE)


def map_arena(fd: int, *, writable: bool, whose: int) -> Mapping | None:
    """The arena behind a descriptor, or None, which is logged. -1: there is none."""
    if fd < 0:
        return None
    try:
        return Mapping(fd, writable=writable)
    except OSError as error:
        logger.warning(
            "worker [%d] can't map the shared memory of worker [%d] (%s): large messages travel in packets",
            os.getpid(),
            whose,
            error,
        )
        return None
