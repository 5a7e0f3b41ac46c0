"""Mapping: the only mmap calls, of this worker's arena and of the others'.

Law: a worker reads and writes its own arena, and only reads the others'. An
arena that can't be mapped is no error: large messages travel in packets then.
A child that the app forks unmaps them, except for the one that a thread was
reading at that moment.
"""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import suppress

from asgi_ipc.logs import logger
from asgi_ipc.wire.arena import ARENA_BYTES
from asgi_ipc.worker import descriptors
from asgi_ipc.worker.descriptors import Descriptor


class Mapping:
    """Owns one mapped arena. `memory` is its content; it is empty where nothing is mapped."""

    def __init__(self, mapped: mmap.mmap | None) -> None:
        self._mapped = mapped
        self.memory = memoryview(mapped if mapped is not None else b"")
        descriptors.register(self)

    def close(self) -> None:
        """Unmap it."""
        self.memory.release()
        if self._mapped is not None:
            with descriptors.changing_hands:
                self._mapped.close()

    def abandon(self) -> None:
        """In a forked child: this memory belongs to the parent."""
        # A thread of the parent may have been reading it when another one forked. Then it stays mapped in the
        # child, where nothing refers to it.
        with suppress(BufferError):
            self.close()

    def give_back(self, unused: range) -> None:
        """Free the memory of these bytes, from the start of a page on; they read as zeros from then on."""
        if unused and self._mapped is not None:
            length = -(-len(unused) // mmap.PAGESIZE) * mmap.PAGESIZE
            self._mapped.madvise(mmap.MADV_REMOVE, unused.start, length)


def map_arena(arena: Descriptor, *, writable: bool, whose: int) -> Mapping:
    """Map the arena of worker `whose` and close the descriptor. A failure is logged."""
    mapped = None
    try:
        if arena.fd >= 0:
            # Before 3.13 an mmap keeps a duplicate of its descriptor.
            untracked = {"trackfd": False} if sys.version_info >= (3, 13) else {}
            protection = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
            mapped = mmap.mmap(arena.fd, ARENA_BYTES, mmap.MAP_SHARED, protection, **untracked)
    except OSError as error:
        logger.warning(
            "worker [%d] can't map the shared memory of worker [%d] (%s): large messages travel in packets",
            os.getpid(),
            whose,
            error,
        )
    finally:
        arena.close()
    return Mapping(mapped)
