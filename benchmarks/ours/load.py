"""The load under which round trips are timed: another worker's messages at an even rate, checked too.

Law: only public names of `asgi_ipc`. Messages are due by the clock; a timer
that is late is made up for, so that the rate is what the case says.
"""

from __future__ import annotations

import asyncio
from typing import Final

from asgi_ipc import ipc
from benchmarks.control import Order

# As often as timers are exact; at 10,000 a second about ten messages fall due each time.
TICK_S: Final = 0.001


class Answerer:
    """What the loaded worker knows of its load, and the loading one of its end.

    Attributes:
        done: everything that the loading worker says to have sent is here.
        ending: the round trips are over.
    """

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.ending = asyncio.Event()
        self.troubles: dict[str, int] = {}
        self._taken = 0

    def open(self, order: Order, index: int) -> None:
        """Begin anew."""
        self.done.clear()
        self.ending.clear()
        self.troubles = {}
        self._taken = 0
        if order.load_per_s:
            ipc.receive({"load": self._take, "load-sent": self._check, "load-ends": self._end})

    def _take(self, number: int) -> None:
        if number != self._taken:
            self.troubles["load out of order"] = 1
        self._taken = number + 1

    def _check(self, sent: int) -> None:
        if sent != self._taken:
            self.troubles["load lost"] = sent - self._taken
        self.done.set()

    def _end(self, _: bytes) -> None:
        self.ending.set()


async def load(order: Order, own: Answerer) -> None:
    """Send numbers to the second party until the first one has its answers."""
    loop = asyncio.get_running_loop()
    pid, started_s, sent = order.pids[1], loop.time(), 0
    while not own.ending.is_set():
        due = int((loop.time() - started_s) * order.load_per_s)
        for number in range(sent, due):
            ipc.send_nowait(pid, "load", number)
        sent = due
        await asyncio.sleep(TICK_S)
    await ipc.send(pid, "load-sent", sent)
