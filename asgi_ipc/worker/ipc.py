"""IPC: the public object. Names and data in, errors out; everything else is the endpoint's.

Law: a verb checks, encodes, and posts; nothing is sent before everything is
checked. The `_nowait` verbs may be called from any thread of the worker, the
others on the event loop that entered the lifespan.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from threading import get_ident
from typing import Final

from asgi_ipc.errors import (
    LauncherError,
    WouldBlockError,
)
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.wire.message import Data
from asgi_ipc.wire.packet import COOKIE_BYTES
from asgi_ipc.worker import assignment, descriptors
from asgi_ipc.worker.acting import member_for
from asgi_ipc.worker.blocking import Blocking
from asgi_ipc.worker.dispatch.delivery import current_delivery
from asgi_ipc.worker.endpoint import Endpoint
from asgi_ipc.worker.features.asking import Asking
from asgi_ipc.worker.features.electing import Electing
from asgi_ipc.worker.features.publishing import Publishing
from asgi_ipc.worker.leave import ORPHAN_DRAIN_TIMEOUT_S
from asgi_ipc.worker.running import (
    RECEIVERS_AS_ONE_MESSAGE,
    YIELD_AFTER_BYTES,
    YIELD_AFTER_MESSAGES,
    no_timeout,
)
from asgi_ipc.worker.standalone import warn_if_one_of_several
from asgi_ipc.worker.stats import Stats, snapshot
from asgi_ipc.worker.wrapping import Wrapped


class IPC(Asking, Publishing, Electing):
    """Messages between the workers of one server.

    `from asgi_ipc import ipc` gives the process-wide one. Register handlers
    with `receive`, give `ipc.lifespan` to the app, and use the verbs from
    route handlers and message handlers.

    Messages from one worker to another arrive in the order in which they were
    accepted; there is no order between different senders. A verb that
    returned without an error has had its message accepted: it reaches its
    handler exactly once unless the receiver is killed or a leave times out.

    Attributes:
        blocking: the awaited verbs for `def` routes and other code in threads.
    """

    blocking: Final[Blocking]

    def __init__(self) -> None:
        super().__init__()
        self.blocking = Blocking(self)
        descriptors.register(self)

    # --- who

    @property
    def sender(self) -> int | None:
        """The pid of the worker whose message is being handled here; None outside a handler.

        It survives `await`, and tasks and threads that the handler starts.
        """
        delivery = current_delivery.get()
        if delivery is None or (delivery.ipc is not self and not self._is_played_by(delivery.ipc)):
            return None
        return delivery.sender.pid

    @property
    def pid(self) -> int:
        """This worker's pid, by which the others address it."""
        if self._endpoint is None:
            member = member_for(self)
            return os.getpid() if member is None else member.pid
        return self._endpoint.me.pid

    @property
    def worker(self) -> Worker:
        """This worker as the others know it. Raises NotRunningError outside the lifespan."""
        return self._entered().me

    @property
    def slot(self) -> int:
        """This worker's stable number, 0 to n-1. Raises NotRunningError outside the lifespan."""
        return self._entered().me.slot

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The members now, this one among them, by slot. Raises NotRunningError outside the lifespan."""
        return self._entered().outgoing.peers.workers

    def stats(self) -> Stats:
        """What this worker has sent, received and dropped so far, and what waits now.

        After the lifespan: as it was at its end, with what a leave had to drop at its deadline.

        Raises NotRunningError before the lifespan.
        """
        if self._endpoint is None:
            member = member_for(self)
            if member is not None:
                return member.stats()
            if self._last_stats is not None:
                return self._last_stats
        return snapshot(self._entered())

    # --- verbs

    async def send(
        self, pid: int | Worker, name: str, data: Data = b"", *, timeout: float | None = 5.0
    ) -> None:
        """Send one message to the worker `pid`, or to that very incarnation if it is a Worker.

        Returns once the message is accepted for that worker; its handler may
        not have run. Messages to one worker arrive in the order of sending.

        Args:
            name: 1 to 254 bytes of UTF-8, no control characters.
            data: str, bytes, numbers, None, time-zone-aware datetimes, and lists and dicts of them;
                tuples arrive as lists, bytearrays and memoryviews as bytes. Dataclasses, msgspec.Structs
                and Pydantic models arrive as dicts of their fields, or as what the handler is annotated
                with; in them, what msgspec makes text of (UUID, Decimal, Enum, date...) may be, too.
            timeout: seconds to wait for room in that worker's outbox; None: as long as it takes.

        Raises:
            UnknownWorkerError: no such member now.
            SendTimeoutError: it reads too slowly; nothing was sent.
            WorkerGoneError: it went while this was waiting; nothing was sent.
            MessageTooLargeError, InvalidNameError: not a message.
            TypeError, ValueError, OverflowError: `data` is nothing that a message can carry.
            NotRunningError: outside the lifespan, or on another event loop.
        """
        outgoing = self._sending
        if outgoing is None or not outgoing.turn_messages or get_ident() != outgoing.thread:
            outgoing = self._here(outgoing)
        if timeout is not None and not timeout >= 0:
            raise no_timeout(timeout)
        refused = outgoing.send(pid, name, data)
        if refused is not None:
            await self._accepted_by(outgoing, *refused, timeout)
            return
        outgoing.turn_messages += 1
        if outgoing.turn_messages >= YIELD_AFTER_MESSAGES or outgoing.turn_bytes >= YIELD_AFTER_BYTES:
            await asyncio.sleep(0)

    def send_nowait(self, pid: int | Worker, name: str, data: Data = b"") -> None:
        """As `send`, without waiting: raises WouldBlockError when that worker's outbox is full.

        May be called from any thread of the worker.
        """
        outgoing = self._sending
        if outgoing is None:
            outgoing = self._elsewhere()
        refused = outgoing.send(pid, name, data)
        if refused is not None:
            raise WouldBlockError(refused.peer.worker.pid)

    async def broadcast(
        self, name: str, data: Data = b"", *, include_self: bool = True, timeout: float | None = 5.0
    ) -> tuple[int, ...]:
        """Send one message to all members, this one among them; return the pids that took it.

        Every outbox with room gets it at once; the full ones are waited for,
        together, up to `timeout` seconds. It raises nothing for slow or
        vanished members: who is not in the result did not get it.

        Raises as `send`, but for UnknownWorkerError, SendTimeoutError and WorkerGoneError.
        """
        outgoing = self._sending
        if outgoing is None or not outgoing.turn_messages or get_ident() != outgoing.thread:
            outgoing = self._here(outgoing)
        if timeout is not None and not timeout >= 0:
            raise no_timeout(timeout)
        message = outgoing.pack(name, data)
        took, full = outgoing.post_to_each(outgoing.peers.members(include_self=include_self), message)
        # Encoded once; putting it into some outboxes more costs little beside that.
        outgoing.turn_messages += 1 + len(took) // RECEIVERS_AS_ONE_MESSAGE
        if full or outgoing.turn_messages >= YIELD_AFTER_MESSAGES or outgoing.turn_bytes >= YIELD_AFTER_BYTES:
            return await self._rest_of_each(outgoing, took, full, message, timeout)
        return tuple(took)

    def broadcast_nowait(self, name: str, data: Data = b"", *, include_self: bool = True) -> tuple[int, ...]:
        """Send one message to all members or, if one outbox is full, to none: WouldBlockError.

        Returns the pids. May be called from any thread of the worker.
        """
        outgoing = self._sending
        if outgoing is None:
            outgoing = self._elsewhere()
        message = outgoing.pack(name, data)
        return tuple(outgoing.post_to_all(outgoing.peers.members(include_self=include_self), message))

    async def reply(self, name: str, data: Data = b"", *, timeout: float | None = 5.0) -> None:
        """Send one message to the sender of the message being handled, that very incarnation.

        Raises OutsideHandlerError where no message is being handled, and else as `send`.
        """
        outgoing = self._replying
        if outgoing is None or not outgoing.turn_messages or get_ident() != outgoing.thread:
            outgoing = self._here(outgoing, replying=True)
        if timeout is not None and not timeout >= 0:
            raise no_timeout(timeout)
        refused = outgoing.send(self._addressee(), name, data)
        if refused is not None:
            await self._accepted_by(outgoing, *refused, timeout)
            return
        outgoing.turn_messages += 1
        if outgoing.turn_messages >= YIELD_AFTER_MESSAGES or outgoing.turn_bytes >= YIELD_AFTER_BYTES:
            await asyncio.sleep(0)

    def reply_nowait(self, name: str, data: Data = b"") -> None:
        """As `reply`, without waiting: raises WouldBlockError when the outbox is full.

        May be called from any thread that the handler started.
        """
        outgoing = self._replying
        if outgoing is None:
            outgoing = self._elsewhere(replying=True)
        refused = outgoing.send(self._addressee(), name, data)
        if refused is not None:
            raise WouldBlockError(refused.peer.worker.pid)

    # --- life

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Take part in the fleet: `Starlette(lifespan=ipc.lifespan)`, or `async with ipc.lifespan(app):`
        inside your own lifespan, innermost, since handlers run until it has ended.

        Inside, what any member broadcasts reaches this worker. At the end,
        what runs in the leader only is cancelled, what others have sent is handled and what was accepted
        here is sent, all of it for at most the drain timeout.

        Without the launcher this is a fleet of one: the same verbs, to itself.

        It may be entered several times on one event loop (by an app and a router of it, say); this leaves
        when the last one exits.

        Raises LauncherError if it is entered on another event loop already, or is ending; and under
        `asgi-ipc serve` if another IPC() was entered in this worker, or this one has left.
        """
        if self._endpoint is None and member_for(self) is not None:
            # It is a member already.
            yield
            return
        if self._endpoint is None and assignment.current is None:
            warn_if_one_of_several()
        endpoint = self._enter()
        try:
            await endpoint.join()
            if not endpoint.departing.is_set():
                self._sending = self._replying = endpoint.outgoing
            yield
        finally:
            endpoint.entries -= 1
            if not endpoint.entries:
                await self._leave(endpoint)

    def _enter(self) -> Endpoint:
        # No thread with a loop of its own comes in between.
        with descriptors.changing_hands:
            endpoint = self._endpoint
            if endpoint is None or (endpoint.outgoing.loop.is_closed() and assignment.current is None):
                # One whose loop was closed without a word never leaves.
                endpoint = self._endpoint = self._open()
            elif endpoint.outgoing.loop is not asyncio.get_running_loop():
                raise LauncherError(
                    "ipc.lifespan is entered on another event loop already: one at a time, in each process"
                )
            elif endpoint.departing.is_set():
                raise LauncherError("ipc.lifespan is ending; it can't be entered again before it has ended")
            endpoint.entries += 1
            return endpoint

    def _open(self) -> Endpoint:
        here = assignment.current
        if here is not None:
            return here.open(self._registry, self, self._leave)
        # Nobody else waits for it to leave: as long as after the launcher's death.
        settings = Settings(cookie=secrets.token_bytes(COOKIE_BYTES), drain_timeout=ORPHAN_DRAIN_TIMEOUT_S)
        return Endpoint(Worker(os.getpid(), 0, 1), settings, self._registry, self)

    async def _leave(self, endpoint: Endpoint) -> None:
        """Leave the fleet, once; who comes second waits until that is over."""
        if endpoint.departing.is_set():
            await endpoint.departed.wait()
            return
        endpoint.departing.set()
        cancelled = None
        try:
            try:
                # First of all: what runs in the leader only may use every verb to its end.
                await endpoint.resign()
            except asyncio.CancelledError as error:
                cancelled = error
            if self._endpoint is endpoint:
                self._sending = None
            await endpoint.leave()
            if cancelled is not None:
                raise cancelled
        finally:
            if self._endpoint is endpoint:
                self._last_stats = snapshot(endpoint)
                self._endpoint = self._replying = None
            endpoint.departed.set()

    def wrap(self, app: Callable[..., Awaitable[None]]) -> Wrapped:
        """An ASGI app around another one, which takes part in the fleet: `app = ipc.wrap(app)`.

        For an app whose lifespan is not yours to write, or that has none, such as Django's. It enters
        `ipc.lifespan` when the app's own startup is complete, and leaves it before the app's own shutdown
        begins: so handlers find what the app has set up. Startup code that uses verbs itself
        enters `ipc.lifespan` on its own, which is counted.

        An exception of the app's that comes before it has received `lifespan.startup` means that it has no
        lifespan; a later one means that its startup has failed.

        Args:
            app: an ASGI 3 application.

        Raises TypeError if it can't be called.
        """
        return Wrapped(app, self.lifespan)

    def abandon(self) -> None:
        """In a forked child: this process is nobody's worker."""
        self._endpoint = self._sending = self._replying = self._last_stats = None


ipc: Final = IPC()
"""The process-wide IPC."""
