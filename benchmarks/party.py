"""Parties on an event loop: the common part of this package and of most peers.

Law: the timed code is the subject's. This file makes payloads and the inbox, starts the clock, and waits for
the last message.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import structs

from benchmarks.control import RUN_TIMEOUT_S, Facts, Order
from benchmarks.payloads import Inbox, payloads

# A sender that never waits gives the loop its turn after so many messages, as `await ipc.send` does by
# itself. The number is the same for every subject.
MESSAGES_PER_TURN: Final = 256


def turns(messages: Iterable[bytes], length: int = MESSAGES_PER_TURN) -> Iterator[Iterable[bytes]]:
    """Cut into pieces of so many, lazily: each piece must be used up before the next is taken."""
    sequence = iter(messages)
    for first in sequence:
        yield itertools.chain((first,), itertools.islice(sequence, length - 1))


def facts_of(inbox: Inbox, cpu_from_ns: int, started_ns: int = 0) -> Facts:
    """The facts of a run that has ended; it began at `started_ns`, with so much processor time used."""
    return Facts(
        started_ns=started_ns,
        ended_ns=inbox.ended_ns,
        cpu_from_ns=cpu_from_ns,
        taken=inbox.taken,
        wrong=inbox.wrong,
        wrong_at=inbox.wrong_at,
    )


class LoopParty(ABC):
    """A party whose messages come to a handler on its event loop."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._done = asyncio.Event()
        self.inbox = Inbox([], 0, 0, self._done.set)

    async def prepare(self, order: Order) -> None:
        """Make the inbox; then the subject gets ready."""
        if self.inbox.wrong:
            raise RuntimeError(f"{self.inbox.wrong} messages came behind the last one of a run")
        done = self._done = asyncio.Event()
        self.inbox = Inbox(order.sources(self.index), order.count, order.size_bytes, done.set)
        await self.open(order)
        gc.collect()

    async def perform(self, order: Order) -> Facts:
        """Send if this is a sender, and wait for what must come."""
        started_ns, times_ns = 0, []
        cpu_from_ns = time.process_time_ns()
        try:
            async with asyncio.timeout(RUN_TIMEOUT_S):
                if self.index in order.senders:
                    messages = payloads(self.index, order.count, order.size_bytes)
                    gc.collect()
                    cpu_from_ns = time.process_time_ns()
                    started_ns = time.monotonic_ns()
                    if order.pattern == "ask":
                        times_ns = await self.ask(order, messages)
                    else:
                        await self.send(order, messages)
                await self._done.wait()
        except TimeoutError:
            pass  # the counts tell
        return structs.replace(facts_of(self.inbox, cpu_from_ns, started_ns), times_ns=times_ns)

    @abstractmethod
    async def open(self, order: Order) -> None:
        """Have every message that comes from now on given to `inbox.take`, or answered."""

    @abstractmethod
    async def send(self, order: Order, messages: Iterable[bytes]) -> None:
        """Send all of them to all receivers, as fast as the subject can."""

    @abstractmethod
    async def ask(self, order: Order, messages: Iterable[bytes]) -> list[int]:
        """Ask with each of them, the next one when the same has come back; how long each took, in ns."""


def check_answer(asked: object, answer: object) -> None:
    """Raise RuntimeError unless what came back is what was sent."""
    if answer != asked:
        raise RuntimeError("an answer is not what was sent")
