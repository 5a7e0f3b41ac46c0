"""Incoming: the receiving half of an endpoint. Bytes become packets, packets become messages.

Law: it reads this worker's pipe and its loopback, drops and counts packets
that don't belong here, and hands messages on in the order of their arrival.
It knows nothing of handlers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from asgi_ipc.fleet.settings import Settings
from asgi_ipc.wire.batch import Batch
from asgi_ipc.wire.message import OWN_BYTES
from asgi_ipc.wire.packet import PacketParser
from asgi_ipc.wire.reassembler import Reassembler
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.transport.arenas import Arenas
from asgi_ipc.worker.transport.outgoing import Outgoing
from asgi_ipc.worker.transport.peer import Peer
from asgi_ipc.worker.transport.pipe_reader import PipeReader
from asgi_ipc.worker.transport.reader import Accept, Reader, Source

# Messages that arrived together, and their sender.
Deliver = Callable[[Peer, Batch], None]


class Incoming:
    """Reads the messages of all members to this worker, including its own. Starts paused.

    `deliver` gets each batch of messages, but `accept` those that are small and alone in their packet.
    `catch_up` reads the lifeline: it is called for a packet of an unknown sender, since the word that names
    a sender is written before its first packet.

    Attributes:
        arenas: the shared memory of the senders, for large messages.
        eof: set when no other worker holds a write end of the pipe any more.
    """

    def __init__(
        self,
        me: Peer,
        outgoing: Outgoing,
        pipe: Descriptor,
        arena: Descriptor,
        settings: Settings,
        accept: Accept,
        deliver: Deliver,
        catch_up: Callable[[], None],
    ) -> None:
        self._me = me.worker.generation
        self._peers = outgoing.peers
        self._sender = outgoing.sender
        self._deliver = deliver
        self._catch_up = catch_up
        self._reassembler = Reassembler(settings.max_message_bytes + OWN_BYTES)
        self.arenas = Arenas(arena, me.worker.pid, outgoing, self._reassembler)
        self._stale = 0
        # Those of which a packet has come. The pipe and the loopback are streams of bytes of their own.
        self._sources: dict[int, Source] = {}
        self._packets, self._own_packets = (
            Reader(
                self._me,
                PacketParser(settings.cookie, settings.max_packet_bytes),
                self._reassembler,
                self._sources,
                accept,
                self._take_other,
            )
            for _ in range(2)
        )
        # Callbacks, each with the number of bytes that come before it; and the bytes taken so far.
        self._marks: deque[tuple[int, Callable[[], None]]] = deque()
        self._taken_bytes = 0
        self.eof = asyncio.Event()
        self._reader = PipeReader(outgoing.loop, pipe, self._on_bytes, self._on_eof)
        if not self._reader.is_open:
            self.eof.set()
        self._loopback = outgoing.loop_back(me, self._on_loopback)

    def pause(self) -> None:
        """Stop reading, so that the senders feel it."""
        self._reader.pause()
        self._loopback.pause()

    def resume(self) -> None:
        """Read on."""
        self._reader.resume()
        self._loopback.resume()

    def when_read(self, callback: Callable[[], None]) -> None:
        """Call back when all bytes that lie in the pipe now have been read, and their messages handed on."""
        self._marks.append((self._reader.read_bytes + self._reader.unread_bytes(), callback))
        self._pass_marks()

    def forget(self, generation: int) -> None:
        """The last byte of that sender has been read: drop an unfinished message and unmap its arena."""
        self._sources.pop(generation, None)
        self._reassembler.forget(generation)
        self.arenas.detach(generation)

    def cut(self) -> None:
        """In a test: close the pipe without reading the rest, as the kernel does when a process dies."""
        self._reader.close()
        self.eof.set()

    def close(self) -> None:
        """Read what lies in the pipe for the last time, and close everything."""
        # The dispatcher counts these messages without a handler.
        self._reader.read_rest()
        self._reader.close()
        self._sources.clear()
        self._reassembler.close()
        self.arenas.close()

    @property
    def is_empty(self) -> bool:
        """Return whether the pipe is empty, and no callback of `when_read` waits."""
        return not self._marks and not self._reader.unread_bytes()

    @property
    def partial_bytes(self) -> int:
        """Bytes of large messages that are not complete."""
        return self._reassembler.partial_bytes

    def dropped(self) -> dict[str, int]:
        """Packets and messages that were dropped here, by reason; see Stats."""
        drops = self._reassembler.drops
        skips = self._packets.parser.skips + self._own_packets.parser.skips
        return {**drops, "stale": self._stale, "corrupt": drops.get("corrupt", 0) + skips}

    # --- bytes to messages

    def _on_bytes(self, chunk: bytes, drained: bool) -> None:
        self._sender.begin_turn()
        self._packets.take(chunk, drained)
        self.settle()
        self._taken_bytes += len(chunk)
        if self._marks:
            self._pass_marks()

    def _on_loopback(self, packet: bytes) -> None:
        self._own_packets.take(packet, True)
        self.settle()

    def _on_eof(self) -> None:
        self.eof.set()
        self._pass_marks()

    def _pass_marks(self) -> None:
        # The word of a death may come between two packets of one read; then it waits for the others.
        while self._marks and (self._marks[0][0] <= self._taken_bytes or not self._reader.is_open):
            _, callback = self._marks.popleft()
            callback()

    def _take_other(self, packet: PacketParser) -> None:
        """Take a packet that is more than the next batch of a known sender."""
        peer = self._peers.find(packet.sender)
        if peer is None:
            self._catch_up()
            peer = self._peers.find(packet.sender)
        if peer is None or packet.receiver != self._me:
            self._stale += 1
            return
        batches = self._reassembler.accept(packet)
        self._sources[packet.sender] = Source(self._reassembler.stream_of(packet.sender), peer.context)
        for batch in batches:
            self._deliver(peer, batch)

    def settle(self) -> None:
        """Acknowledge messages that have been read out of the senders' arenas by now."""
        reassembler = self._reassembler
        if reassembler.reading or reassembler.fetched or reassembler.copied:
            self.arenas.settle()
