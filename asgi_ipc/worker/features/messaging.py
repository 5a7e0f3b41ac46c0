"""Messaging: the verbs that send a message, and their waits for room.

Law: nothing is sent before everything is checked. The turn budget, the check
of the thread and loop, and the wait for room stand here once, for all verbs.
A sending verb is a plain function that returns what its caller must await, or
None: a coroutine for each message would cost a fifth of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from threading import get_ident
from typing import Final

from asgi_ipc.errors import (
    DeliveryError,
    NotRunningError,
    UnknownWorkerError,
    WorkerGoneError,
    WouldBlockError,
)
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import Data, Encoded
from asgi_ipc.worker.transport.outgoing import Outgoing
from asgi_ipc.worker.transport.peers import Members, Peer
from asgi_ipc.worker.transport.room import Waiter

# An awaited verb yields to the loop once a turn has sent so much: a task that
# sends in a loop would keep all others waiting.
MESSAGES_PER_TURN: Final = 256
BYTES_PER_TURN: Final = 1024 * 1024

# One more receiver of a broadcast costs about this fraction of a message:
# yielding too often leaves its packets almost empty.
RECEIVERS_AS_ONE_MESSAGE: Final = 8


def check_timeout(timeout: float | None) -> None:
    """Raise ValueError unless `timeout` is a number of seconds from 0 on, or None."""
    # NaN is not >= 0, either.
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"a timeout is a number of seconds from 0 on, or None; not {timeout!r}")


class Messaging:
    """Sends messages between `open` and `close`.

    The `_nowait` verbs work on any thread of the worker, the others on the event loop's.
    """

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        # The event loop's thread; 0 while closed, which is no thread's.
        self._thread = 0

    def open(self) -> None:
        """Accept messages."""
        self._thread = self._outgoing.thread

    def close(self) -> None:
        """Refuse messages."""
        self._thread = 0

    @property
    def is_open(self) -> bool:
        """Return whether messages are accepted."""
        return self._thread != 0

    # --- verbs

    def send(self, to: int | Worker, name: str, data: Data, timeout: float | None) -> Awaitable[None] | None:
        """Send one message; see `IPC.send`."""
        if self.must_check(timeout):
            return self._send_checked(to, name, data, timeout)
        outgoing = self._outgoing
        refused = outgoing.send(to, name, data)
        if refused is not None:
            return self._accepted(*refused, timeout)
        outgoing.turn_messages += 1
        if outgoing.turn_messages >= MESSAGES_PER_TURN or outgoing.turn_bytes >= BYTES_PER_TURN:
            return self.rest()
        return None

    async def _send_checked(self, to: int | Worker, name: str, data: Data, timeout: float | None) -> None:
        self.check(timeout)
        refused = self._outgoing.send(to, name, data)
        if refused is not None:
            await self._accepted(*refused, timeout)
        self._outgoing.turn_messages += 1
        await self.rest()

    def send_nowait(self, to: int | Worker, name: str, data: Data) -> None:
        """Send one message, or raise WouldBlockError."""
        self.check_nowait()
        refused = self._outgoing.send(to, name, data)
        if refused is not None:
            raise WouldBlockError(refused.peer.worker.pid)

    async def broadcast(
        self, name: str, data: Data, *, include_self: bool, timeout: float | None
    ) -> tuple[int, ...]:
        """Send one message to all members; the pids that took it."""
        if self.must_check(timeout):
            self.check(timeout)
        message = self._outgoing.pack(name, data)
        members = self._outgoing.peers.members(include_self=include_self)
        took, full = self.post_to_each(members, message)
        if full:
            return await self.all_of(took, full, message, timeout)
        await self.rest()
        return tuple(took)

    def broadcast_nowait(self, name: str, data: Data, *, include_self: bool) -> tuple[int, ...]:
        """Send one message to all members, or raise WouldBlockError and send it to none."""
        self.check_nowait()
        message = self._outgoing.pack(name, data)
        return tuple(
            self._outgoing.post_to_all(self._outgoing.peers.members(include_self=include_self), message)
        )

    async def send_any(self, name: str, data: Data, *, timeout: float | None) -> int:
        """Send one message to the least busy member; its pid."""
        self.check(timeout)
        outgoing = self._outgoing
        message = outgoing.pack(name, data)
        deadline = None if timeout is None else outgoing.loop.time() + timeout
        while True:
            peer = outgoing.least_busy()
            # One that goes meanwhile is not among them the next time.
            with suppress(UnknownWorkerError, WorkerGoneError):
                if not outgoing.post(peer, message):
                    left_s = None if deadline is None else max(deadline - outgoing.loop.time(), 0.0)
                    await self._accepted(peer, message, left_s)
                outgoing.turn_messages += 1
                await self.rest()
                return peer.worker.pid

    def post_to_each(self, members: Members, message: Encoded) -> tuple[Sequence[int], Sequence[Peer]]:
        """Put a message into every outbox with room; the pids of those, and the peers that had none."""
        took, full = self._outgoing.post_to_each(members, message)
        self._outgoing.turn_messages += 1 + len(took) // RECEIVERS_AS_ONE_MESSAGE
        return took, full

    # --- checks

    def must_check(self, timeout: float | None) -> bool:
        """Whether there is something to check before a verb goes on: quick, since it seldom is so.

        The first of a turn checks the loop: on one thread no other loop can run before the turn ends.
        """
        outgoing = self._outgoing
        return (
            not outgoing.turn_messages
            or get_ident() != self._thread
            or (timeout is not None and not timeout >= 0)
        )

    def check(self, timeout: float | None) -> None:
        """Check a verb's timeout and its loop. Raises ValueError or NotRunningError."""
        self.check_here()
        check_timeout(timeout)

    async def rest(self) -> None:
        """Let others have a turn if this one has sent enough.

        A verb rests behind its message, since messages are accepted in the order of the calls.
        """
        outgoing = self._outgoing
        if outgoing.turn_messages >= MESSAGES_PER_TURN or outgoing.turn_bytes >= BYTES_PER_TURN:
            await asyncio.sleep(0)

    def check_here(self) -> None:
        """Raise NotRunningError unless messages are accepted, and from the event loop that this runs on."""
        self.check_nowait()
        if get_ident() != self._thread or asyncio.get_running_loop() is not self._outgoing.loop:
            raise NotRunningError(
                "ipc.lifespan was entered on another event loop; in a thread use ipc.blocking, "
                "a _nowait verb, or asyncio.run_coroutine_threadsafe()"
            )

    def check_nowait(self) -> None:
        """Raise NotRunningError unless messages are accepted. From any thread."""
        if not self._thread:
            raise NotRunningError("ipc.lifespan has not been entered yet, or is ending")

    # --- waiting

    async def _accepted(self, peer: Peer, message: Encoded, timeout: float | None) -> None:
        """Wait for room in one outbox."""
        await self._outgoing.accepted(self._outgoing.queue(peer, message), timeout)

    async def all_of(
        self, took: Sequence[int], full: Sequence[Peer], message: Encoded, timeout: float | None
    ) -> tuple[int, ...]:
        """Wait for room in the outboxes that were full; the pids that took the message, now or before."""
        outgoing = self._outgoing
        waiters: list[Waiter] = []
        for peer in full:
            # A member that leaves in this very moment does not get it.
            with suppress(UnknownWorkerError):
                waiters.append(outgoing.queue(peer, message))
        waits = [outgoing.accepted(waiter, timeout) for waiter in waiters]
        try:
            results = await asyncio.gather(*waits, return_exceptions=True)
        finally:
            # A wait that was cancelled before it began did not withdraw its message.
            for waiter in waiters:
                outgoing.withdraw(waiter)
        late = []
        for waiter, result in zip(waiters, results, strict=True):
            if result is None:
                late.append(waiter.peer.worker.pid)
            elif not isinstance(result, DeliveryError):
                raise result
        return (*took, *late)
