"""Room: messages that wait for room in an outbox, and the tasks that wait with them.

Law: in one outbox no message overtakes another, and a waiting message is accepted, refused or withdrawn as a
whole. The outboxes decide who fits; this tells the tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from asgi_ipc.errors import SendTimeoutError, UnknownWorkerError, WorkerGoneError
from asgi_ipc.wire.message import Encoded
from asgi_ipc.wire.outbox import Ticket
from asgi_ipc.worker.transport.peer import Peer


@dataclass(eq=False, slots=True, kw_only=True)
class Waiter(Ticket):
    """A message's place in the queue of an outbox; `future` ends when it is accepted or refused."""

    peer: Peer
    future: asyncio.Future[None]


class Room:
    """The queues of all outboxes. On the event loop's thread.

    Both are called under the lock: `take_handed()` before a message queues, since what other threads have
    handed over comes first, and `on_accepted(peer)` for each message.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lock: Lock,
        take_handed: Callable[[], None],
        on_accepted: Callable[[Peer], object],
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._take_handed = take_handed
        self._on_accepted = on_accepted
        # Peers with a queue, the longest congested first.
        self._congested: dict[Peer, None] = {}

    def queue(self, peer: Peer, message: Encoded) -> Waiter:
        """Put a message behind all that wait for room in that peer's outbox. Raises UnknownWorkerError."""
        waiter = Waiter(message=message, peer=peer, future=self._loop.create_future())
        with self._lock:
            if peer.leaving:
                raise UnknownWorkerError(peer.worker.pid)
            self._take_handed()
            peer.outbox.wait(waiter)
            self._congested[peer] = None
        self.promote()
        return waiter

    async def accepted(self, waiter: Waiter, timeout_s: float | None) -> None:
        """Wait until a queued message is accepted; otherwise it is withdrawn, whole.

        Raises SendTimeoutError, or WorkerGoneError when the peer goes meanwhile.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.future
        except TimeoutError:
            if not waiter.accepted:
                raise SendTimeoutError(waiter.peer.worker.pid) from None
        finally:
            self.withdraw(waiter)

    def withdraw(self, waiter: Waiter) -> None:
        """Take a queued message back unless it has been accepted or refused."""
        with self._lock:
            withdrawn = waiter.peer.outbox.withdraw(waiter)
        if withdrawn:
            # Those behind it may fit now.
            self.promote()

    def promote(self) -> None:
        """Accept the messages that fit now, for whichever peer: the budget is shared."""
        if not self._congested:
            return
        with self._lock:
            for peer in list(self._congested):
                for waiter in peer.outbox.promote():
                    self._on_accepted(peer)
                    _settle(waiter, None)
                if not peer.outbox.waiting:
                    del self._congested[peer]

    def refuse(self, peer: Peer) -> None:
        """Refuse all messages that wait for a peer that goes. Called under the lock."""
        self._congested.pop(peer, None)
        for waiter in peer.outbox.refuse():
            _settle(waiter, WorkerGoneError(peer.worker.pid))


def _settle(waiter: Ticket, error: Exception | None) -> None:
    assert isinstance(waiter, Waiter)
    if waiter.future.done():
        # The task that waited was cancelled.
        return
    if error is None:
        waiter.future.set_result(None)
    else:
        waiter.future.set_exception(error)
