"""The lifespan: how an IPC enters the fleet and leaves it, and what it is before and after.

Law: one endpoint at a time, on one event loop. Only the registrations of the app are kept from one lifespan
to the next.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from asgi_ipc.cluster.nodes import NODE_ID_BYTES
from asgi_ipc.errors import LifespanError, NotRunningError, OutsideHandlerError, WrongLoopError
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.wire.packet import COOKIE_BYTES
from asgi_ipc.worker import assignment, descriptors
from asgi_ipc.worker.dispatch.delivery import current_delivery
from asgi_ipc.worker.dispatch.registry import Registry
from asgi_ipc.worker.endpoint import Endpoint
from asgi_ipc.worker.features.messaging import Messaging
from asgi_ipc.worker.leave import ORPHAN_DRAIN_TIMEOUT_S
from asgi_ipc.worker.standalone import warn_if_one_of_several
from asgi_ipc.worker.stats import Stats


class Lifespan:
    """One worker's time in the fleet.

    Attributes:
        registry: what the app has registered.
        messaging: sends messages while they are accepted; otherwise None. `on_messaging` is told.
    """

    def __init__(
        self, pid: int = 0, on_messaging: Callable[[Messaging | None], None] = lambda messaging: None
    ) -> None:
        self.registry = Registry()
        # Of a test's member, which is no process.
        self._pid = pid
        self._messaging: Messaging | None = None
        self._on_messaging = on_messaging
        self._endpoint: Endpoint | None = None
        self._last_stats: Stats | None = None
        descriptors.register(self)

    @property
    def is_entered(self) -> bool:
        """Return whether there is an endpoint: from the first entry until the end of the leave."""
        return self._endpoint is not None

    @property
    def messaging(self) -> Messaging | None:
        return self._messaging

    @messaging.setter
    def messaging(self, messaging: Messaging | None) -> None:
        self._messaging = messaging
        self._on_messaging(messaging)

    @property
    def endpoint(self) -> Endpoint:
        """This worker's endpoint. Raises NotRunningError outside the lifespan."""
        if self._endpoint is None:
            raise NotRunningError
        return self._endpoint

    @property
    def open_messaging(self) -> Messaging:
        """The sender of messages now. Raises NotRunningError outside the lifespan, and while it ends."""
        messaging = self.endpoint.messaging
        messaging.check_open()
        return messaging

    @property
    def endpoint_here(self) -> Endpoint:
        """The endpoint, for an awaited verb. Raises NotRunningError on another loop, and while it ends."""
        endpoint = self.endpoint
        endpoint.messaging.check_here()
        return endpoint

    @property
    def pid(self) -> int:
        """This worker's pid, inside and outside the lifespan."""
        return self._endpoint.me.pid if self._endpoint is not None else self._pid or os.getpid()

    @property
    def sender(self) -> Worker | None:
        """The worker whose message is being handled in this context."""
        delivery = current_delivery.get()
        return delivery.sender if delivery is not None and delivery.owner is self else None

    def is_of_this_node(self, worker: Worker) -> bool:
        """Return whether a worker belongs to this server."""
        return self._endpoint is None or worker.node == self._endpoint.me.node

    @property
    def addressee(self) -> Worker:
        """The worker that a reply goes to. Raises OutsideHandlerError if there is none."""
        sender = self.sender
        if sender is None:
            raise OutsideHandlerError
        return sender

    def stats(self) -> Stats:
        """The counters now, or at the end of the last lifespan. Raises NotRunningError before the first."""
        if self._endpoint is None and self._last_stats is not None:
            return self._last_stats
        return self.endpoint.stats()

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Take part in the fleet; the last one that exits leaves it."""
        if self._endpoint is None and assignment.current is None:
            warn_if_one_of_several()
        endpoint = self._enter()
        try:
            await endpoint.join()
            if not endpoint.departing.is_set():
                endpoint.messaging.open()
                endpoint.replying.open()
                self.messaging = endpoint.messaging
            yield
        finally:
            endpoint.entries -= 1
            if not endpoint.entries:
                await self._leave(endpoint)

    def _enter(self) -> Endpoint:
        # Another thread with a loop of its own must wait.
        with descriptors.changing_hands:
            endpoint = self._endpoint
            if endpoint is None or (endpoint.outgoing.loop.is_closed() and assignment.current is None):
                # A loop that was closed while the lifespan was open never leaves it.
                endpoint = self._endpoint = self._open()
            elif endpoint.outgoing.loop is not asyncio.get_running_loop():
                raise WrongLoopError(
                    "ipc.lifespan is entered on another event loop already: one at a time, in each process"
                )
            elif endpoint.departing.is_set():
                raise LifespanError("ipc.lifespan is ending; it can't be entered again before it has ended")
            endpoint.entries += 1
            return endpoint

    def _open(self) -> Endpoint:
        here = assignment.current
        if here is not None:
            return here.open(self.registry, self, self._leave)
        # No launcher waits for the leave: it takes as long as after the launcher's death.
        settings = Settings(
            cookie=secrets.token_bytes(COOKIE_BYTES),
            drain_timeout=ORPHAN_DRAIN_TIMEOUT_S,
            node=secrets.token_hex(NODE_ID_BYTES),
            node_name=socket.gethostname(),
        )
        me = Worker(os.getpid(), 0, 1, node=settings.node)
        return Endpoint(me, settings, self.registry, self)

    async def _leave(self, endpoint: Endpoint) -> None:
        """Leave the fleet, once; a second caller waits until the first has left."""
        if endpoint.departing.is_set():
            await endpoint.departed.wait()
            return
        endpoint.departing.set()
        cancelled = None
        try:
            try:
                # First of all: leader tasks may use every verb to their end.
                await endpoint.leave.resign()
            except asyncio.CancelledError as error:
                cancelled = error
            endpoint.messaging.close()
            if self._endpoint is endpoint:
                self.messaging = None
            # A join that was cut short leaves, too.
            endpoint.begin()
            await endpoint.leave.run()
            if cancelled is not None:
                raise cancelled
        finally:
            endpoint.replying.close()
            if self._endpoint is endpoint:
                self._last_stats = endpoint.stats()
                self._endpoint = None
            endpoint.departed.set()

    def abandon(self) -> None:
        """Forget the endpoint in a forked child: it is no worker."""
        self._endpoint = self.messaging = self._last_stats = None
