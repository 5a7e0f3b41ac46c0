"""Waiting: what a sending verb waits for: room in outboxes, or the others' turn.

Law: only waits. A message that waits is accepted or withdrawn, whole, when its wait ends, however that ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import TypeAlias

from asgi_ipc.errors import DeliveryError, UnknownWorkerError, WorkerGoneError
from asgi_ipc.wire.message import Encoded
from asgi_ipc.worker.transport.outgoing import Outgoing
from asgi_ipc.worker.transport.peer import Peer
from asgi_ipc.worker.transport.room import Waiter
from asgi_ipc.worker.transport.sender import MESSAGES_PER_TURN, Sender

# The pids that took a message at once, and what brings those that took it later.
Sent: TypeAlias = tuple[tuple[int, ...], Awaitable[tuple[int, ...]] | None]


def let_others_run(sender: Sender) -> Awaitable[tuple[()]] | None:
    """Return what lets others have a turn, once this one has sent enough.

    A verb yields behind its message, since messages are accepted in the order of the calls.
    """
    return _yield() if sender.turn_messages >= MESSAGES_PER_TURN else None


async def _yield() -> tuple[()]:
    await asyncio.sleep(0)
    return ()


async def wait_for_room(outgoing: Outgoing, peer: Peer, message: Encoded, timeout: float | None) -> None:
    """Wait for room in one outbox."""
    await outgoing.accepted(outgoing.queue(peer, message), timeout)


async def wait_for_rooms(
    outgoing: Outgoing, full: Sequence[Peer], message: Encoded, timeout: float | None
) -> tuple[int, ...]:
    """Wait for room in several outboxes at once; the pids that took the message."""
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
    return tuple(late)


async def send_to_any(outgoing: Outgoing, message: Encoded, timeout: float | None) -> int:
    """Send one message to the least busy member; its pid."""
    deadline = None if timeout is None else outgoing.loop.time() + timeout
    while True:
        peer = outgoing.least_busy()
        # One that goes meanwhile is not among them the next time.
        with suppress(UnknownWorkerError, WorkerGoneError):
            if not outgoing.post(peer, message):
                left_s = None if deadline is None else max(deadline - outgoing.loop.time(), 0.0)
                await wait_for_room(outgoing, peer, message, left_s)
            break
    rest = let_others_run(outgoing.sender)
    if rest is not None:
        await rest
    return peer.worker.pid
