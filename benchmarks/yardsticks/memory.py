"""Y5: 1 MiB copied into and out of shared memory by two processes.

Law: the copies, one byte through a pipe for each message and each free place, and what every subject has: the
payloads that are joined as they are sent, and the handler. Four messages are under way at most. The receiver
lets go of a message before it copies the next: two of them alive would have the C library return and fetch
memory all the time, and that is what would be measured.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Final

from benchmarks.control import Facts, Order
from benchmarks.party import facts_of
from benchmarks.payloads import Inbox, payloads
from benchmarks.yardsticks.pipe import open_end

# 4 MiB of 1 MiB each.
PLACES: Final = 4


class Memory:
    """The first party copies in, the second one out."""

    def __init__(self, index: int, folder: Path) -> None:
        self._is_sender = index == 0
        self._folder = folder
        self._memory: mmap.mmap | None = None

    async def prepare(self, order: Order) -> None:
        """Open pipes and memory, once."""
        if self._memory is None:
            places, free = self._folder / "places", self._folder / "free"
            if self._is_sender:
                self._free = open_end(free, os.O_RDONLY)
                self._filled = open_end(places, os.O_WRONLY)
            else:
                self._filled = open_end(places, os.O_RDONLY)
                self._free = open_end(free, os.O_WRONLY)
            self._memory = self._shared(order)
        self._inbox = Inbox(order.sources(1 - self._is_sender), order.count, order.size_bytes, lambda: None)

    def _shared(self, order: Order) -> mmap.mmap:
        """Anonymous shared memory of the sender, which says its descriptor; the receiver opens the same."""
        if self._is_sender:
            fd = os.memfd_create("Y5")
            os.ftruncate(fd, PLACES * order.size_bytes)
            os.write(self._filled, fd.to_bytes(4, "little"))
        else:
            number = int.from_bytes(os.read(self._filled, 4), "little")
            fd = os.open(f"/proc/{order.pids[0]}/fd/{number}", os.O_RDWR)
        return mmap.mmap(fd, PLACES * order.size_bytes)

    async def perform(self, order: Order) -> Facts:
        """Copy in, or out."""
        assert self._memory is not None
        with memoryview(self._memory) as view:
            return self._send(order, view) if self._is_sender else self._receive(order, view)

    def _send(self, order: Order, view: memoryview) -> Facts:
        size_bytes, read, write = order.size_bytes, os.read, os.write
        messages = payloads(0, order.count, size_bytes)
        started_ns, cpu_from_ns = time.monotonic_ns(), time.process_time_ns()
        for number, data in enumerate(messages):
            if number >= PLACES:
                read(self._free, 1)
            first = number % PLACES * size_bytes
            view[first : first + size_bytes] = data
            write(self._filled, b"+")
        for _ in range(min(PLACES, order.count)):
            read(self._free, 1)
        return Facts(started_ns=started_ns, cpu_from_ns=cpu_from_ns)

    def _receive(self, order: Order, view: memoryview) -> Facts:
        size_bytes, read, write, take = order.size_bytes, os.read, os.write, self._inbox.take
        cpu_from_ns = time.process_time_ns()
        for number in range(order.count):
            read(self._filled, 1)
            first = number % PLACES * size_bytes
            data = bytes(view[first : first + size_bytes])
            write(self._free, b"-")
            take(data)
            del data
        return facts_of(self._inbox, cpu_from_ns)
