"""Y3: ping-pong over two pipes, each read by a callback of the event loop.

Law: as short as a round trip on that loop can be. The answer's callback
writes the next question; there is no task and no future in between.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

from benchmarks.control import RUN_TIMEOUT_S, Facts, Order
from benchmarks.payloads import payloads
from benchmarks.yardsticks.pipe import open_end

READ_BYTES: Final = 4096


class PingPong:
    """The first party asks, the second one sends back."""

    def __init__(self, index: int, folder: Path) -> None:
        self._asks = index == 0
        self._paths = [folder / "questions", folder / "answers"]
        self._fds: list[int] = []

    async def prepare(self, order: Order) -> None:
        """Open the pipes, once."""
        if self._fds:
            return
        theirs, ours = self._paths if self._asks else reversed(self._paths)
        read_fd = open_end(ours, os.O_RDONLY)
        write_fd = open_end(theirs, os.O_WRONLY)
        os.set_blocking(read_fd, False)
        self._fds = [read_fd, write_fd]
        if not self._asks:
            read, write = os.read, os.write

            def send_back() -> None:
                write(write_fd, read(read_fd, READ_BYTES))

            asyncio.get_running_loop().add_reader(read_fd, send_back)

    async def perform(self, order: Order) -> Facts:
        """Ask, or leave it to the callback."""
        return Facts(times_ns=await self._ask(order)) if self._asks else Facts()

    async def _ask(self, order: Order) -> list[int]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        read_fd, write_fd = self._fds
        questions = iter(payloads(0, order.count, order.size_bytes))
        asked = next(questions)
        times_ns: list[int] = []
        started_ns = time.monotonic_ns()

        def answered() -> None:
            nonlocal asked, started_ns
            answer = os.read(read_fd, READ_BYTES)
            times_ns.append(time.monotonic_ns() - started_ns)
            if answer != asked:
                done.set_exception(RuntimeError("an answer is not what was sent"))
                return
            try:
                asked = next(questions)
            except StopIteration:
                done.set_result(None)
                return
            started_ns = time.monotonic_ns()
            os.write(write_fd, asked)

        loop.add_reader(read_fd, answered)
        try:
            os.write(write_fd, asked)
            async with asyncio.timeout(RUN_TIMEOUT_S):
                await done
        finally:
            loop.remove_reader(read_fd)
        return times_ns
