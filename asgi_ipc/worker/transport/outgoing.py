"""Outgoing: the sending half of an endpoint.

Law: a message is accepted here or nowhere. `send`, `post` and the posts to several may be called from any
thread; one short lock guards the outboxes and the peers.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from asgi_ipc.errors import DeliveryError, UnknownWorkerError, WouldBlockError
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.wire.arena import Arena
from asgi_ipc.wire.message import Encoded, LargeMessage, Packer
from asgi_ipc.wire.outbox import Budget, Outbox
from asgi_ipc.wire.packetizer import Route
from asgi_ipc.wire.payload import batch_capacity_bytes
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.transport.loopback import LoopbackWriter
from asgi_ipc.worker.transport.peers import Peer, Peers, Receivers
from asgi_ipc.worker.transport.pipes import PipeWriter
from asgi_ipc.worker.transport.room import Room
from asgi_ipc.worker.transport.turn import Turn

# Senders yield after 256 messages in a turn, and after 1 MiB of large ones.
BYTES_AS_ONE_MESSAGE: Final = 4096


class Refused(NamedTuple):
    """A message that found no room."""

    peer: Peer
    message: Encoded


class Outgoing:
    """The sending half of an endpoint: peers, and an outbox for each.

    Attributes:
        turn_messages: the messages accepted in this turn of the loop from senders that yield after so many;
            a large one counts as several.
        lost: accepted messages that never left an outbox because their receiver went.
        progress: set when a packet was written, or can't be written any more.
        thread: the one that `loop` runs on.
    """

    def __init__(self, me: Worker, settings: Settings) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.turn_messages = 0
        self.lost = 0
        self.progress = asyncio.Event()
        max_packet_bytes = settings.max_packet_bytes
        packer = Packer(settings.max_message_bytes, batch_capacity_bytes(max_packet_bytes))
        self.pack = packer.pack
        self.wrap = packer.wrap
        self._me = me
        self._route = partial(Route, settings.cookie, me.generation, max_packet_bytes=max_packet_bytes)
        self._lock = threading.Lock()
        self.peers = Peers(me)
        self._budget = Budget()
        self._turn = Turn(self.loop, self._lock, self._turn_ends)
        self._room = Room(self.loop, self._lock, self._promoted)
        self.queue = self._room.queue
        self.accepted = self._room.accepted
        self.withdraw = self._room.withdraw
        # Equally busy members take turns.
        self._rotation = 0
        # Messages accepted for peers that are forgotten now.
        self._sent_before = 0

    # --- peers

    def add(self, worker: Worker, context: contextvars.Context) -> Peer:
        """Address `worker` from now on."""
        peer = Peer(worker, Outbox(self._route(worker.generation), self._budget), context)
        with self._lock:
            self.peers.add(peer)
        return peer

    def loop_back(self, me: Peer, on_packet: Callable[[bytes], None]) -> LoopbackWriter:
        """Give packets of this worker to itself to `on_packet`."""
        writer = LoopbackWriter(self.loop, me.outbox, self._lock, on_packet, self._on_written)
        me.writer = writer
        return writer

    def connect(self, peer: Peer, write_end: Descriptor) -> None:
        """The peer's write end has arrived: write the messages that wait for it."""
        peer.writer = PipeWriter(
            self.loop, write_end, peer.outbox, self._lock, self._on_written, lambda: self.lose(peer)
        )
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
        with self._lock:
            lost = peer.outbox.close()
        peer.lost += lost
        self.lost += lost
        peer.writer.close()
        self.progress.set()

    def _refuse(self, peer: Peer) -> None:
        """Take a peer out of the members, and refuse messages that wait for room there."""
        with self._lock:
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
            unsent += peer.outbox.messages
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
        if peer is None:
            return
        with self._lock:
            if peer.leaving:
                return
            peer.outbox.packets.copied = serial
            self._turn.touch(peer)
        self._turn.schedule_end()

    def copied(self, generation: int, serial: int) -> None:
        """That peer has copied everything up to that place, or has mapped this arena."""
        peer = self.peers.find(generation)
        if peer is None:
            return
        with self._lock:
            peer.outbox.receiver_copied(serial)
        peer.writer.flush()

    def reaped(self, peer: Peer) -> None:
        """That peer's process has ended: free the blocks that it held in the arena."""
        with self._lock:
            self._budget.arena.forget(peer.worker.generation)

    def hurry(self) -> None:
        """Stop waiting for acknowledgements, since this worker is leaving."""
        for peer in self.peers.all():
            peer.outbox.packets.is_patient = False
            peer.writer.flush()

    def unused_arena_bytes(self) -> range:
        """Return the bytes of the arena that were in use and need no memory any more."""
        with self._lock:
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
        """Put a message into a peer's outbox. False: no room. From any thread."""
        with self._lock:
            if peer.leaving:
                raise UnknownWorkerError(peer.worker.pid)
            if not peer.outbox.offer(message):
                return False
            begins_turn = self._turn.touch(peer)
            backlog_bytes = peer.outbox.backlog_bytes
        self.turn_messages += len(message) // BYTES_AS_ONE_MESSAGE
        self._turn.accepted(peer, begins_turn, backlog_bytes)
        return True

    def post_to_each(self, members: Receivers, message: Encoded) -> tuple[Sequence[int], Sequence[Peer]]:
        """Put a message into every outbox with room; return the pids, and the peers without room."""
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
        """Put a message into every outbox and return the pids; or into none, and raise WouldBlockError."""
        share(message)
        with self._lock:
            peers = tuple(peer for peer in members.peers if not peer.leaving)
            # All outboxes share the bytes of a large message; each has its own copy of a small one.
            each_bytes = 0 if isinstance(message, LargeMessage) else len(message)
            for place, peer in enumerate(peers):
                if not peer.outbox.has_room(message, place * each_bytes):
                    raise WouldBlockError(peer.worker.pid)
            begun = []
            for peer in peers:
                peer.outbox.offer(message)
                begun.append((self._turn.touch(peer), peer.outbox.backlog_bytes))
        for peer, (begins_turn, backlog_bytes) in zip(peers, begun, strict=True):
            self._turn.accepted(peer, begins_turn, backlog_bytes)
        return [peer.worker.pid for peer in peers]

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
        return peer.outbox.backlog_bytes + held_bytes + peer.writer.unread_bytes()

    def say(self, peer: Peer, message: Encoded) -> None:
        """Post one of the package's own messages as soon as there is room; not at all if that peer goes."""
        with suppress(DeliveryError):
            if not self.post(peer, message):
                self.queue(peer, message).future.add_done_callback(_retrieve)

    # --- inside

    def _turn_ends(self) -> None:
        self.turn_messages = 0

    def _on_written(self) -> None:
        """Look for room for waiting messages after a packet has left an outbox."""
        self._room.promote()
        self.progress.set()

    def _promoted(self, peer: Peer) -> None:
        if self._turn.touch(peer):
            self._turn.schedule_end()

    # --- counters

    @property
    def sent(self) -> int:
        """Return the messages accepted so far, one for each receiver."""
        with self._lock:
            return self._sent_before + sum(peer.outbox.accepted for peer in self.peers.all())

    def outbox_bytes(self) -> dict[int, int]:
        """The bytes that wait for each peer, by pid."""
        return {peer.worker.pid: peer.outbox.backlog_bytes for peer in self.peers.all()}


def share(message: Encoded) -> None:
    """Note that a message goes to several receivers."""
    if isinstance(message, LargeMessage):
        message.is_shared = True


def _retrieve(accepted: asyncio.Future[None]) -> None:
    """Read the exception of a message whose receiver has gone, since no other code does."""
    if not accepted.cancelled():
        accepted.exception()
