"""IPC: the public object, one facade.

Law: a verb checks and hands over; the room that does the work holds the rest.
The `_nowait` verbs may be called from any thread of the worker, the others on
the event loop that entered the lifespan.

The file is long because of its docstrings, which are the reference of the API.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, TypeAlias, TypeVar, overload

from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import Data
from asgi_ipc.worker.api.blocking import Waiting, blocking
from asgi_ipc.worker.api.cluster import Cluster
from asgi_ipc.worker.dispatch.handler import Function
from asgi_ipc.worker.features.messaging import Messaging
from asgi_ipc.worker.features.requests import Gathered
from asgi_ipc.worker.features.subscription import Overflow, Subscription
from asgi_ipc.worker.lifespan import Lifespan
from asgi_ipc.worker.stats import Stats
from asgi_ipc.worker.wrapping import Wrapped

F = TypeVar("F", bound=Callable[[Any], Any])
W = TypeVar("W", bound=Callable[[Worker], Any])
R = TypeVar("R")
T = TypeVar("T", bound=Callable[[], Coroutine[Any, Any, Any]])
L = TypeVar("L", bound=Callable[[Worker, str, int], Any])


Scope: TypeAlias = Literal["cluster", "server"]
"""How far `broadcast` and `publish` go: to the workers of all servers of the cluster, or of this one."""


class IPC:
    """Messages between the workers of one server.

    `from asgi_ipc import ipc` gives the process-wide one. Register handlers
    with `receive`, give `ipc.lifespan` to the app, and use the verbs from
    route handlers and message handlers.

    Messages from one worker to another arrive in the order in which they were accepted; there is no order
    between different senders. A message is accepted when its verb returns without an error: it reaches its
    handler exactly once unless the receiver is killed or a leave times out.

    Attributes:
        blocking: the awaited verbs for `def` routes and other code in threads.
        cluster: the other servers of a cluster, and any worker there.
    """

    blocking: Final[Blocking]
    cluster: Final[Cluster]

    def __init__(self) -> None:
        # Sends messages while they are accepted. Hot verbs look here first.
        self._messaging: Messaging | None = None
        self._own = Lifespan(on_messaging=self._bind)
        # The test kit's seam: the member of its fleet that acts for this IPC in this context.
        self._stand_in: Callable[[], Lifespan | None] | None = None
        self.blocking = Blocking(self, lambda: self._here)
        self.cluster = Cluster(lambda: self._here)

    def _bind(self, messaging: Messaging | None) -> None:
        """While messages are accepted, `send_nowait` is the engine's own: one call less for each message."""
        self._messaging = messaging
        self.__dict__.pop("send_nowait", None)
        if messaging is not None:
            self.__dict__["send_nowait"] = messaging.send_nowait

    @property
    def _here(self) -> Lifespan:
        """This worker's lifespan or, in a test, that of the member that acts for it."""
        own = self._own
        if self._stand_in is None or own.is_entered:
            return own
        return self._stand_in() or own

    # --- who

    @property
    def sender(self) -> int | None:
        """The pid of the worker whose message is being handled here; None outside a handler.

        None, too, for a message of another server of a cluster, where pids mean nothing here. It survives
        `await`, and tasks and threads that the handler starts.
        """
        here = self._here
        sender = here.sender
        return sender.pid if sender is not None and here.is_of_this_node(sender) else None

    @property
    def sender_worker(self) -> Worker | None:
        """As `sender`, but that very incarnation of the worker, on whichever server."""
        return self._here.sender

    @property
    def pid(self) -> int:
        """This worker's pid, by which the others address it."""
        return self._here.pid

    @property
    def worker(self) -> Worker:
        """This worker as the others know it. Raises NotRunningError outside the lifespan."""
        return self._here.endpoint.me

    @property
    def slot(self) -> int:
        """This worker's stable number, 0 to n-1. Raises NotRunningError outside the lifespan."""
        return self._here.endpoint.me.slot

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The present members, including this one, by slot. Raises NotRunningError outside the lifespan."""
        return self._here.endpoint.outgoing.peers.workers

    def stats(self) -> Stats:
        """Return the messages sent, received and dropped so far, and those that wait now.

        After the lifespan: the figures of its end, with the messages that the leave had to drop at its
        deadline. Raises NotRunningError before the lifespan.
        """
        return self._here.stats()

    # --- what the app registers

    @overload
    def receive(self, name: str, /, *, ordered: bool = False) -> Callable[[F], F]: ...
    @overload
    def receive(self, name: str, handler: Function | None, /, *, ordered: bool = False) -> None: ...
    @overload
    def receive(self, name: Mapping[str, Function | None], /, *, ordered: bool = False) -> None: ...

    def receive(
        self, name: str | Mapping[str, Function | None], /, *handler: Function | None, ordered: bool = False
    ) -> Callable[[F], F] | None:
        """Register a handler: `@receive(name)`, `receive(name, handler)`, or `receive({name: handler, ...})`.

        A handler is a plain or an async function of one argument, the data; its result answers `request` and
        `gather`. Registering replaces; `None` deletes. Handlers start in the order of arrival. A plain
        handler runs on the event loop, so it must not block.

        If its parameter is annotated (a dataclass, msgspec.Struct, TypedDict, Pydantic model, built-in type,
        or lists, dicts and unions of them), the data arrives as that type. Data that does not fit is counted
        (`invalid_data` of `stats().dropped`), and answers a question with InvalidDataError.

        Args:
            name: 1 to 254 bytes of UTF-8, no control characters.
            ordered: the next call starts when the last one has finished.

        Raises:
            InvalidNameError: not a name.
            TypeError: not callable with one argument, or annotated with a type that no message can carry.
        """
        return self._here.registry.receive(name, *handler, ordered=ordered)

    def on_join(self, callback: W) -> W:
        """Call `callback(worker)` for every worker that joins from now on; usable as a decorator.

        `callback` is a plain or an async function; its exceptions are logged and counted. It is called once
        this worker can address the newcomer, and before the newcomer's first message is handled. The members
        that are here already are in `ipc.workers`. Raises TypeError if it is not callable with one argument.
        """
        self._here.registry.watch_joins(callback)
        return callback

    def on_leave(self, callback: L) -> L:
        """Call `callback(worker, reason, lost)` for every worker that has gone; usable as a decorator.

        `callback` is a plain or an async function; its exceptions are logged and counted. It is called once
        for each worker, after that worker's last message has gone to its handler. Until then the worker can't
        be addressed any more, but its messages may still arrive.

        Args of `callback`:
            reason: `left` (scaled down, or the server stops), `replaced` (by a restart), `killed` (it died,
                or was ended), `stalled` (its event loop stood still and it was replaced), `drain_timeout` (it
                left with something not delivered or not handled), or `cancelled` (the same, since its app
                cancelled the end of its lifespan).
            lost: how many messages that this worker had accepted for it never left here.

        Raises TypeError if it is not callable with three arguments.
        """
        self._here.registry.watch_leaves(callback)
        return callback

    def leader_task(self, function: T) -> T:
        """Run an async function without arguments in one worker only, the leader; usable as a decorator.

        It starts when its worker is appointed, in the turn after `ipc.lifespan` has entered at the earliest,
        or when it is registered later. At the end of the leader's lifespan it is cancelled and awaited, while
        every verb still works. Only then, or within a second of the leader's death, another worker is
        appointed, so it never runs twice at once. If it has not ended at the drain deadline, its worker leads
        until its process has ended.

        If it raises, that is logged and counted, and it starts again after 0.5 s, then 1 s, up to 30 s; after
        a run of more than 30 s, again after 0.5 s. If it returns, it is done until another worker leads.
        Registering a function again has no effect.

        Raises TypeError if it is not an async function, or needs an argument.
        """
        self._here.registry.lead(function)
        return function

    # --- messages

    async def send(
        self, pid: int | Worker, name: str, data: Data = b"", *, timeout: float | None = 5.0
    ) -> None:
        """Send one message to the worker `pid`, or to that very incarnation if it is a Worker.

        Returns once the message is accepted; its handler may not have run.

        Args:
            name: 1 to 254 bytes of UTF-8, no control characters.
            data: str, bytes, numbers, None, time-zone-aware datetimes, and lists and dicts of them; tuples
                arrive as lists, bytearrays and memoryviews as bytes. Dataclasses, msgspec.Structs and
                Pydantic models arrive as dicts of their fields, or as the type that the handler is annotated
                with; fields may also be what msgspec turns into text (UUID, Decimal, Enum, date...).
            timeout: seconds to wait for room in that worker's outbox; None: without limit.

        Raises:
            UnknownWorkerError: no such member now.
            SendTimeoutError: it reads too slowly; nothing was sent.
            WorkerGoneError: it went while this call waited; nothing was sent.
            MessageTooLargeError, InvalidNameError: not a message.
            TypeError, ValueError, OverflowError: a message can't carry `data`.
            NotRunningError: outside the lifespan, or on another event loop.
        """
        messaging = self._messaging or self._here.open_messaging
        waits = messaging.send(pid, name, data, timeout)
        if waits is not None:
            await waits

    def send_nowait(self, pid: int | Worker, name: str, data: Data = b"") -> None:
        """As `send`, without waiting: raises WouldBlockError when that worker's outbox is full.

        May be called from any thread of the worker.
        """
        messaging = self._messaging or self._here.open_messaging
        messaging.send_nowait(pid, name, data)

    async def broadcast(
        self,
        name: str,
        data: Data = b"",
        *,
        include_self: bool = True,
        timeout: float | None = 5.0,
        scope: Scope = "cluster",
    ) -> tuple[int, ...]:
        """Send one message to all members, including this one; return the pids that took it.

        Every outbox with room gets it at once; for the full ones it waits, together, up to `timeout` seconds.
        It raises nothing for slow or vanished members: a member that is not in the result did not get it.

        In a cluster it goes to all workers of the other servers, too, at most once, in the order of one
        worker's messages; nothing waits for that, and they are not in the result (see `ipc.cluster`).

        Args:
            scope: `server`: it stays on this one.

        Raises as `send`, except for UnknownWorkerError, SendTimeoutError and WorkerGoneError.
        """
        messaging = self._messaging or self._here.open_messaging
        took, late = messaging.broadcast(
            name, data, include_self=include_self, timeout=timeout, spans=scope == "cluster" or _spans(scope)
        )
        return took if late is None else (*took, *await late)

    def broadcast_nowait(
        self, name: str, data: Data = b"", *, include_self: bool = True, scope: Scope = "cluster"
    ) -> tuple[int, ...]:
        """As `broadcast`, without waiting: one full outbox, and it sends to none: WouldBlockError.

        May be called from any thread of the worker.
        """
        messaging = self._messaging or self._here.open_messaging
        return messaging.broadcast_nowait(
            name, data, include_self=include_self, spans=scope == "cluster" or _spans(scope)
        )

    async def reply(self, name: str, data: Data = b"", *, timeout: float | None = 5.0) -> None:
        """Send one message to the sender of the message being handled, to that very incarnation.

        Raises as `send`, and OutsideHandlerError outside a handler. To a worker of another server it goes as
        by `ipc.cluster.send`.
        """
        here = self._here
        endpoint = here.endpoint
        if here.addressee.node != endpoint.me.node:
            await here.endpoint_here.afar.send(here.addressee, name, data, timeout)
            return
        waits = endpoint.replying.send(here.addressee, name, data, timeout)
        if waits is not None:
            await waits

    def reply_nowait(self, name: str, data: Data = b"") -> None:
        """As `reply`, without waiting: raises WouldBlockError when the outbox is full.

        May be called from any thread that the handler started. To a worker of another server:
        NotConnectedError if the bridge takes nothing now, and what is lost behind it is told there as a gap.
        """
        here = self._here
        endpoint = here.endpoint
        if here.addressee.node != endpoint.me.node:
            endpoint.afar.send_nowait(here.addressee, name, data)
            return
        endpoint.replying.send_nowait(here.addressee, name, data)

    async def send_any(self, name: str, data: Data = b"", *, timeout: float | None = 5.0) -> int:
        """Send one message to exactly one member, the one with the least work waiting; return its pid.

        Work is what this worker can see: its outbox for a member, and the bytes that the member has not read.
        Equals take turns. If the member goes before the message is accepted, another one gets it.

        Raises as `send`; UnknownWorkerError and WorkerGoneError only if no member is left.
        """
        return await self._here.endpoint.messaging.send_any(name, data, timeout=timeout)

    # --- questions

    @overload
    async def request(
        self,
        pid: int | Worker,
        name: str,
        data: Data = b"",
        *,
        reply_type: type[R],
        timeout: float | None = 5.0,
    ) -> R: ...
    @overload
    async def request(
        self,
        pid: int | Worker,
        name: str,
        data: Data = b"",
        *,
        reply_type: Any = None,
        timeout: float | None = 5.0,
    ) -> Any: ...

    async def request(
        self,
        pid: int | Worker,
        name: str,
        data: Data = b"",
        *,
        reply_type: Any = None,
        timeout: float | None = 5.0,
    ) -> Any:
        """Ask one worker; return the result of its handler of that name.

        A question runs there like a message of its name, in its order; `sender` and `reply` work as usual.
        Cancelling this, or its timeout, cancels an async handler there that has not finished; an answer that
        comes later is discarded and counted (`late_answer` of `stats().dropped`).

        Args:
            pid, name, data: as of `send`; the handler's result may have the same types as `data`.
            reply_type: the type of the answer, checked and converted like a handler's data; None: anything.
            timeout: seconds for the whole question, including the wait for room; None: without limit.

        Raises:
            NoHandlerError: that worker has no handler of this name.
            InvalidDataError: `data` does not fit the annotation of the handler there, or the answer does not
                fit `reply_type`.
            TypeError: `reply_type` is a type that no answer can become.
            RemoteError: its handler raised, was cancelled, or returned data that a message can't carry.
            RequestTimeoutError: no answer in time.
            UnknownWorkerError: no such member now.
            WorkerGoneError: it died, or left without an answer; raised at once.
            Others: as `send`, before anything is sent.
        """
        return await self._here.endpoint_here.questions.ask(pid, name, data, timeout, reply_type)

    @overload
    async def gather(
        self,
        name: str,
        data: Data = b"",
        *,
        reply_type: type[R],
        timeout: float | None = 5.0,
        include_self: bool = True,
    ) -> Gathered[R]: ...
    @overload
    async def gather(
        self,
        name: str,
        data: Data = b"",
        *,
        reply_type: Any = None,
        timeout: float | None = 5.0,
        include_self: bool = True,
    ) -> Gathered[Any]: ...

    async def gather(
        self,
        name: str,
        data: Data = b"",
        *,
        reply_type: Any = None,
        timeout: float | None = 5.0,
        include_self: bool = True,
    ) -> Gathered[Any]:
        """Ask all members at once, including this one; return a dict of pid -> answer, by slot.

        A member that is slow, fails or goes costs only its own row, which is in `.errors` (pid -> an error of
        `request`); `.complete` says whether there is none.

        Args: as of `request`. Raises as `send` for data that is no message, before anything is sent.
        """
        questions = self._here.endpoint_here.questions
        return await questions.ask_all(name, data, timeout, reply_type, include_self=include_self)

    # --- topics

    async def publish(
        self, topic: str, data: Data = b"", *, timeout: float | None = 5.0, scope: Scope = "cluster"
    ) -> tuple[int, ...]:
        """Send one message to all subscribers of a topic; return the pids of the workers that took it.

        Workers without a subscriber get nothing. Publications of one worker arrive in each subscription in
        the order in which they were accepted. For full outboxes it waits as `broadcast` does, and in a
        cluster it spans as that does.

        Args: as of `send` and `broadcast`; a topic is like a name. Raises as `broadcast`.
        """
        spans = scope == "cluster" or _spans(scope)
        took, late = self._here.endpoint.topics.publish(topic, data, timeout, spans=spans)
        return took if late is None else (*took, *await late)

    def publish_nowait(self, topic: str, data: Data = b"", *, scope: Scope = "cluster") -> tuple[int, ...]:
        """As `publish`, without waiting: one full outbox, and it sends to none: WouldBlockError.

        May be called from any thread of the worker.
        """
        spans = scope == "cluster" or _spans(scope)
        return self._here.endpoint.topics.publish_nowait(topic, data, spans=spans)

    def subscribe(
        self, topic: str, *, overflow: Overflow = "wait", max_messages: int = 1000, until_stop: bool = False
    ) -> Subscription:
        """Subscribe to a topic: `async with ipc.subscribe(topic) as messages: ...`; iterate `messages`.

        Each message is a Publication: `.topic`, `.data`, `.worker` (the publisher; `.sender` is its pid)
        and `.missed` (how many this subscription has lost since the one before, here or between the servers
        of a cluster). Other servers of a cluster know of the subscription within a second.

        Once entered, it gets every publication that this worker, or a member that knows of the subscription,
        accepts from then on; publications under way to this worker may come, too. Entering waits until all
        members know, which takes one round trip. For a member that does not answer it waits for a second at
        most, logs that, and does not wait for it again until it has answered. A worker that joins later
        publishes nothing before it knows.

        Args:
            topic: 1 to 254 bytes of UTF-8, no control characters.
            overflow: the action when `max_messages` wait here:
                `wait`: nothing is lost. Messages beyond `max_messages` count as handlers in flight: at 10,000
                (or 256 MiB) this worker reads no more, for no subscription and no handler, and `publish`
                waits until its deadline. An answer for which the subscriber waits may lie behind these
                messages, so a subscriber that asks for each message must keep up;
                `drop_oldest`, `drop_newest`: one is lost and counted (`overflow` of `stats().dropped`), and
                    the next message says so (`.missed`);
                `close`: the iteration ends with SubscriptionOverflowError, after the messages that wait.
            max_messages: at least 1; the bytes of waiting messages are at most 32 MiB.
            until_stop: end the iteration when this worker begins to stop, and not with the lifespan: for
                streaming responses; a stop or a restart would wait for them.

        Raises InvalidNameError or ValueError at once, and NotRunningError when it is entered.
        """
        return Subscription(
            lambda: self._here.endpoint_here.topics,
            topic,
            overflow=overflow,
            max_messages=max_messages,
            until_stop=until_stop,
        )

    # --- one of many

    @property
    def leader(self) -> int | None:
        """The leader's pid; None for the moment without a leader.

        Raises NotRunningError outside the lifespan.
        """
        leader = self.leader_worker
        return leader.pid if leader is not None else None

    @property
    def leader_worker(self) -> Worker | None:
        """As `leader`, but that very incarnation of the worker."""
        return self._here.endpoint.leading.leader

    @property
    def is_leader(self) -> bool:
        """True if this worker leads; False from the moment in which it begins to resign.

        Raises NotRunningError outside the lifespan.
        """
        return self._here.endpoint.leading.is_mine

    async def claim(self, key: str) -> bool:
        """Return True for the first claim of all workers, as long as the server runs; False for all others.

        This holds after a restart, too, and after the death of the first. A cancelled call does not
        count, since the app never saw its result.

        Args:
            key: 1 to 254 bytes of UTF-8, no control characters. `once` has keys of its own.

        Raises:
            TooManyKeysError: there are 10,000 keys of `claim` and `once` already; these still get answers.
            InvalidNameError: not a key.
            NotRunningError: outside the lifespan, on another event loop, or the launcher is gone.
        """
        return await self._here.endpoint_here.claiming.claim(key)

    @asynccontextmanager
    async def once(self, key: str, *, per: Literal["restart", "server"] = "restart") -> AsyncIterator[bool]:
        """`async with ipc.once(key) as first:` True in one worker; its block runs while the others wait.

        The others get False after that worker has left the block. If it leaves with an exception, or dies
        inside, the worker that has waited longest is the first. Without `async with asyncio.timeout(...)`
        around, the wait may take as long as the block.

        Args:
            key: as of `claim`.
            per: `restart`: a rolling restart does it once more, in the first of its workers; one that
                replaces a dead worker belongs to the last restart. `server`: for as long as the server runs.

        Raises:
            ValueError: `per` is something else.
            Others: as `claim`.
        """
        async with self._here.endpoint_here.claiming.once(key, per) as first:
            yield first

    # --- life

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Take part in the fleet: `Starlette(lifespan=ipc.lifespan)`, or `async with ipc.lifespan(app):`
        inside your own lifespan, innermost, since handlers run until it has ended.

        Inside, every broadcast of a member reaches this worker. At the end, leader tasks are cancelled,
        messages of others are handled and messages accepted here are sent, all of it within the drain
        timeout.

        Without the launcher this is a fleet of one: the same verbs send to itself.

        It may be entered several times on one event loop (by an app and its router, say); the last exit
        leaves.

        Raises:
            WrongLoopError: it is entered on another event loop already or, under `asgi-ipc serve`, this is
                not the server's event loop.
            SecondIPCError: under `asgi-ipc serve`, another IPC() was entered in this worker.
            LifespanError: it is ending or, under `asgi-ipc serve`, this worker has left.
        """
        here = self._here
        if here is not self._own:
            # A member of a test's fleet has joined already.
            yield
            return
        async with here.entered():
            yield

    def wrap(self, app: Callable[..., Awaitable[None]]) -> Wrapped:
        """Return an ASGI app around another one that takes part in the fleet: `app = ipc.wrap(app)`.

        For an app whose lifespan is not yours to write, or that has none, such as Django's. It enters
        `ipc.lifespan` when the app's own startup is complete, and leaves it before the app's own shutdown
        begins, so handlers find everything that the app has set up. Startup code that uses verbs itself
        enters `ipc.lifespan` on its own, which is counted.

        An exception of the app before it has received `lifespan.startup` means that it has no lifespan; a
        later one means that its startup has failed.

        Args:
            app: an ASGI 3 application.

        Raises TypeError if it can't be called.
        """
        return Wrapped(app, self.lifespan)


def _spans(scope: object) -> bool:
    """Return False for a scope that stays here. Raises ValueError for one that is none."""
    if scope != "server":
        raise ValueError(f"scope is 'cluster' or 'server', not {scope!r}")
    return False


class Blocking(Waiting[IPC]):
    """`ipc.blocking`: each verb as on `ipc`, but it returns its result when it has one.

    For `def` routes, which frameworks run in threads, and any other thread than the event loop's. `sender`
    and `reply` work in threads that a handler has started with `asyncio.to_thread`.

    Each raises as on `ipc`, and NotRunningError on the event loop's own thread, which it would block for
    ever, when `ipc.lifespan` ends while it waits, or when the loop stands still until `timeout` is over, and
    for another second or two. The timeout begins with the call.
    """

    send = blocking(IPC.send)
    broadcast = blocking(IPC.broadcast)
    reply = blocking(IPC.reply)
    request = blocking(IPC.request)
    gather = blocking(IPC.gather)
    send_any = blocking(IPC.send_any)
    publish = blocking(IPC.publish)


ipc: Final = IPC()
"""The process-wide IPC."""
