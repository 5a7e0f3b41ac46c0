"""Outgoing: what this worker sends, and who waits for room to send it.

Law: a message is accepted here or nowhere. `post` and `post_to_each` may be
called from any thread; one short lock guards the outboxes and the peers, but
for the short way of a small message. Only the event loop writes: at once for
the first message of a quiet moment and for an outbox that is filling, else at
the end of the turn, so that messages share packets.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from asgi_ipc.errors import (
    DeliveryError,
    SendTimeoutError,
    UnknownWorkerError,
    WorkerGoneError,
    WouldBlockError,
)
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.arena import Arena
from asgi_ipc.wire.batch import batch_capacity_bytes
from asgi_ipc.wire.message import Encoded, LargeMessage, Packer, encode
from asgi_ipc.wire.outbox import FRESH_MESSAGES, Budget, Outbox, Route, Ticket
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.transport.loopback import LoopbackWriter
from asgi_ipc.worker.transport.peers import Members, Peer, Peers
from asgi_ipc.worker.transport.pipes import PipeWriter

# An outbox that reaches this is written at once instead of at the end of the
# turn: it fills a packet of places in the arena, and a pipe of the default size.
EAGER_BYTES: Final = 256 * 1024

# A turn that brings a peer more than so many messages is followed by others
# like it: then the first message of the next waits for those behind it.
QUIET_MESSAGES: Final = 4


class Refused(NamedTuple):
    """A message for which there was no room."""

    peer: Peer
    message: Encoded


@dataclass(eq=False, slots=True)
class Waiter:
    """A message's place in the queue for room in an outbox; `future` ends when it is accepted or refused."""

    peer: Peer
    future: asyncio.Future[None]
    ticket: Ticket = field(init=False)


