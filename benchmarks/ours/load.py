"""A load: one worker's messages to another at an even rate, each checked there.

Law: only public names of `asgi_ipc`. Messages are due by the clock, and a late timer is made up for, so that
the rate is the one ordered.
"""

from __future__ import annotations

import asyncio
from typing import Final

from asgi_ipc import ipc

# As often as timers are exact; at 10,000 a second about ten messages fall due each time.
TICK_S: Final = 0.001


class Load:
    """One worker's part: what it sends, and what one other sends to it.

    Attributes:
        sent: messages so far.
        done: everything that the other one says to have sent is here.
        troubles: what was lost or out of order here.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.done = asyncio.Event()
        self.troubles: dict[str, int] = {}
        self._ended = False
        self._taken = 0
        ipc.receive({"load-message": self._take, "load-sent": self._check})

    def open(self) -> None:
        """Begin again."""
        self.sent = self._taken = 0
        self.done.clear()
        self.troubles = {}
        self._ended = False

    def end(self) -> None:
        """Have `send` return."""
        self._ended = True

    async def send(self, pid: int, per_s: int) -> None:
        """Send numbers to that worker until `end`, and then how many they were."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        while not self._ended:
            due = int((loop.time() - started_s) * per_s)
            for number in range(self.sent, due):
                ipc.send_nowait(pid, "load-message", number)
            self.sent = max(due, self.sent)
            await asyncio.sleep(TICK_S)
        await ipc.send(pid, "load-sent", self.sent)

    def _take(self, number: int) -> None:
        if number != self._taken:
            self.troubles["load out of order"] = 1
        self._taken = number + 1

    def _check(self, sent: int) -> None:
        if sent != self._taken:
            self.troubles["load lost"] = sent - self._taken
        self.done.set()
