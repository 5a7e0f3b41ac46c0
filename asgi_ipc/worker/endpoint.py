"""The endpoint: one worker's place in the fleet, from joining to the end of its leave.

Law: a message's way is short. Outgoing puts it into a peer's outbox and its
pipe; here, bytes become packets, packets become messages, and the dispatcher
calls their handlers. An endpoint without a lifeline has no peers: it is a
fleet of one, not a second code path.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.words import (
    Decided,
    Drained,
    Entered,
    Gone,
    Join,
    Joined,
    Leads,
    Leaving,
    Left,
    Resigned,
    Took,
    ToWorker,
    Welcome,
    WriteEnd,
)
from asgi_ipc.wire.arena import NOTHING_COPIED, Arena
from asgi_ipc.wire.batch import Reassembler
from asgi_ipc.wire.message import ANSWER, ASK, KNOWN, PUBLISH, TOPICS, WITHDRAW
from asgi_ipc.wire.packet import PacketParser
from asgi_ipc.worker import descriptors
from asgi_ipc.worker.dispatch.delivery import Delivery, current_delivery, large_bytes
from asgi_ipc.worker.dispatch.dispatcher import Dispatcher
from asgi_ipc.worker.dispatch.registry import Handler, Registry
from asgi_ipc.worker.features.answers import Answers
from asgi_ipc.worker.features.leader import Leading
from asgi_ipc.worker.features.messaging import Messaging
from asgi_ipc.worker.features.once import Claiming
from asgi_ipc.worker.features.requests import Questions
from asgi_ipc.worker.features.topics import Topics
from asgi_ipc.worker.heartbeat import Heartbeat
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.logs import logger
from asgi_ipc.worker.standalone import Launcher, Solo
from asgi_ipc.worker.stats import Stats
from asgi_ipc.worker.transport.mapping import Mapping, map_arena
from asgi_ipc.worker.transport.outgoing import Outgoing
from asgi_ipc.worker.transport.peers import Peer
from asgi_ipc.worker.transport.pipes import PipeReader

# What is smaller counts as nothing while handlers hold it, unless it is text or bytes: a thousand are 4 MiB.
LARGE_BYTES: Final = 4096

# How long a newcomer waits for the members to know it; a little more than the
# launcher waits, which names those that are missing.
ENTRY_TIMEOUT_S: Final = 6.0

# How long a leave may take when the launcher has died: all are out within 5 s.
ORPHAN_DRAIN_TIMEOUT_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What every worker of a run must agree on, and the time a leave may take."""

    cookie: bytes
    max_packet_bytes: int
    max_message_bytes: int
    drain_timeout_s: float


@dataclass(frozen=True, slots=True)
class Departure:
    """A dead peer of whom something lies in our pipe still, until so many bytes have been read in all."""

    peer: Peer
    reason: str
    until_bytes: int


