"""Running: whether an IPC takes part, and where its verbs put what they send.

Law: what all verbs have in common, and no verb. `_sending` is looked at by
each of them first; what is slow, or goes wrong, is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from threading import get_ident
from typing import Final

from asgi_ipc.errors import DeliveryError, NotRunningError, OutsideHandlerError, UnknownWorkerError
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import Encoded
from asgi_ipc.worker.acting import member_for
from asgi_ipc.worker.dispatch.delivery import current_delivery
from asgi_ipc.worker.dispatch.registering import Registering
from asgi_ipc.worker.dispatch.registry import Registry
from asgi_ipc.worker.endpoint import Endpoint
from asgi_ipc.worker.stats import Stats
from asgi_ipc.worker.transport.outgoing import Outgoing
from asgi_ipc.worker.transport.peers import Peer

# `await send` yields to the loop after so much in one turn, or a loop that
# sends would keep everyone else waiting.
YIELD_AFTER_MESSAGES: Final = 256
YIELD_AFTER_BYTES: Final = 1024 * 1024

# Each further receiver of a broadcast costs about this fraction of a message:
# yielding too often leaves its packets almost empty.
RECEIVERS_AS_ONE_MESSAGE: Final = 8


class Running(Registering):
    """An IPC without its verbs."""

    def __init__(self) -> None:
        super().__init__()
        self._endpoint: Endpoint | None = None
        self._last_stats: Stats | None = None
        # Where verbs put messages: None unless they are accepted; and replies, which are while this leaves.
        self._sending: Outgoing | None = None
        self._replying: Outgoing | None = None

    # --- where

    def _entered(self) -> Endpoint:
        endpoint = self._endpoint
        if endpoint is None:
            member = member_for(self)
            if member is not None:
                return member._entered()
            raise NotRunningError
        return endpoint

    @property
    def _registry(self) -> Registry:
        member = member_for(self) if self._endpoint is None else None
        return self._registered if member is None else member._registered

    def _is_played_by(self, other: object) -> bool:
        """Whether that is the member that stands for this one here."""
        return self._endpoint is None and other is member_for(self)

    def _elsewhere(self, *, replying: bool = False) -> Outgoing:
        """Where the member that stands for this one puts messages. Raises NotRunningError if nobody does."""
        member = member_for(self) if self._endpoint is None else None
        if member is None:
            raise self._not_running()
        outgoing = member._replying if replying else member._sending
        return member._elsewhere() if outgoing is None else outgoing

    def _active(self) -> Endpoint:
        """Where an awaited verb asks for more than to send. Raises as `_here`."""
        self._here(self._sending, has_nowait=False)
        return self._entered()

    def _not_running(self) -> NotRunningError:
        if self._endpoint is None:
            return NotRunningError()
        return NotRunningError("ipc.lifespan has not been entered yet, or is ending")

    def _here(
        self, outgoing: Outgoing | None, *, replying: bool = False, has_nowait: bool = True
    ) -> Outgoing:
        """Where an awaited verb puts messages. Raises NotRunningError if nowhere, or on another loop.

        Once a turn is enough on one thread, where another loop can't run meanwhile.
        """
        if outgoing is None:
            outgoing = self._elsewhere(replying=replying)
        if get_ident() != outgoing.thread or asyncio.get_running_loop() is not outgoing.loop:
            others = "the _nowait verbs" if has_nowait else "asyncio.run_coroutine_threadsafe()"
            instead = f"in a thread use ipc.blocking or {others}"
            raise NotRunningError(f"ipc.lifespan was entered on another event loop; {instead}")
        return outgoing

    def _addressee(self) -> Worker:
        delivery = current_delivery.get()
        if delivery is None or (delivery.ipc is not self and not self._is_played_by(delivery.ipc)):
            raise OutsideHandlerError
        return delivery.sender

    # --- waiting

    async def _accepted_by(
        self, outgoing: Outgoing, peer: Peer, message: Encoded, timeout: float | None
    ) -> None:
        await outgoing.accepted(outgoing.queue(peer, message), timeout)

    async def _accepted_by_each(
        self, outgoing: Outgoing, full: Sequence[Peer], message: Encoded, timeout: float | None
    ) -> list[int]:
        """Wait for room in all these outboxes at once; the pids of those who made it."""
        waiters = []
        for peer in full:
            # A member that leaves in this very moment does not get it.
            with suppress(UnknownWorkerError):
                waiters.append(outgoing.queue(peer, message))
        waits = [outgoing.accepted(waiter, timeout) for waiter in waiters]
        try:
            results = await asyncio.gather(*waits, return_exceptions=True)
        finally:
            # A wait that was cancelled before it began has not done so itself.
            for waiter in waiters:
                outgoing.withdraw(waiter)
        took = []
        for waiter, result in zip(waiters, results, strict=True):
            if result is None:
                took.append(waiter.peer.worker.pid)
            elif not isinstance(result, DeliveryError):
                raise result
        return took

    async def _rest_of_each(
        self,
        outgoing: Outgoing,
        took: Sequence[int],
        full: Sequence[Peer],
        message: Encoded,
        timeout: float | None,
    ) -> tuple[int, ...]:
        """What a message to several still has to wait for: room in outboxes that are full, or a turn."""
        if full:
            return (*took, *await self._accepted_by_each(outgoing, full, message, timeout))
        await asyncio.sleep(0)
        return tuple(took)


def no_timeout(timeout: float) -> ValueError:
    """To be raised."""
    # For what is not `>= 0`, which NaN is not either.
    return ValueError(f"a timeout is a number of seconds from 0 on, or None; not {timeout!r}")
