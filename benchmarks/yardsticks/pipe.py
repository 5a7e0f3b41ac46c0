"""Y1 and Y2: plain processes and a pipe, without an event loop.

Law: one system call for each message in Y1, and nothing but system calls between the first and the last; the
bytes are compared after the clock has stopped.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from benchmarks.control import Facts, Order
from benchmarks.payloads import payloads

# A write of at most PIPE_BUF bytes is one page of the pipe.
WRITE_BYTES: Final = 4096
READ_BYTES: Final = 64 * 1024


class _PipeEnd:
    """The first party writes to a pipe, the second one reads from it. The pipe has a name, to be found by."""

    def __init__(self, index: int, folder: Path) -> None:
        self._is_writer = index == 0
        self._path = folder / "pipe"
        self._fd = -1

    async def prepare(self, order: Order) -> None:
        """Open it, once."""
        if self._fd < 0:
            self._fd = open_end(self._path, os.O_WRONLY if self._is_writer else os.O_RDONLY)

    async def perform(self, order: Order) -> Facts:
        """Write, or read."""
        return self._write(order) if self._is_writer else self._read(order)

    def _write(self, order: Order) -> Facts:
        messages = tuple(payloads(0, order.count, order.size_bytes))
        write, fd = os.write, self._fd
        started_ns, cpu_from_ns = time.monotonic_ns(), time.process_time_ns()
        for message in messages:
            write(fd, message)
        return Facts(started_ns=started_ns, cpu_from_ns=cpu_from_ns)

    def _read(self, order: Order) -> Facts:
        raise NotImplementedError


class OneByOne(_PipeEnd):
    """Y1."""

    def _read(self, order: Order) -> Facts:
        read, fd, size_bytes = os.read, self._fd, order.size_bytes
        cpu_from_ns = time.process_time_ns()
        messages = [read(fd, size_bytes) for _ in range(order.count)]
        ended_ns = time.monotonic_ns()
        expected = payloads(0, order.count, size_bytes)
        wrong = sum(message != other for message, other in zip(messages, expected, strict=True))
        return Facts(ended_ns=ended_ns, cpu_from_ns=cpu_from_ns, taken=order.count, wrong=wrong)


class Bandwidth(_PipeEnd):
    """Y2: the same block all the time, into the same buffer: how fast bytes move, and no more."""

    def _write(self, order: Order) -> Facts:
        block = bytes(WRITE_BYTES)
        write, fd = os.write, self._fd
        started_ns, cpu_from_ns = time.monotonic_ns(), time.process_time_ns()
        for _ in range(order.count):
            write(fd, block)
        return Facts(started_ns=started_ns, cpu_from_ns=cpu_from_ns)

    def _read(self, order: Order) -> Facts:
        read_into, fd, buffers = os.readv, self._fd, [bytearray(READ_BYTES)]
        left, cpu_from_ns = order.count * WRITE_BYTES, time.process_time_ns()
        while left > 0:
            left -= read_into(fd, buffers)
        taken = order.count - left // WRITE_BYTES
        return Facts(ended_ns=time.monotonic_ns(), cpu_from_ns=cpu_from_ns, taken=taken)


def open_end(path: Path, mode: int) -> int:
    """Open one end of the pipe with that name, blocking; the first process makes it.

    A writer waits for the reader; a reader waits for no writer.
    """
    with contextlib.suppress(FileExistsError):  # the other one was first
        os.mkfifo(path)
    fd = os.open(path, mode | (os.O_NONBLOCK if mode == os.O_RDONLY else 0))
    os.set_blocking(fd, True)
    return fd