class Endpoint:
    """One worker among its peers.

    `owner` is the lifespan on whose behalf handlers run. Without a lifeline and a
    pipe it is a fleet of one.
    """

    def __init__(
        self,
        me: Worker,
        settings: Settings,
        registry: Registry,
        owner: object,
        lifeline: Lifeline | None = None,
        pipe_fd: int | None = None,
        heartbeat: Heartbeat | None = None,
        arena_fd: int = -1,
    ) -> None:
        self.settings = settings
        self.me = me
        # The worker's, or without a launcher one of its own.
        self.heartbeat = heartbeat or Heartbeat(_nothing)
        self._own_heartbeat = None if heartbeat else self.heartbeat
        self.outgoing = Outgoing(me, settings.cookie, settings.max_packet_bytes, settings.max_message_bytes)
        # This worker's own shared memory, and that of others, by generation.
        self._mapping = map_arena(arena_fd, writable=True, whose=me.pid)
        self._mappings: dict[int, Mapping] = {}
        if self._mapping is not None:
            self.outgoing.lend(Arena(self._mapping.memory))
        self.heartbeat.also(self._on_heartbeat)
        self.dispatcher = Dispatcher(registry, self._pause, self._resume)
        self.dispatcher.calls.pid = me.pid
        # New messages are refused from the leave on, replies only after it.
        self.messaging = Messaging(self.outgoing, self.dispatcher.calls)
        self.replying = Messaging(self.outgoing, self.dispatcher.calls)
        self.questions = Questions(self.outgoing, self.dispatcher.calls)
        self._answers = Answers(registry, self.outgoing, self.dispatcher.calls)
        self._registry = registry
        # From `leave` on.
        self.leaving = False
        self._loop = asyncio.get_running_loop()
        self._lifeline = lifeline
        self._launcher: Launcher = lifeline or Solo(me, self.on_word)
        self._owner = owner
        self._context = contextvars.copy_context()
        self.leading = Leading(me, registry, self.dispatcher.calls, self._context)
        self.claiming = Claiming(self._launcher, self.dispatcher.calls)
        self._parser = PacketParser(settings.cookie, settings.max_packet_bytes)
        self._loopback_parser = PacketParser(settings.cookie, settings.max_packet_bytes)
        self._reassembler = Reassembler(settings.max_message_bytes)
        self._stale = 0
        # The dead whose last byte has not been read, and how many bytes have been read and gone through:
        # word of a death may come between two packets of one read.
        self._departures: list[Departure] = []
        self._taken_bytes = 0
        # Between `join` and `leave` and while this leaves, messages are handed on; who joins before that is
        # told of then.
        self._begun = False
        self._over = False
        self._early_news: list[Callable[[], None]] = []
        self._reader = (
            PipeReader(self._loop, pipe_fd, self._on_bytes, self._on_eof) if pipe_fd is not None else None
        )
        self._eof = asyncio.Event()
        self._entered = asyncio.Event()
        self._asked_to_join = False
        # How often its lifespan is entered now.
        self.entries = 0
        # Its leave has begun, and is over.
        self.departing = asyncio.Event()
        self.departed = asyncio.Event()
        self._was_cancelled = False
        self._cancelled_before = 0
        # When the leave must be over, from `resign` on; and what waits for that now.
        self._leave_by: float | None = None
        self._leave_deadline: asyncio.Timeout | None = None
        self._self_peer = self.outgoing.add(me, self._context_of(me))
        self._loopback = self.outgoing.loop_back(self._self_peer, self._on_loopback)
        self.topics = Topics(
            self.outgoing, self.messaging, self.dispatcher.calls, self._self_peer, settings.max_message_bytes
        )
        self.dispatcher.own = {
            ASK: self._answers.asked,
            ANSWER: self.questions.answered,
            WITHDRAW: self._answers.withdrawn,
            PUBLISH: self.topics.published,
            TOPICS: self.topics.told,
            KNOWN: self.topics.answered,
        }

    # --- receiving

    def _on_bytes(self, chunk: bytes, drained: bool) -> None:
        self._take_packets(self._parser, chunk, drained)
        self._taken_bytes += len(chunk)
        if self._departures:
            self._settle_departures()

    def _on_loopback(self, packet: bytes) -> None:
        self._take_packets(self._loopback_parser, packet, True)

    def _take_packets(self, parser: PacketParser, chunk: bytes, drained: bool) -> None:
        for packet in parser.feed(chunk, drained=drained):
            peer = self.outgoing.peers.find(packet.sender)
            if peer is None and self._lifeline is not None:
                # It knows us, so the word that makes us know it has been written.
                self._lifeline.drain()
                peer = self.outgoing.peers.find(packet.sender)
            if peer is None or packet.receiver != self.me.generation:
                self._stale += 1
                continue
            messages = self._reassembler.accept(packet)
            if messages:
                context = peer.context
                if self._reassembler.each_bytes >= LARGE_BYTES:
                    context = context.copy()
                    context.run(large_bytes.set, self._reassembler.each_bytes)
                self.dispatcher.accept(context, messages)
                # Kept, they would live while the next are decoded: with two large messages at a time the C
                # library gives the heap's end back and takes it again for each (docs/decisions/0009).
                del messages
        if self._reassembler.fetched or self._reassembler.copied:
            self._settle_places()

    def _settle_places(self) -> None:
        """Say what has been copied from others' arenas, and hear what they have copied from this one."""
        reassembler, outgoing = self._reassembler, self.outgoing
        while reassembler.fetched:
            outgoing.acknowledge(*reassembler.fetched.popitem())
        copied, reassembler.copied = reassembler.copied, []
        for receiver, serial in copied:
            outgoing.copied(receiver, serial)

    def _on_heartbeat(self) -> None:
        """Once a second: acknowledge what has not been yet, and give back what the arena does not need."""
        if self._over:
            return
        self._reassembler.pay()
        self._settle_places()
        unused = self.outgoing.unused_arena_bytes()
        if unused and self._mapping is not None:
            self._mapping.give_back(unused)

    def _on_eof(self) -> None:
        self._eof.set()
        self._settle_departures()

    def _pause(self) -> None:
        if self._reader is not None:
            self._reader.pause()
        self._loopback.pause()

    def _resume(self) -> None:
        if self._reader is not None:
            self._reader.resume()
        self._loopback.resume()

    def stats(self) -> Stats:
        """The counters now."""
        dispatcher, heartbeat = self.dispatcher, self.heartbeat
        return Stats(
            sent=self.outgoing.sent,
            received=dispatcher.received,
            discarded=dispatcher.discarded,
            handler_errors=dispatcher.handler_errors,
            dropped=self._dropped(),
            outbox_bytes=self.outgoing.outbox_bytes(),
            reassembly_bytes=self._reassembler.partial_bytes,
            loop_lag_s=heartbeat.lag_s,
            max_loop_lag_s=max(heartbeat.max_lag_s, heartbeat.lag_s),
        )

    def _dropped(self) -> dict[str, int]:
        counts = {
            **self._reassembler.drops,
            "stale": self._stale,
            "lost": self.outgoing.lost,
            "late_answer": self.questions.late,
            "overflow": self.topics.overflowed,
            "unsubscribed": self.topics.unwanted,
            "invalid_name": self.dispatcher.invalid_names,
            "invalid_data": self.dispatcher.calls.invalid_data,
            "unhandled": self.dispatcher.unhandled,
        }
        counts["corrupt"] = counts.get("corrupt", 0) + self._parser.skips + self._loopback_parser.skips
        return {reason: count for reason, count in counts.items() if count}

    @property
    def is_settled(self) -> bool:
        """Whether all that was accepted is written, all that lies in the pipe handled, and all news told."""
        waits = self._early_news or self._departures or self.dispatcher.is_busy
        unread_bytes = self._reader.unread_bytes() if self._reader is not None else 0
        return self._begun and not waits and not unread_bytes and self.outgoing.is_empty()

    @property
    def drains(self) -> bool:
        """Whether its leave has begun and is not over."""
        return self._leave_by is not None and not self._over

    # --- joining

    async def join(self) -> None:
        """Become a member; return when what the members broadcast from now on arrives here.

        Several may wait for that, and each may give up.
        """
        if self._launcher.is_open:
            if not self._asked_to_join:
                self._asked_to_join = True
                self._launcher.on_eof(self._orphaned)
                self._launcher.send(Join())
            try:
                async with asyncio.timeout(ENTRY_TIMEOUT_S):
                    await self._entered.wait()
            except TimeoutError:
                logger.warning("the launcher has not answered; not every worker may know this one yet")
        # In the turn after this one, so that handlers registered directly behind miss nothing.
        self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Hand on what has happened while this joined, and from now on messages."""
        self._begun = True
        news, self._early_news = self._early_news, []
        for tell in news:
            tell()
        self.leading.begin()
        if not self.dispatcher.is_full:
            self._resume()

    def on_word(self, word: ToWorker, fd: int, arena_fd: int = -1) -> None:
        """The launcher says something about the fleet. With it came a write end and an arena, or -1."""
        match word:
            case Welcome(members):
                for worker in members:
                    self._add_peer(worker)
                # As long as nobody has said which of them have something to say.
                self.topics.expect(worker.generation for worker in members)
            case Joined(worker):
                self._add_peer(worker)
                self._take_write_end(worker.generation, fd, arena_fd)
                self._tell(self._registry.on_join, (worker,))
            case WriteEnd(generation):
                self._take_write_end(generation, fd, arena_fd)
            case Entered(missing, telling):
                self.topics.expect(telling)
                if missing:
                    logger.warning("workers %s have not answered; they may not know this one yet", missing)
                self._entered.set()
            case Left(generation):
                self._seal(generation)
            case Gone(generation, reason):
                self.leading.gone(generation)
                self._bury(generation, reason)
            case Leads(leader):
                self.leading.told(leader)
            case Decided(number, first):
                self.claiming.decided(number, first)
            case _:
                pass

    def _add_peer(self, worker: Worker) -> None:
        self.topics.meet(self.outgoing.add(worker, self._context_of(worker)))

    def _context_of(self, worker: Worker) -> contextvars.Context:
        """What its messages run in."""
        context = self._context.copy()
        context.run(current_delivery.set, Delivery(self._owner, worker))
        return context

    def _take_write_end(self, generation: int, fd: int, arena_fd: int) -> None:
        assert self._lifeline is not None
        self._lifeline.send(Took(generation, fd >= 0, not self.topics.is_empty))
        if fd < 0:
            return
        peer = self.outgoing.peers.find(generation)
        if peer is None or peer.writer is not None or self._over:
            # Whoever leaves waits for the last of its write ends.
            descriptors.close(fd)
            if arena_fd >= 0:
                descriptors.close(arena_fd)
            return
        mapping = map_arena(arena_fd, writable=False, whose=peer.worker.pid)
        if mapping is not None:
            self._mappings[generation] = mapping
            self._reassembler.attach(generation, mapping.memory)
            self.outgoing.acknowledge(generation, NOTHING_COPIED)
        self.outgoing.connect(peer, fd)

    # --- others leaving and dying

    def _seal(self, generation: int) -> None:
        peer = self.outgoing.peers.find(generation)
        if peer is not None and peer is not self._self_peer:
            self.outgoing.seal(peer)
            self.topics.forget(peer)

    def _bury(self, generation: int, reason: str) -> None:
        """That peer is dead. What it wrote is in our pipe still, up to here."""
        peer = self.outgoing.peers.find(generation)
        if peer is None:
            return
        self.outgoing.lose(peer)
        self.topics.forget(peer)
        self.outgoing.reaped(generation)
        reader = self._reader
        until = reader.read_bytes + reader.unread_bytes() if reader is not None else 0
        self._departures.append(Departure(peer, reason, until))
        self._settle_departures()

    def _settle_departures(self) -> None:
        """Forget the dead whose last byte has been read, and its packet taken."""
        closed = self._reader is None or not self._reader.is_open
        due = [each for each in self._departures if closed or each.until_bytes <= self._taken_bytes]
        self._departures = [each for each in self._departures if each not in due]
        for each in due:
            worker = each.peer.worker
            self._reassembler.forget(worker.generation)
            self.outgoing.forget(worker.generation)
            # Behind the last of its answers, and of its questions.
            self.dispatcher.behind(functools.partial(self._answers.gone, worker))
            self.dispatcher.behind(functools.partial(self.questions.gone, worker))
            if worker.generation in self._mappings:
                self._mappings.pop(worker.generation).close()
            self._tell(self._registry.on_leave, (worker, each.reason, each.peer.lost), behind=worker.pid)

    def _tell(self, watchers: Sequence[Handler], news: tuple[Any, ...], behind: int = 0) -> None:
        """Tell those who watch the fleet now, behind what has been read and not before verbs may be used."""
        announce = self.dispatcher.announce
        tell = functools.partial(announce, tuple(watchers), news, self._context, behind)
        if self._begun:
            tell()
        else:
            self._early_news.append(tell)

    def _orphaned(self) -> None:
        """The launcher is gone: nobody will tell who leaves, so everyone treats everyone as leaving."""
        self._entered.set()
        self.topics.stop()
        self.claiming.close("the launcher is gone")
        for peer in self.outgoing.peers.all():
            self._seal(peer.worker.generation)
        if self._leave_by is not None:
            self._leave_by = min(self._leave_by, self._loop.time() + ORPHAN_DRAIN_TIMEOUT_S)
            if self._leave_deadline is not None:
                self._leave_deadline.reschedule(self._leave_by)

    # --- leaving

    async def resign(self) -> None:
        """End what runs in the leader only. The time that it takes is the leave's: begun here."""
        timeout_s = self.settings.drain_timeout_s
        if self._lifeline is None or not self._lifeline.is_open:
            timeout_s = min(timeout_s, ORPHAN_DRAIN_TIMEOUT_S)
        self._leave_by = self._loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(self._leave_by) as self._leave_deadline:
                await self.leading.end()
        except TimeoutError:
            # Until this process has ended nobody else may run them.
            logger.warning("drain timeout: %s not ended", ", ".join(self.leading.running))
        except asyncio.CancelledError:
            self._leave_by = self._loop.time()
            self._was_cancelled = True
            raise
        else:
            self._launcher.send(Resigned())
        finally:
            self._leave_deadline = None

    async def leave(self) -> None:
        """Stop accepting, read and handle what others have sent, write what was accepted, close.

        Takes at most what `resign` has left of the drain timeout; what is left then is counted and logged.
        """
        self.leaving = True
        # The others will have no way to say what they have copied.
        self.outgoing.hurry()
        # A join that was cut short leaves, too.
        self._begin()
        if self._lifeline is not None:
            self._lifeline.send(Leaving())
        self._cancelled_before = self.dispatcher.calls.cancelled
        clean = True
        try:
            async with asyncio.timeout_at(self._leave_by) as self._leave_deadline:
                await self._drain()
        except TimeoutError:
            clean = False
        except asyncio.CancelledError:
            # Nothing stays open, and nothing uncounted.
            self._was_cancelled = True
            await self._end(clean=False)
            raise
        await self._end(clean)

    async def _end(self, clean: bool) -> None:
        """Cancel what still runs, for a moment let it clean up, and close."""
        self._leave_deadline = None
        # A loop that is ended has cancelled handlers together with this.
        cancelled = self.dispatcher.calls.cancelled - self._cancelled_before
        left = self.dispatcher.stop()
        try:
            await self.dispatcher.cleaned_up(left)
        finally:
            # Also if this is cancelled again, as anyio does at each turn.
            self._close(clean, cancelled + len(left))

    def _close(self, clean: bool, cancelled: int) -> None:
        """Close everything; count, log and tell what is left, unless it is nothing."""
        self._over = True
        self.questions.close()
        self.topics.close()
        self.claiming.close("ipc.lifespan has ended")
        unsent = self.outgoing.close()
        if self._reader is not None:
            # What its senders have written is theirs no more; here it is counted, at least.
            self._reader.read_rest()
            self._reader.close()
        self._reassembler.close()
        for mapping in self._mappings.values():
            mapping.close()
        if self._mapping is not None:
            self._mapping.close()
        unhandled = self.dispatcher.unhandled
        if self._was_cancelled and not (unsent or unhandled or cancelled):
            # It had nothing to wait for any more, but perhaps for others' last words.
            clean = self._reader is None or self._eof.is_set()
        if not clean:
            logger.warning(
                "%s: %d messages not sent, %d not handled, %d handlers cancelled",
                "leave cancelled by the app" if self._was_cancelled else "drain timeout",
                unsent,
                unhandled,
                cancelled,
            )
        if self._own_heartbeat is not None:
            self._own_heartbeat.close()
        if self._lifeline is not None:
            self._lifeline.send(Drained(clean, unsent, unhandled, self._was_cancelled))

    async def _drain(self) -> None:
        # Flushing without reading deadlocks: two leavers would wait on each other's full pipes.
        if self._reader is not None:
            await self._eof.wait()
        while True:
            await self.dispatcher.idle()
            if self.outgoing.is_empty():
                return
            self.outgoing.progress.clear()
            await self.outgoing.progress.wait()


def _nothing() -> None:
    pass
