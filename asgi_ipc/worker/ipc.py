"""IPC: the public object. Names and data in, errors out; everything else is the endpoint's.

Law: a verb checks, encodes, and posts; nothing is sent before everything is
checked. The `_nowait` verbs may be called from any thread of the worker, the
others on the event loop that entered the lifespan.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import select
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from threading import get_ident
from typing import Any, Final

from asgi_ipc.errors import (
    DeliveryError,
    LauncherError,
    NotRunningError,
    OutsideHandlerError,
    UnknownWorkerError,
    WorkerGoneError,
    WouldBlockError,
)
from asgi_ipc.protocol.membership import Worker
from asgi_ipc.protocol.message import PUBLISH, Data, Encoded
from asgi_ipc.protocol.packet import COOKIE_BYTES
from asgi_ipc.worker import descriptors, station
from asgi_ipc.worker.acting import member_for
from asgi_ipc.worker.alone import warn_if_alone
from asgi_ipc.worker.calls import current_delivery
from asgi_ipc.worker.electing import Electing
from asgi_ipc.worker.endpoint import Endpoint, Settings
from asgi_ipc.worker.outgoing import Outgoing
from asgi_ipc.worker.peers import Peer
from asgi_ipc.worker.questions import Gathered
from asgi_ipc.worker.registering import Registering
from asgi_ipc.worker.registry import Registry
from asgi_ipc.worker.stats import Stats, snapshot
from asgi_ipc.worker.subscription import Overflow, Subscription
from asgi_ipc.worker.topics import Topics

# Half of an outbox: the largest message still fits one that has something in it.
DEFAULT_MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024

# See --drain-timeout.
DEFAULT_DRAIN_TIMEOUT_S: Final = 10.0

# `await send` yields to the loop after so much in one turn, or a loop that
# sends would keep everyone else waiting.
YIELD_AFTER_MESSAGES: Final = 256
YIELD_AFTER_BYTES: Final = 1024 * 1024

# Each further receiver of a broadcast costs about this fraction of a message:
# yielding too often leaves its packets almost empty.
RECEIVERS_AS_ONE_MESSAGE: Final = 8


class IPC(Registering, Electing):
    """Messages between the workers of one server.

    `from asgi_ipc import ipc` gives the process-wide one. Register handlers
    with `receive`, give `ipc.lifespan` to the app, and use the verbs from
    route handlers and message handlers.

    Messages from one worker to another arrive in the order in which they were
    accepted; there is no order between different senders. A verb that
    returned without an error has had its message accepted: it reaches its
    handler exactly once unless the receiver is killed or a leave times out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._endpoint: Endpoint | None = None
        self._last_stats: Stats | None = None
        # Where verbs put messages: None unless they are accepted; and replies, which are while this leaves.
        self._sending: Outgoing | None = None
        self._replying: Outgoing | None = None
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
    def slot(self) -> int:
        """This worker's stable number, 0 to n-1. Raises NotRunningError outside the lifespan."""
        return self._entered().me.slot

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The members now, this one among them, by slot. Raises NotRunningError outside the lifespan."""
        return self._entered().outgoing.peers.membership.workers

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
            raise _no_timeout(timeout)
        refused = outgoing.send(pid, name, data)
        if refused is not None:
            await self._accepted_by(outgoing, *refused, timeout)
            return
        outgoing.turn_messages += 1
        if outgoing.turn_messages >= YIELD_AFTER_MESSAGES or outgoing.turn_bytes >= YIELD_AFTER_BYTES:
            await self._yield()

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
            raise _no_timeout(timeout)
        message = outgoing.pack(name, data)
        took, full = outgoing.post_to_each(outgoing.peers.members(include_self=include_self), message)
        if full:
            return (*took, *await self._accepted_by_each(outgoing, full, message, timeout))
        # Encoded once; putting it into some outboxes more costs little beside that.
        outgoing.turn_messages += 1 + len(took) // RECEIVERS_AS_ONE_MESSAGE
        if outgoing.turn_messages >= YIELD_AFTER_MESSAGES or outgoing.turn_bytes >= YIELD_AFTER_BYTES:
            await self._yield()
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
            raise _no_timeout(timeout)
        refused = outgoing.send(self._addressee(), name, data)
        if refused is not None:
            await self._accepted_by(outgoing, *refused, timeout)
            return
        outgoing.turn_messages += 1
        if outgoing.turn_messages >= YIELD_AFTER_MESSAGES or outgoing.turn_bytes >= YIELD_AFTER_BYTES:
            await self._yield()

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

    # --- questions

    async def request(
        self, pid: int | Worker, name: str, data: Data = b"", *, timeout: float | None = 5.0
    ) -> Any:
        """Ask one worker: what its handler of that name gives back.

        A question runs there like a message of its name, in its order; `sender` and `reply` work as ever.
        Cancelling this, or its timeout, cancels an async handler there that has not finished; an answer that
        comes later is discarded and counted (`late_answer` of `stats().dropped`).

        Args:
            pid, name, data: as of `send`; what the handler gives back may be what `data` may be.
            timeout: seconds for all of it, the wait for room included; None: as long as it takes.

        Raises:
            NoHandlerError: that worker has none of this name.
            InvalidDataError: `data` is not what its handler there is annotated with.
            RemoteError: its handler raised, was cancelled, or gave back what a message can't carry.
            RequestTimeoutError: no answer in time.
            UnknownWorkerError: no such member now.
            WorkerGoneError: it died, or left without an answer; told at once.
            Others: as `send`, before anything is sent.
        """
        self._here(self._sending)
        if timeout is not None and not timeout >= 0:
            raise _no_timeout(timeout)
        return await self._entered().questions.ask(pid, name, data, timeout)

    async def gather(
        self, name: str, data: Data = b"", *, timeout: float | None = 5.0, include_self: bool = True
    ) -> Gathered:
        """Ask all members at once, this one among them: a dict of pid -> answer, of those that came in time.

        It raises nothing for one that is slow, fails or goes: that costs its own row only, which is in
        `.errors` (pid -> RequestTimeoutError, RemoteError, NoHandlerError, InvalidDataError,
        WorkerGoneError or UnknownWorkerError); `.complete` says whether there is none. Rows are in the
        order of the slots.

        Raises as `send` for what is no message, before anything is sent.
        """
        self._here(self._sending)
        if timeout is not None and not timeout >= 0:
            raise _no_timeout(timeout)
        return await self._entered().questions.ask_all(name, data, timeout, include_self=include_self)

    async def send_any(self, name: str, data: Data = b"", *, timeout: float | None = 5.0) -> int:
        """Send one message to exactly one member, the one with the least work waiting; its pid.

        What counts is what this worker can see: its outbox for that member, and what that one has not read.
        Equals take turns. If it goes before the message was accepted, another one gets it.

        Raises as `send`; UnknownWorkerError and WorkerGoneError only if nobody is left.
        """
        outgoing = self._here(self._sending)
        if timeout is not None and not timeout >= 0:
            raise _no_timeout(timeout)
        message = outgoing.pack(name, data)
        deadline = None if timeout is None else outgoing.loop.time() + timeout
        while True:
            peer = outgoing.least_busy()
            with suppress(UnknownWorkerError):
                if not outgoing.post(peer, message):
                    left_s = None if deadline is None else max(deadline - outgoing.loop.time(), 0.0)
                    try:
                        await self._accepted_by(outgoing, peer, message, left_s)
                    except WorkerGoneError:
                        continue
                outgoing.turn_messages += 1
                if outgoing.turn_messages >= YIELD_AFTER_MESSAGES or outgoing.turn_bytes >= YIELD_AFTER_BYTES:
                    await self._yield()
                return peer.worker.pid

    # --- topics

    async def publish(self, topic: str, data: Data = b"", *, timeout: float | None = 5.0) -> tuple[int, ...]:
        """Send one message to all who subscribe to a topic; return the pids of the workers that took it.

        Workers without a subscriber are sent nothing. Publications of one worker arrive in the order in which
        they were accepted, in each subscription. Outboxes that are full are waited for as in `broadcast`, and
        it raises nothing for slow or vanished members.

        Args:
            topic: 1 to 254 bytes of UTF-8, no control characters.
            data, timeout: as of `send`.

        Raises as `broadcast`; InvalidNameError for what can't be a topic.
        """
        outgoing = self._here(self._sending)
        if timeout is not None and not timeout >= 0:
            raise _no_timeout(timeout)
        members = self._entered().topics.audience(topic)
        message = outgoing.wrap(PUBLISH, (topic,), data)
        took, full = outgoing.post_to_each(members, message)
        if full:
            return (*took, *await self._accepted_by_each(outgoing, full, message, timeout))
        outgoing.turn_messages += 1 + len(took) // RECEIVERS_AS_ONE_MESSAGE
        if outgoing.turn_messages >= YIELD_AFTER_MESSAGES or outgoing.turn_bytes >= YIELD_AFTER_BYTES:
            await self._yield()
        return tuple(took)

    def publish_nowait(self, topic: str, data: Data = b"") -> tuple[int, ...]:
        """As `publish`, without waiting; if one outbox is full, to nobody: WouldBlockError.

        May be called from any thread of the worker.
        """
        outgoing = self._sending
        if outgoing is None:
            outgoing = self._elsewhere()
        members = self._entered().topics.audience(topic)
        return tuple(outgoing.post_to_all(members, outgoing.wrap(PUBLISH, (topic,), data)))

    def subscribe(
        self, topic: str, *, overflow: Overflow = "wait", max_messages: int = 1000, until_stop: bool = False
    ) -> Subscription:
        """Subscribe to a topic: `async with ipc.subscribe(topic) as messages: ...`, to be iterated.

        Each message is a Publication: `.topic`, `.data`, `.sender` (a pid) and `.missed` (how many this
        subscription has lost since the one before).

        Once it is entered, it gets every publication that this worker accepts from then on, and every one
        that another member accepts that knew of it; what was under way to this worker already may come, too.
        Entering waits until all members know, which takes one round trip; for one that does not answer it
        waits for a second at most, logs that, and does not wait for it again until it has answered. A worker
        that joins later publishes nothing before it knows.

        Args:
            topic: 1 to 254 bytes of UTF-8, no control characters.
            overflow: what happens when `max_messages` wait here:
                `wait`: nothing is lost. What comes waits as messages for a slow handler do: 1,000 of them
                (or 64 MiB), then this worker reads no more, for no subscription and no handler, and `publish`
                waits until its deadline;
                `drop_oldest`, `drop_newest`: one is lost, counted (`overflow` of `stats().dropped`) and told
                with the next message (`.missed`);
                `close`: the iteration ends, behind what waits, with SubscriptionOverflowError.
            max_messages: at least 1; and no more than 32 MiB of `str` and `bytes`.
            until_stop: end the iteration when this worker is told to stop, rather than with the lifespan:
                for streaming responses, which a stop or a restart would wait for.

        Raises InvalidNameError or ValueError here, and NotRunningError when it is entered.
        """
        return Subscription(
            self._topics_here, topic, overflow=overflow, max_messages=max_messages, until_stop=until_stop
        )

    def _topics_here(self) -> Topics:
        self._here(self._sending)
        return self._entered().topics

    # --- life

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Take part in the fleet: `Starlette(lifespan=ipc.lifespan)`, or `async with ipc.lifespan(app):`
        inside your own lifespan, innermost, since handlers run until it has ended.

        Inside, what any member broadcasts reaches this worker. At the end,
        what runs in the leader only is cancelled, what others have sent is handled and what was accepted
        here is sent, all of it for at most the drain timeout.

        Without the launcher this is a fleet of one: the same verbs, to itself.

        Raises LauncherError if it is entered already.
        """
        if self._endpoint is not None:
            raise LauncherError("ipc.lifespan is entered already; enter it once per process")
        if member_for(self) is not None:
            # It is a member already.
            yield
            return
        here = station.current
        if here is not None:
            endpoint = here.open(self._registry, self)
        else:
            warn_if_alone()
            endpoint = Endpoint(
                Worker(os.getpid(), 0, 1), _settings_of_one(), self._registry, self, None, None
            )
        self._endpoint = endpoint
        try:
            try:
                await endpoint.join()
                self._sending = self._replying = endpoint.outgoing
                yield
            finally:
                try:
                    # First of all: what runs in the leader only may use every verb to its end.
                    await endpoint.resign()
                finally:
                    self._sending = None
                    await endpoint.leave()
        finally:
            self._last_stats = snapshot(endpoint)
            self._endpoint = self._replying = None

    def abandon(self) -> None:
        """In a forked child: this process is nobody's worker."""
        self._endpoint = self._sending = self._replying = self._last_stats = None

    # --- in between

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
        """Where an awaited verb asks the launcher. Raises as `_here`."""
        self._here(self._sending)
        return self._entered()

    def _not_running(self) -> NotRunningError:
        if self._endpoint is None:
            return NotRunningError()
        return NotRunningError("ipc.lifespan has not been entered yet, or is ending")

    def _here(self, outgoing: Outgoing | None, *, replying: bool = False) -> Outgoing:
        """Where an awaited verb puts messages. Raises NotRunningError if nowhere, or on another loop.

        Once a turn is enough on one thread, where another loop can't run meanwhile.
        """
        if outgoing is None:
            outgoing = self._elsewhere(replying=replying)
        if get_ident() != outgoing.thread or asyncio.get_running_loop() is not outgoing.loop:
            raise NotRunningError("ipc.lifespan was entered on another event loop; use the _nowait verbs")
        return outgoing

    def _addressee(self) -> Worker:
        delivery = current_delivery.get()
        if delivery is None or (delivery.ipc is not self and not self._is_played_by(delivery.ipc)):
            raise OutsideHandlerError
        return delivery.sender

    def _waiting(self) -> AbstractContextManager[None]:
        """Around a wait inside a verb."""
        return self._entered().dispatcher.calls.waiting()

    async def _accepted_by(
        self, outgoing: Outgoing, peer: Peer, message: Encoded, timeout: float | None
    ) -> None:
        waiter = outgoing.queue(peer, message)
        with self._waiting():
            await outgoing.accepted(waiter, timeout)

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
            with self._waiting():
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

    async def _yield(self) -> None:
        with self._waiting():
            await asyncio.sleep(0)


def _no_timeout(timeout: float) -> ValueError:
    # For what is not `>= 0`, which NaN is not either.
    return ValueError(f"a timeout is a number of seconds from 0 on, or None; not {timeout!r}")


def _settings_of_one() -> Settings:
    return Settings(
        cookie=secrets.token_bytes(COOKIE_BYTES),
        max_packet_bytes=getattr(select, "PIPE_BUF", 512),
        max_message_bytes=DEFAULT_MAX_MESSAGE_BYTES,
        drain_timeout_s=DEFAULT_DRAIN_TIMEOUT_S,
    )


ipc: Final = IPC()
"""The process-wide IPC."""
