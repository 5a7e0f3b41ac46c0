"""The endpoint: one worker's place in the fleet. Pipes, outboxes, membership, and nothing of the app.

Law: a message's way is short. `post` puts it into a peer's outbox, the
peer's writer puts packets into its pipe; here, bytes become packets, packets
become messages, and the dispatcher calls their handlers. An endpoint without
a lifeline has no peers: it is a fleet of one, not a second code path.

All runs on one event loop, but for `post`, which any thread may call; one
short lock guards the outboxes and the peers.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from asgi_ipc.errors import (
    SendTimeoutError,
    UnknownWorkerError,
    WorkerGoneError,
    WouldBlockError,
)
from asgi_ipc.protocol.batch import Reassembler
from asgi_ipc.protocol.lifeline import (
    Drained,
    Entered,
    Gone,
    Join,
    Joined,
    Leaving,
    Left,
    Took,
    ToWorker,
    Welcome,
    WriteEnd,
)
from asgi_ipc.protocol.membership import Membership, Worker
from asgi_ipc.protocol.outbox import Budget, Encoded, LargeMessage, Outbox, Route, Ticket
from asgi_ipc.protocol.packet import PacketParser
from asgi_ipc.worker.handlers import Delivery, Dispatcher, Registry, current_delivery
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.loopback import LoopbackWriter
from asgi_ipc.worker.pipes import PipeReader, PipeWriter

logger = logging.getLogger("asgi_ipc")

# An outbox that reaches this is written at once instead of at the end of the
# turn: it fills a pipe of the default size.
EAGER_BYTES: Final = 64 * 1024

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


@dataclass(eq=False, slots=True)
class Peer:
    """One worker that this one sends to, itself among them. `context` is what its messages run in."""

    worker: Worker
    outbox: Outbox
    context: contextvars.Context
    writer: PipeWriter | LoopbackWriter | None = None
    # In the list of those to flush at the end of this turn.
    dirty: bool = False
    leaving: bool = False


class Endpoint:
    """One worker among its peers, between its start and the end of its leave."""

    def __init__(
        self,
        me: Worker,
        settings: Settings,
        registry: Registry,
        owner: object,
        lifeline: Lifeline | None,
        pipe_fd: int | None,
    ) -> None:
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.membership = Membership(me)
        self.dispatcher = Dispatcher(registry, self._pause, self._resume)
        self.lifeline = lifeline
        # Between `join` and `leave`; replies are taken until the leave is over.
        self.accepting = False
        self.was_accepting = False
        self.sent = 0
        self.drops: dict[str, int] = {}
        # Accepted messages that never left this worker's outbox, by the receiver's generation.
        self.lost: dict[int, int] = {}
        self._owner = owner
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._thread = threading.get_ident()
        self._budget = Budget()
        self._peers: dict[int, Peer] = {}
        self._dirty: list[Peer] = []
        # Who waits for room, and the peers that they wait for.
        self._waiters: dict[Ticket, asyncio.Future[None]] = {}
        self._congested: set[Peer] = set()
        self._parser = PacketParser(settings.cookie, settings.max_packet_bytes)
        self._loopback_parser = PacketParser(settings.cookie, settings.max_packet_bytes)
        self._reassembler = Reassembler(settings.max_message_bytes)
        self._departures: list[tuple[int, int]] = []
        self._reader = (
            PipeReader(self.loop, pipe_fd, self._on_bytes, self._on_eof) if pipe_fd is not None else None
        )
        self._eof = asyncio.Event()
        self._entered = asyncio.Event()
        # While this worker leaves: something has been written, or has become impossible to write.
        self._progress = asyncio.Event()
        self._leave_deadline: asyncio.Timeout | None = None
        self.turn_messages = 0
        self.turn_bytes = 0
        self._self = self._add_peer(me)
        self._self.writer = self._loopback = LoopbackWriter(
            self.loop, self._self.outbox, self._lock, self._on_loopback, self._on_written
        )

    # --- sending

    def peer(self, to: int | Worker) -> Peer:
        """Whom a pid or a Worker means now. Raises UnknownWorkerError."""
        with self._lock:
            generation = self.membership.generation_of(to)
            peer = self._peers.get(generation) if generation is not None else None
        if peer is None:
            raise UnknownWorkerError(to if isinstance(to, int) else to.pid)
        return peer

    def others(self, *, include_self: bool) -> list[Peer]:
        """The peers that a broadcast means now."""
        with self._lock:
            workers = self.membership.workers
            me = self.membership.me
            return [self._peers[w.generation] for w in workers if include_self or w is not me]

    def pack(self, encoded: bytes) -> Encoded:
        """Mark a message that must travel in fragments, so that its bytes are shared and counted once."""
        return encoded if len(encoded) <= self._self.outbox.small_message_bytes else LargeMessage(encoded)

    @staticmethod
    def size(message: Encoded) -> int:
        """Encoded bytes of a message."""
        return len(message.data) if isinstance(message, LargeMessage) else len(message)

    def post(self, peer: Peer, message: Encoded) -> bool:
        """Put a message into a peer's outbox. False: no room. From any thread."""
        with self._lock:
            if peer.leaving:
                raise UnknownWorkerError(peer.worker.pid)
            if not peer.outbox.offer(message):
                return False
            begins_turn = self._accepted(peer)
        self._after_accept(peer, begins_turn)
        return True

    def post_all(self, peers: Sequence[Peer], message: Encoded) -> list[int]:
        """Put a message into every outbox, or raise WouldBlockError and put it into none; the pids."""
        with self._lock:
            peers = [peer for peer in peers if not peer.leaving]
            for peer in peers:
                if not peer.outbox.has_room(message):
                    raise WouldBlockError(peer.worker.pid)
            begins = [(peer, peer.outbox.offer(message) and self._accepted(peer)) for peer in peers]
        for peer, begins_turn in begins:
            self._after_accept(peer, begins_turn)
        return [peer.worker.pid for peer in peers]

    async def post_when_room(self, peer: Peer, message: Encoded, timeout_s: float | None) -> None:
        """Wait for room in a peer's outbox, behind all that wait there already.

        Raises SendTimeoutError, or WorkerGoneError when it goes meanwhile.
        """
        future: asyncio.Future[None] = self.loop.create_future()
        with self._lock:
            if peer.leaving:
                raise UnknownWorkerError(peer.worker.pid)
            ticket = peer.outbox.wait(message)
            self._congested.add(peer)
        self._waiters[ticket] = future
        self._promote()
        try:
            with self.dispatcher.waiting():
                async with asyncio.timeout(timeout_s):
                    await future
        except TimeoutError:
            if not ticket.accepted:
                raise SendTimeoutError(peer.worker.pid) from None
        finally:
            if self._waiters.pop(ticket, None) is not None:
                with self._lock:
                    peer.outbox.withdraw(ticket)
                self._promote()

    def _accepted(self, peer: Peer) -> bool:
        """Under the lock: note that the peer's outbox has something. True: it had nothing in this turn."""
        self.sent += 1
        if peer.dirty:
            return False
        peer.dirty = True
        self._dirty.append(peer)
        return True

    def _after_accept(self, peer: Peer, begins_turn: bool) -> None:
        if threading.get_ident() != self._thread:
            if begins_turn:
                self.loop.call_soon_threadsafe(self._end_turn)
            return
        if begins_turn:
            # The first message of a quiet moment does not wait for those behind it.
            if len(self._dirty) == 1:
                self.loop.call_soon(self._end_turn)
            if peer.writer is not None:
                peer.writer.flush()
        elif peer.outbox.backlog_bytes >= EAGER_BYTES and peer.writer is not None:
            peer.writer.flush()

    def _end_turn(self) -> None:
        self.turn_messages = self.turn_bytes = 0
        with self._lock:
            dirty, self._dirty = self._dirty, []
            for peer in dirty:
                peer.dirty = False
        for peer in dirty:
            if peer.writer is not None:
                peer.writer.flush()

    def _on_written(self) -> None:
        """A packet has left an outbox: there may be room for those who wait."""
        if self._congested:
            self._promote()
        if not self.accepting:
            self._progress.set()

    def _promote(self) -> None:
        """Accept whoever waits and fits now, for whichever peer: the budget is shared."""
        with self._lock:
            for peer in list(self._congested):
                for ticket in peer.outbox.promote():
                    if self._accepted(peer) and len(self._dirty) == 1:
                        self.loop.call_soon(self._end_turn)
                    future = self._waiters.pop(ticket)
                    if not future.done():
                        future.set_result(None)
                if not peer.outbox.waiting:
                    self._congested.discard(peer)

    # --- receiving

    def _on_bytes(self, chunk: bytes, drained: bool) -> None:
        self._take_packets(self._parser, chunk, drained)
        if self._departures:
            self._settle_departures()

    def _on_loopback(self, packet: bytes) -> None:
        self._take_packets(self._loopback_parser, packet, True)

    def _take_packets(self, parser: PacketParser, chunk: bytes, drained: bool) -> None:
        me = self.membership.me.generation
        for packet in parser.feed(chunk, drained=drained):
            peer = self._peers.get(packet.sender)
            if peer is None and self.lifeline is not None:
                # It knows us, so the word that makes us know it has been written.
                self.lifeline.drain()
                peer = self._peers.get(packet.sender)
            if peer is None or packet.receiver != me:
                self._drop("stale")
                continue
            messages = self._reassembler.accept(packet)
            if messages:
                self.dispatcher.accept(peer.context, messages)

    def _on_eof(self) -> None:
        self._eof.set()
        self._settle_departures()

    def _pause(self) -> None:
        if self._reader is not None:
            self._reader.pause()
        self._loopback.pause()

    def _resume(self) -> None:
        if self._reader is not None and self._entered.is_set():
            self._reader.resume()
        self._loopback.resume()

    def _drop(self, reason: str) -> None:
        self.drops[reason] = self.drops.get(reason, 0) + 1

    # --- counters

    def dropped(self) -> dict[str, int]:
        """What was dropped so far, by reason."""
        drops = dict(self.drops)
        for reason, count in self._reassembler.drops.items():
            drops[reason] = drops.get(reason, 0) + count
        skips = self._parser.skips + self._loopback_parser.skips
        for reason, count in (("corrupt", skips), ("lost", sum(self.lost.values()))):
            if count:
                drops[reason] = drops.get(reason, 0) + count
        return drops

    def outbox_bytes(self) -> dict[int, int]:
        """What waits for each peer, by pid."""
        with self._lock:
            return {peer.worker.pid: peer.outbox.backlog_bytes for peer in self._peers.values()}

    @property
    def reassembly_bytes(self) -> int:
        """Pieces of large messages that are not complete."""
        return self._reassembler.partial_bytes

    # --- joining

    async def join(self) -> None:
        """Become a member; return when what the members broadcast from now on arrives here."""
        if self.lifeline is not None and self.lifeline.is_open:
            self.lifeline.on_eof(self._orphaned)
            self.lifeline.send(Join())
            try:
                async with asyncio.timeout(ENTRY_TIMEOUT_S):
                    await self._entered.wait()
            except TimeoutError:
                logger.warning("the launcher has not answered; not every worker may know this one yet")
        self._entered.set()
        self.accepting = self.was_accepting = True
        # In the turn after this one, so that handlers registered directly behind miss nothing.
        self.loop.call_soon(self._resume)

    def on_word(self, word: ToWorker, fd: int) -> None:
        """The launcher says something about the fleet."""
        match word:
            case Welcome(members):
                for worker in members:
                    self._add_peer(worker)
            case Joined(worker):
                self._add_peer(worker)
                self._take_write_end(worker.generation, fd)
            case WriteEnd(generation):
                self._take_write_end(generation, fd)
            case Entered(missing):
                if missing:
                    logger.warning("workers %s have not answered; they may not know this one yet", missing)
                self._entered.set()
            case Left(generation):
                self._seal(generation)
            case Gone(generation):
                self._bury(generation)
            case _:
                pass

    def _add_peer(self, worker: Worker) -> Peer:
        settings = self.settings
        me = self.membership.me
        route = Route(settings.cookie, me.generation, worker.generation, settings.max_packet_bytes)
        context = self._context.copy()
        context.run(current_delivery.set, Delivery(self._owner, worker))
        peer = Peer(worker, Outbox(route, self._budget), context)
        with self._lock:
            self._peers[worker.generation] = peer
            self.membership.add(worker)
        return peer

    def _take_write_end(self, generation: int, fd: int) -> None:
        assert self.lifeline is not None
        self.lifeline.send(Took(generation, fd >= 0))
        peer = self._peers.get(generation)
        if fd < 0:
            return
        if peer is None or peer.writer is not None:
            os.close(fd)
            return
        peer.writer = PipeWriter(
            self.loop, fd, peer.outbox, self._lock, self._on_written, lambda: self._lose(peer)
        )
        if peer.leaving:
            peer.writer.close_when_empty()
        else:
            peer.writer.flush()

    # --- leaving and dying

    def _seal(self, generation: int) -> None:
        """That peer is leaving: stop addressing it, write what it was promised, close."""
        peer = self._peers.get(generation)
        if peer is None or peer.leaving or peer is self._self:
            return
        self._refuse(peer)
        if isinstance(peer.writer, PipeWriter):
            peer.writer.close_when_empty()
        self._progress.set()

    def _lose(self, peer: Peer) -> None:
        """That peer reads no more: what is in its outbox is lost, and counted."""
        self._refuse(peer)
        with self._lock:
            lost = peer.outbox.close()
        if lost:
            generation = peer.worker.generation
            self.lost[generation] = self.lost.get(generation, 0) + lost
        self._progress.set()

    def _refuse(self, peer: Peer) -> None:
        """Take a peer out of the members; whoever waits for room there waits in vain."""
        with self._lock:
            peer.leaving = True
            self.membership.remove(peer.worker.generation)
            refused = peer.outbox.refuse()
            self._congested.discard(peer)
        for ticket in refused:
            future = self._waiters.pop(ticket)
            if not future.done():
                future.set_exception(WorkerGoneError(peer.worker.pid))

    def _bury(self, generation: int) -> None:
        """That peer is dead. What it wrote is in our pipe still, up to here."""
        peer = self._peers.get(generation)
        if peer is None:
            return
        self._lose(peer)
        if peer.writer is not None:
            peer.writer.close()
        reader = self._reader
        until = reader.read_bytes + reader.unread_bytes() if reader is not None else 0
        self._departures.append((until, generation))
        self._settle_departures()

    def _settle_departures(self) -> None:
        """Forget the dead whose last byte has been read."""
        reader = self._reader
        closed = reader is None or not reader.is_open
        read_bytes = reader.read_bytes if reader is not None else 0
        due = [entry for entry in self._departures if closed or entry[0] <= read_bytes]
        self._departures = [entry for entry in self._departures if entry not in due]
        for _, generation in due:
            self._reassembler.forget(generation)
            with self._lock:
                self._peers.pop(generation, None)

    def _orphaned(self) -> None:
        """The launcher is gone: nobody will tell who leaves, so everyone treats everyone as leaving."""
        self._entered.set()
        for generation in list(self._peers):
            self._seal(generation)
        deadline = self._leave_deadline
        if deadline is not None and (when := deadline.when()) is not None:
            deadline.reschedule(min(when, self.loop.time() + ORPHAN_DRAIN_TIMEOUT_S))

    async def leave(self) -> None:
        """Stop accepting, read and handle what others have sent, write what was accepted, close.

        Takes at most the drain timeout; what is left then is counted and logged.
        """
        self.accepting = False
        lifeline = self.lifeline
        timeout_s = self.settings.drain_timeout_s
        if lifeline is not None and lifeline.is_open:
            lifeline.send(Leaving())
        else:
            timeout_s = min(timeout_s, ORPHAN_DRAIN_TIMEOUT_S)
        clean = True
        try:
            async with asyncio.timeout(timeout_s) as self._leave_deadline:
                await self._drain()
        except TimeoutError:
            clean = False
        self._leave_deadline = None
        unsent = sum(peer.outbox.messages for peer in self._peers.values())
        cancelled = await self.dispatcher.cancel_all()
        self._close()
        if not clean:
            logger.warning("drain timeout: %d messages not sent, %d handlers cancelled", unsent, cancelled)
        if lifeline is not None:
            lifeline.send(Drained(clean, unsent))

    async def _drain(self) -> None:
        # Flushing without reading deadlocks: two leavers would wait on each other's full pipes.
        if self._reader is not None:
            await self._eof.wait()
        while True:
            await self.dispatcher.idle()
            if not any(peer.outbox for peer in self._peers.values()):
                return
            self._progress.clear()
            await self._progress.wait()

    def _close(self) -> None:
        for peer in self._peers.values():
            self._refuse(peer)
            peer.outbox.close()
            if peer.writer is not None:
                peer.writer.close()
        if self._reader is not None:
            self._reader.close()
