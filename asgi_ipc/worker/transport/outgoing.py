"""Outgoing: the sending half of an endpoint.

Law: a message is accepted here or nowhere. Only the event loop's thread touches outboxes. `send`, `post` and
`post_to_all` may be called from any thread: others hand their messages over, under one short lock, and the
loop takes these before it accepts anything else. The lock also guards the peers.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from asgi_ipc.errors import DeliveryError, UnknownWorkerError, WouldBlockError
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.wire.arena import Arena
from asgi_ipc.wire.message import Encoded, LargeMessage, Packer
from asgi_ipc.wire.outbox import SHORT_BYTES, Budget, Outbox
from asgi_ipc.wire.packetizer import Route
from asgi_ipc.wire.payload import batch_capacity_bytes
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.transport.loopback import LoopbackWriter
from asgi_ipc.worker.transport.peer import Peer
from asgi_ipc.worker.transport.peers import Peers, Receivers
from asgi_ipc.worker.transport.pipes import PipeWriter
from asgi_ipc.worker.transport.room import Room
from asgi_ipc.worker.transport.sender import BYTES_AS_ONE_MESSAGE, Sender


class Refused(NamedTuple):
    """A message that found no room."""

    peer: Peer
    message: Encoded


class Outgoing:
    """The sending half of an endpoint: peers, and an outbox for each.

    Attributes:
        sender: the short way.
        lost: accepted messages that never left an outbox because their receiver went.
        progress: set when a packet was written, or can't be written any more.
        thread: the one that `loop` runs on.
    """

    def __init__(self, me: Worker, settings: Settings) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.lost = 0
        self.progress = asyncio.Event()
        max_packet_bytes = settings.max_packet_bytes
        packer = Packer(settings.max_message_bytes, batch_capacity_bytes(max_packet_bytes))
        self.packer = packer
        self.pack = packer.pack
        self.wrap = packer.wrap
        self._me = me
        self._route = partial(Route, settings.cookie, me.generation, max_packet_bytes=max_packet_bytes)
        self._lock = threading.Lock()
        self.peers = Peers(me)
        self._budget = Budget()
        self.sender = Sender(
            self.loop, self._lock, self._budget, min(SHORT_BYTES, settings.max_message_bytes)
        )
        self._room = Room(self.loop, self._lock, self._take_handed, self.sender.touch)
        self.queue = self._room.queue
        self.accepted = self._room.accepted
        self.withdraw = self._room.withdraw
        # Equally busy members take turns.
        self._rotation = 0
        # Messages accepted for peers that are forgotten now.
        self._sent_before = 0
        # Peers for which other threads have handed messages over.
        self._handed: dict[Peer, None] = {}

    # --- peers

    def add(self, worker: Worker, context: contextvars.Context) -> Peer:
        """Address `worker` from now on."""
        peer = Peer(worker, Outbox(self._route(worker.generation), self._budget), context)
        with self._lock:
            self.peers.add(peer)
        return peer

    def loop_back(self, me: Peer, on_packet: Callable[[bytes], None]) -> LoopbackWriter:
        """Give packets of this worker to itself to `on_packet`."""
        writer = LoopbackWriter(self.loop, me.outbox, on_packet, self._on_written)
        me.writer = writer
        return writer

    def connect(self, peer: Peer, write_end: Descriptor) -> None:
        """The peer's write end has arrived: write the messages that wait for it."""
        peer.writer = PipeWriter(self.loop, write_end, peer.outbox, self._on_written, lambda: self.lose(peer))
        if peer.leaving:
            peer.writer.close_when_empty()
        else:
            peer.writer.flush()

    def seal(self, peer: Peer) -> None:
        """That peer is leaving: stop addressing it, write its messages, close."""
        if peer.leaving:
            return
        self._refuse(peer)
        peer.writer.close_when_empty()
        self.progress.set()

    def lose(self, peer: Peer) -> None:
        """That peer reads no more: count the messages in its outbox as lost."""
        self._refuse(peer)
        lost = peer.outbox.close()
        peer.lost += lost
        self.lost += lost
        peer.writer.close()
        self.progress.set()

    def _refuse(self, peer: Peer) -> None:
        """Take a peer out of the members, and refuse messages that wait for room there."""
        with self._lock:
            self._take_handed()
            self.peers.refuse(peer)
            # The peer may have closed its end to us before it acknowledges its copies.
            peer.outbox.packets.is_patient = False
            self._room.refuse(peer)

    def forget(self, peer: Peer) -> None:
        """Forget a dead peer after its last byte has been read."""
        with self._lock:
            self.peers.forget(peer)
            self._sent_before += peer.outbox.accepted

    def close(self) -> int:
        """Close everything; return how many accepted messages were not sent."""
        unsent = 0
        for peer in self.peers.all():
            unsent += peer.outbox.messages + peer.outbox.handed
            self.lose(peer)
        return unsent

    def is_empty(self) -> bool:
        """Return whether every outbox is empty."""
        return not any(peer.outbox for peer in self.peers.all())

    # --- the arena

    def lend(self, arena: Arena) -> None:
        """Place large messages, and many at once, in this worker's arena for peers that have mapped it."""
        self._budget.arena = arena

    def acknowledge(self, generation: int, serial: int) -> None:
        """Tell that peer, before anything else, how far this worker has copied from its arena."""
        peer = self.peers.find(generation)
        if peer is not None and not peer.leaving:
            peer.outbox.packets.copied = serial
            self.sender.touch(peer)

    def copied(self, generation: int, serial: int) -> None:
        """That peer has copied everything up to that place, or has mapped this arena."""
        peer = self.peers.find(generation)
        if peer is None:
            return
        peer.outbox.receiver_copied(serial)
        peer.writer.flush()

    def reaped(self, peer: Peer) -> None:
        """That peer's process has ended: free the blocks that it held in the arena."""
        self._budget.arena.forget(peer.worker.generation)

    def hurry(self) -> None:
        """Stop waiting for acknowledgements, since this worker is leaving."""
        for peer in self.peers.all():
            peer.outbox.packets.is_patient = False
            peer.writer.flush()

    def unused_arena_bytes(self) -> range:
        """Return the bytes of the arena that were in use and need no memory any more."""
        return self._budget.arena.trim()

    # --- messages

    def send(self, to: int | Worker, name: str, data: Any) -> Refused | None:
        """Put one message into the outbox of the worker `to`; Refused if there is no room. From any thread.

        Raises UnknownWorkerError, and as `pack`.
        """
        message = self.pack(name, data)
        peer = self.peers.meant_by(to)
        return None if self.post(peer, message) else Refused(peer, message)

    def post(self, peer: Peer, message: Encoded) -> bool:
        """Put a message into a peer's outbox. False: no room. From any thread. Raises UnknownWorkerError."""
        if threading.get_ident() == self.thread:
            prefix, body = _parts(message)
            if body is not None and self.sender.post(peer, prefix, body):
                return True
        with self._lock:
            if peer.leaving:
                raise UnknownWorkerError(peer.worker.pid)
            if threading.get_ident() != self.thread:
                has_room = peer.outbox.has_room_handed(message, len(message))
                if has_room:
                    self._hand_over((peer,), message)
                return has_room
            self._take_handed()
            if not peer.outbox.offer(message):
                return False
        self.sender.turn_messages += 1 + len(message) // BYTES_AS_ONE_MESSAGE
        self.sender.accepted(peer)
        return True

    def post_to_each(self, members: Receivers, message: Encoded) -> tuple[Sequence[int], Sequence[Peer]]:
        """Put a message into every outbox with room; return the pids, and the peers without room."""
        if self._post_short(members, message):
            return members.pids, ()
        took: list[int] = []
        full: list[Peer] = []
        share(message)
        for peer in members.peers:
            # A peer that leaves in this moment is in neither list.
            with suppress(UnknownWorkerError):
                if self.post(peer, message):
                    took.append(peer.worker.pid)
                else:
                    full.append(peer)
        return took, full

    def post_to_all(self, members: Receivers, message: Encoded) -> Sequence[int]:
        """Put a message into every outbox and return the pids; or into none, and raise WouldBlockError.

        From any thread.
        """
        if self._post_short(members, message):
            return members.pids
        share(message)
        is_here = threading.get_ident() == self.thread
        with self._lock:
            peers = tuple(peer for peer in members.peers if not peer.leaving)
            if is_here:
                self._take_handed()
            # All outboxes share the bytes of a large message; each has its own copy of a small one.
            each_bytes = 0 if isinstance(message, LargeMessage) else len(message)
            for place, peer in enumerate(peers):
                outbox, ahead_bytes = peer.outbox, place * each_bytes
                if not (
                    outbox.has_room(message, ahead_bytes)
                    if is_here
                    else outbox.has_room_handed(message, ahead_bytes + len(message))
                ):
                    raise WouldBlockError(peer.worker.pid)
            if is_here:
                for peer in peers:
                    peer.outbox.offer(message)
            else:
                self._hand_over(peers, message)
        if is_here:
            for peer in peers:
                self.sender.accepted(peer)
        return [peer.worker.pid for peer in peers]

    def _post_short(self, members: Receivers, message: Encoded) -> bool:
        """Post a small message to several the short way, if it may take that."""
        if isinstance(message, LargeMessage) or threading.get_ident() != self.thread:
            return False
        return self.sender.post_to_all(members.peers, message)

    def _hand_over(self, peers: Sequence[Peer], message: Encoded) -> None:
        """Have the loop's thread accept a message. From another thread, under the lock."""
        if not self._handed:
            self.loop.call_soon_threadsafe(self._take_over)
        cost_bytes = len(message)
        for peer in peers:
            peer.outbox.hand_over(message, cost_bytes)
            self._handed[peer] = None
            if isinstance(message, LargeMessage):
                # The outboxes share it.
                cost_bytes = 0

    def _take_over(self) -> None:
        with self._lock:
            self._take_handed()

    def _take_handed(self) -> None:
        """Accept what other threads have handed over. On the loop's thread, under the lock."""
        for peer in self._handed:
            peer.outbox.take_handed()
            self.sender.touch(peer)
        self._handed.clear()

    def least_busy(self) -> Peer:
        """Return the member with the least work; equals take turns. Raises UnknownWorkerError without any."""
        peers = self.peers.members(include_self=True).peers
        if not peers:
            raise UnknownWorkerError(self._me.pid)
        self._rotation += 1
        first = self._rotation % len(peers)
        return min((*peers[first:], *peers[:first]), key=self._busy_bytes)

    def _busy_bytes(self, peer: Peer) -> int:
        held_bytes = self._budget.arena.busy_bytes(peer.worker.generation)
        return _backlog_bytes(peer) + held_bytes + peer.writer.unread_bytes()

    def say(self, peer: Peer, message: Encoded) -> None:
        """Post one of the package's own messages as soon as there is room; not at all if that peer goes."""
        with suppress(DeliveryError):
            if not self.post(peer, message):
                self.queue(peer, message).future.add_done_callback(_retrieve)

    # --- inside

    def _on_written(self) -> None:
        """Look for room for waiting messages after a packet has left an outbox."""
        self._room.promote()
        self.progress.set()

    # --- counters

    @property
    def sent(self) -> int:
        """Return the messages accepted so far, one for each receiver."""
        with self._lock:
            outboxes = [peer.outbox for peer in self.peers.all()]
            return self._sent_before + sum(outbox.accepted + outbox.handed for outbox in outboxes)

    def outbox_bytes(self) -> dict[int, int]:
        """The bytes that wait for each peer, by pid."""
        return {peer.worker.pid: _backlog_bytes(peer) for peer in self.peers.all()}


def _parts(message: Encoded) -> tuple[bytes, bytes | None]:
    """Return the two parts of a message that may take the short way; None: it may not."""
    if not isinstance(message, LargeMessage):
        return b"", message
    if message.size_bytes > SHORT_BYTES or message.is_shared:
        return b"", None
    return message.prefix, message.body


def _backlog_bytes(peer: Peer) -> int:
    return peer.outbox.backlog_bytes + peer.outbox.handed_bytes


def share(message: Encoded) -> None:
    """Note that a message goes to several receivers."""
    if isinstance(message, LargeMessage):
        message.is_shared = True


def _retrieve(accepted: asyncio.Future[None]) -> None:
    """Read the exception of a message whose receiver has gone, since no other code does."""
    if not accepted.cancelled():
        accepted.exception()