class Outgoing:
    """The sending half of an endpoint: peers, what waits for each, and who waits for room."""

    def __init__(self, me: Worker, cookie: bytes, max_packet_bytes: int, max_message_bytes: int) -> None:
        self.loop = asyncio.get_running_loop()
        # What this turn has accepted of those who yield after so much: messages; and, of large ones, bytes.
        self.turn_messages = 0
        self.turn_bytes = 0
        # Accepted messages that never left an outbox because their receiver went.
        self.lost = 0
        # While this worker leaves: something has been written, or has become impossible to write.
        self.progress = asyncio.Event()
        self.thread = threading.get_ident()
        packer = Packer(max_message_bytes, batch_capacity_bytes(max_packet_bytes))
        self.pack = packer.pack
        self.wrap = packer.wrap
        self._names = packer.known_names
        self._short_bytes = packer.short_bytes
        self._short_characters = packer.short_characters
        self._me = me
        self._cookie = cookie
        self._max_packet_bytes = max_packet_bytes
        self._lock = threading.Lock()
        self.peers = Peers(me)
        self._budget = Budget()
        self._dirty: list[Peer] = []
        # Of those who have as little to do, another one is the first each time.
        self._turns = 0
        self._turn_ends = False
        # Who waits for room, and the peers that they wait for.
        self._waiters: dict[Ticket, asyncio.Future[None]] = {}
        self._congested: set[Peer] = set()
        # What peers that are forgotten had been sent.
        self._sent_before = 0

    # --- peers

    def add(self, worker: Worker, context: contextvars.Context) -> Peer:
        """`worker` can be addressed from now on."""
        route = Route(self._cookie, self._me.generation, worker.generation, self._max_packet_bytes)
        peer = Peer(worker, Outbox(route, self._budget), context)
        with self._lock:
            self.peers.add(peer)
        return peer

    def loop_back(self, me: Peer, on_packet: Callable[[bytes], None]) -> LoopbackWriter:
        """Have what this worker sends itself come back to it."""
        writer = LoopbackWriter(self.loop, me.outbox, self._lock, on_packet, self._on_written)
        me.writer = writer
        return writer

    def connect(self, peer: Peer, write_end: Descriptor) -> None:
        """The peer's write end has arrived; what has been accepted for it goes out."""
        peer.writer = PipeWriter(
            self.loop, write_end, peer.outbox, self._lock, self._on_written, lambda: self.lose(peer)
        )
        if peer.leaving:
            peer.writer.close_when_empty()
        else:
            peer.writer.flush()

    def seal(self, peer: Peer) -> None:
        """That peer is leaving: stop addressing it, write what it was promised, close."""
        if peer.leaving:
            return
        self._refuse(peer)
        if isinstance(peer.writer, PipeWriter):
            peer.writer.close_when_empty()
        self.progress.set()

    def lose(self, peer: Peer) -> None:
        """That peer reads no more: what is in its outbox is lost, and counted."""
        self._refuse(peer)
        with self._lock:
            lost = peer.outbox.close()
        peer.lost += lost
        self.lost += lost
        if peer.writer is not None:
            peer.writer.close()
        self.progress.set()

    # --- the arena

    def lend(self, arena: Arena) -> None:
        """Much at once goes through this worker's arena, to those who have mapped it."""
        self._budget.arena = arena

    def acknowledge(self, generation: int, serial: int) -> None:
        """Tell that peer what has been copied from its arena, before anything else."""
        peer = self.peers.find(generation)
        if peer is None:
            return
        with self._lock:
            if peer.leaving:
                return
            peer.outbox.copied = serial
            self._touch(peer)
        self._schedule_end_of_turn()

    def copied(self, generation: int, serial: int) -> None:
        """That peer has copied what was placed for it up to there, or has mapped this arena."""
        peer = self.peers.find(generation)
        if peer is None:
            return
        with self._lock:
            peer.outbox.receiver_copied(serial)
        if peer.writer is not None:
            peer.writer.flush()

    def reaped(self, generation: int) -> None:
        """That peer's process has ended: what it held in the arena is free."""
        if self._budget.arena is not None:
            with self._lock:
                self._budget.arena.forget(generation)

    def hurry(self) -> None:
        """Wait for nobody's word any more: this worker is leaving."""
        for peer in self.peers.all():
            peer.outbox.is_patient = False
            if peer.writer is not None:
                peer.writer.flush()

    def unused_arena_bytes(self) -> range:
        """Which bytes of the arena have been in use, and need no memory any more."""
        with self._lock:
            return self._budget.arena.trim() if self._budget.arena is not None else range(0)

    def forget(self, generation: int) -> None:
        """That peer is dead and its last byte has been read."""
        peer = self.peers.find(generation)
        if peer is not None:
            with self._lock:
                self.peers.forget(peer)
                self._sent_before += peer.outbox.accepted

    def close(self) -> int:
        """Close everything; how many accepted messages were not sent."""
        unsent = 0
        for peer in self.peers.all():
            unsent += peer.outbox.messages
            self.lose(peer)
        return unsent

    def is_empty(self) -> bool:
        """Whether every outbox is."""
        return not any(peer.outbox for peer in self.peers.all())

    # --- messages

    def send(self, to: int | Worker, name: str, data: Any) -> Refused | None:
        """Put one message into the outbox of whom `to` means; Refused if there is no room. From any thread.

        Raises UnknownWorkerError, and as `pack`.
        """
        # What is small and plain goes the short way in one piece: a call for each step would cost a quarter.
        kind = type(data)
        message: Encoded
        if (
            type(name) is str
            and name in self._names
            and (
                (kind is bytes and len(data) <= self._short_bytes)
                or (kind is str and len(data) <= self._short_characters)
            )
        ):
            message = encode((name, data))
        else:
            message = self.pack(name, data)
        peer = self.peers.by_pid.get(to) if type(to) is int else None
        if peer is None:
            peer = self.peers.meant_by(to)
        outbox = peer.outbox
        if outbox.full or type(message) is not bytes:
            return None if self._post_exactly(peer, message) else Refused(peer, message)
        fresh = outbox.fresh
        fresh.append(message)
        if not peer.dirty or len(fresh) >= FRESH_MESSAGES:
            self._appended(peer, message)
        return None

    def post(self, peer: Peer, message: Encoded) -> bool:
        """Put a message into a peer's outbox. False: no room. From any thread."""
        outbox = peer.outbox
        if outbox.full or type(message) is not bytes:
            return self._post_exactly(peer, message)
        fresh = outbox.fresh
        fresh.append(message)
        if not peer.dirty or len(fresh) >= FRESH_MESSAGES:
            return self._appended(peer, message)
        return True

    def _post_exactly(self, peer: Peer, message: Encoded) -> bool:
        with self._lock:
            if peer.leaving:
                raise UnknownWorkerError(peer.worker.pid)
            if not peer.outbox.offer(message):
                return False
            begins_turn = self._touch(peer)
            backlog_bytes = peer.outbox.settled_bytes
        self.turn_bytes += len(message)
        self._after_accept(peer, begins_turn, backlog_bytes)
        return True

    def _appended(self, peer: Peer, message: bytes) -> bool:
        """The first message of a turn has gone the short way, or many have: see that they go on."""
        outbox = peer.outbox
        with self._lock:
            # What was appended before a peer left is written; behind that nobody would look again.
            if peer.leaving and outbox.take_back(message):
                raise UnknownWorkerError(peer.worker.pid)
            begins_turn = self._touch(peer)
            backlog_bytes = outbox.settle() if len(outbox.fresh) >= FRESH_MESSAGES else 0
        self._after_accept(peer, begins_turn, backlog_bytes)
        return True

    def post_to_each(self, members: Members, message: Encoded) -> tuple[Sequence[int], Sequence[Peer]]:
        """Put a message into every outbox with room; the pids of those, and the peers that had none."""
        if type(message) is bytes and _all_open(members):
            return self._append_to_each(members, message), ()
        took: list[int] = []
        full: list[Peer] = []
        for peer in members.peers:
            # One that leaves in this very moment is in neither list.
            with suppress(UnknownWorkerError):
                if self.post(peer, message):
                    took.append(peer.worker.pid)
                else:
                    full.append(peer)
        return took, full

    def post_to_all(self, members: Members, message: Encoded) -> Sequence[int]:
        """Put a message into every outbox, or raise WouldBlockError and put it into none; the pids."""
        if type(message) is bytes and _all_open(members):
            return self._append_to_each(members, message)
        with self._lock:
            peers = tuple(peer for peer in members.peers if not peer.leaving)
            # A large message's bytes are shared; of a small one every outbox has its own.
            each_bytes = 0 if isinstance(message, LargeMessage) else len(message)
            for place, peer in enumerate(peers):
                if not peer.outbox.has_room(message, place * each_bytes):
                    raise WouldBlockError(peer.worker.pid)
            begun = []
            for peer in peers:
                peer.outbox.offer(message)
                begun.append((self._touch(peer), peer.outbox.settled_bytes))
        for peer, (begins_turn, backlog_bytes) in zip(peers, begun, strict=True):
            self._after_accept(peer, begins_turn, backlog_bytes)
        return [peer.worker.pid for peer in peers]

    def _append_to_each(self, members: Members, message: bytes) -> Sequence[int]:
        """The short way of a broadcast; the pids."""
        gone = []
        for peer in members.peers:
            fresh = peer.outbox.fresh
            fresh.append(message)
            if not peer.dirty or len(fresh) >= FRESH_MESSAGES:
                try:
                    self._appended(peer, message)
                except UnknownWorkerError:
                    gone.append(peer.worker.pid)
        return [pid for pid in members.pids if pid not in gone] if gone else members.pids

    def least_busy(self) -> Peer:
        """The member for whom, or at whom, the least waits; equals take turns. UnknownWorkerError: nobody."""
        peers = self.peers.members(include_self=True).peers
        if not peers:
            raise UnknownWorkerError(self._me.pid)
        self._turns += 1
        first = self._turns % len(peers)
        return min((*peers[first:], *peers[:first]), key=self._busy_bytes)

    def _busy_bytes(self, peer: Peer) -> int:
        arena = self._budget.arena
        held_bytes = arena.busy_bytes(peer.worker.generation) if arena is not None else 0
        unread_bytes = peer.writer.unread_bytes() if peer.writer is not None else 0
        return peer.outbox.backlog_bytes + held_bytes + unread_bytes

    def queue(self, peer: Peer, message: Encoded) -> Waiter:
        """Take a place for a message behind all that wait for room in a peer's outbox."""
        waiter = Waiter(peer, self.loop.create_future())
        with self._lock:
            if peer.leaving:
                raise UnknownWorkerError(peer.worker.pid)
            waiter.ticket = peer.outbox.wait(message)
            self._congested.add(peer)
            self._waiters[waiter.ticket] = waiter.future
        self._promote()
        return waiter

    def say(self, peer: Peer, message: Encoded) -> None:
        """Post one of the package's own messages, as soon as there is room; not at all if that peer goes."""
        with suppress(DeliveryError):
            if not self.post(peer, message):
                self.queue(peer, message).future.add_done_callback(_look_at)

    async def accepted(self, waiter: Waiter, timeout_s: float | None) -> None:
        """Wait until a queued message has been accepted; otherwise it is withdrawn, whole.

        Raises SendTimeoutError, or WorkerGoneError when the peer goes meanwhile.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.future
        except TimeoutError:
            if not waiter.ticket.accepted:
                raise SendTimeoutError(waiter.peer.worker.pid) from None
        finally:
            self.withdraw(waiter)

    def withdraw(self, waiter: Waiter) -> None:
        """Take a queued message back unless it has been accepted or refused."""
        with self._lock:
            waits = self._waiters.pop(waiter.ticket, None) is not None
            withdrawn = waits and waiter.peer.outbox.withdraw(waiter.ticket)
        if withdrawn:
            # Who waited behind it may fit now.
            self._promote()

    def _touch(self, peer: Peer) -> bool:
        """Under the lock: note that the peer's outbox has something. True: it had nothing in this turn."""
        if peer.dirty:
            return False
        peer.dirty = True
        self._dirty.append(peer)
        return True

    def _after_accept(self, peer: Peer, begins_turn: bool, backlog_bytes: int) -> None:
        if threading.get_ident() != self.thread:
            if begins_turn:
                self.loop.call_soon_threadsafe(self._end_turn)
            return
        if begins_turn and not self._turn_ends:
            self._schedule_end_of_turn()
        # The first message of a quiet moment does not wait for those behind it.
        if (begins_turn and peer.quiet) or backlog_bytes >= EAGER_BYTES:
            writer = peer.writer
            if writer is not None and not peer.outbox.must_wait:
                writer.flush()

    def _schedule_end_of_turn(self) -> None:
        if not self._turn_ends:
            self._turn_ends = True
            self.loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn_ends = False
        self.turn_messages = self.turn_bytes = 0
        with self._lock:
            dirty, self._dirty = self._dirty, []
            for peer in dirty:
                peer.dirty = False
        for peer in dirty:
            outbox, writer = peer.outbox, peer.writer
            waiting = outbox.messages
            peer.quiet = waiting <= QUIET_MESSAGES
            if writer is not None and (waiting or outbox.copied is not None):
                writer.flush()

    def _on_written(self) -> None:
        """A packet has left an outbox: there may be room for those who wait."""
        if self._congested:
            self._promote()
        self.progress.set()

    def _promote(self) -> None:
        """Accept whoever waits and fits now, for whichever peer: the budget is shared."""
        with self._lock:
            for peer in list(self._congested):
                for ticket in peer.outbox.promote():
                    if self._touch(peer):
                        self._schedule_end_of_turn()
                    _settle(self._waiters.pop(ticket, None), None)
                if not peer.outbox.waiting:
                    self._congested.discard(peer)

    def _refuse(self, peer: Peer) -> None:
        """Take a peer out of the members; whoever waits for room there waits in vain."""
        with self._lock:
            self.peers.refuse(peer)
            # It may have closed its end to us by the time it has copied something.
            peer.outbox.is_patient = False
            # A message that another thread has appended and not looked after yet is looked for then.
            peer.dirty = False
            self._congested.discard(peer)
            for ticket in peer.outbox.refuse():
                _settle(self._waiters.pop(ticket, None), WorkerGoneError(peer.worker.pid))

    # --- counters

    @property
    def sent(self) -> int:
        """Messages accepted so far, one for each receiver."""
        with self._lock:
            return self._sent_before + sum(peer.outbox.accepted for peer in self.peers.all())

    def outbox_bytes(self) -> dict[int, int]:
        """What waits for each peer, by pid."""
        return {peer.worker.pid: peer.outbox.backlog_bytes for peer in self.peers.all()}


def _all_open(members: Members) -> bool:
    """Whether a small message can go the short way to each."""
    for peer in members.peers:  # noqa: SIM110  # a generator would cost as much as the rest
        if peer.outbox.full:
            return False
    return True


def _look_at(accepted: asyncio.Future[None]) -> None:
    """Whoever has gone need not be told."""
    if not accepted.cancelled():
        accepted.exception()


def _settle(future: asyncio.Future[None] | None, error: Exception | None) -> None:
    if future is None or future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
