"""Packetizer: what was accepted for one receiver becomes packets, in order.

Law: nothing in this file asks the kernel or the clock. Small messages share packets; a message larger than a
packet travels alone, in fragments. Once the receiver has mapped this worker's arena, large messages and many
small ones are written there, and the packet carries their places.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from asgi_ipc.wire.arena import BLOCK_HEADER_BYTES, NOTHING_COPIED, PLACE, Arena
from asgi_ipc.wire.message import LargeMessage
from asgi_ipc.wire.packet import (
    BATCH,
    COPIED,
    FRAGMENT_FIRST,
    FRAGMENT_MORE,
    HEADER_BYTES,
    PLACED,
    encode_packet,
)
from asgi_ipc.wire.payload import (
    BATCH_HEADER_BYTES,
    ONE_MESSAGE,
    TOTAL_BYTES,
    batch_capacity_bytes,
    first_fragment,
    pack_serial,
)
from asgi_ipc.wire.run import Piece, Run

# Small messages that share a block of the arena, when more of them wait than fit one packet. With the headers
# before them they fill a power of two; docs/decisions/0009 has what other sizes gave.
BLOCK_BYTES: Final = 128 * 1024 - BLOCK_HEADER_BYTES - BATCH_HEADER_BYTES

# How much one packet announces, at most, beside its last block: the receiver has that much in its own memory
# at once.
PLACED_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Route:
    """The sender and the receiver, by generation, in one run, and the size of packets there."""

    cookie: bytes
    sender: int
    receiver: int
    max_packet_bytes: int


class Cargo(NamedTuple):
    """The content of packets that are cut: how many messages, how many bytes; and the large ones of them."""

    messages: int = 0
    size_bytes: int = 0
    large: tuple[LargeMessage, ...] = ()


_NOTHING: Final = Cargo()


class Packetizer:
    """Gives one packet at a time, the same one until `written` says that it is on its way.

    Attributes:
        run: what waits to be cut. To be appended to.
        cargo: what has been cut and is not written as a whole.
        copied: the last place in the receiver's arena that is to be acknowledged, before anything else.
        must_wait: there is nothing to write before the receiver has copied something.
        is_patient: wait for the receiver when the arena has no room; else use packets.
    """

    __slots__ = (
        "_arena",
        "_capacity_bytes",
        "_encode",
        "_fragmented",
        "_max_packet_bytes",
        "_number",
        "_packet",
        "_receiver",
        "_written_bytes",
        "cargo",
        "copied",
        "is_patient",
        "must_wait",
        "run",
    )

    def __init__(self, route: Route) -> None:
        self._receiver = route.receiver
        self._max_packet_bytes = route.max_packet_bytes
        self._capacity_bytes = batch_capacity_bytes(route.max_packet_bytes)
        self._number = 0
        self._encode = partial(encode_packet, route.cookie, route.sender, route.receiver)
        self.run = Run(self._capacity_bytes)
        self.cargo = _NOTHING
        self._packet: bytes | None = None
        # A message that travels in fragments, and how much of it has been cut.
        self._fragmented: LargeMessage | None = None
        self._written_bytes = 0
        # None until the receiver has mapped it.
        self._arena: Arena | None = None
        self.copied: int | None = None
        self.is_patient = True
        self.must_wait = False

    def receiver_copied(self, arena: Arena, serial: int) -> None:
        """The receiver has copied everything up to that place; NOTHING_COPIED: it has mapped the arena."""
        if serial == NOTHING_COPIED:
            self._arena = arena
            arena.open(self._receiver)
            self.run.piece_bytes = max(BLOCK_BYTES, self._capacity_bytes)
        elif arena.copied(self._receiver, serial):
            self.must_wait = False

    def next_packet(self) -> bytes | None:
        """The packet to write next, or None. The same one until `written` is called."""
        if self._packet is None:
            self._packet = self._cut()
        return self._packet

    def written(self) -> Cargo:
        """The packet that `next_packet` gave is in the pipe, whole; what it has finished."""
        self._packet = None
        self._number += 1
        if self._fragmented is not None:
            return _NOTHING
        cargo, self.cargo = self.cargo, _NOTHING
        return cargo

    def lone_packet(self, prefix: bytes, body: bytes) -> bytes | None:
        """Return the packet of one message that is in no run, to be written at once; None: it must wait.

        Nothing may wait to be cut.
        """
        if self._packet is not None or self.copied is not None:
            return None
        if len(prefix) + len(body) > self._capacity_bytes:
            return None
        return self._encode(self._number, BATCH, b"".join((ONE_MESSAGE, prefix, body)))

    def lone_written(self) -> None:
        """Note that the packet of `lone_packet` is in the pipe, whole."""
        self._number += 1

    def close(self) -> tuple[LargeMessage, ...]:
        """Drop everything that is not written; the large messages of it."""
        large = (*self.cargo.large, *self.run.clear())
        self._packet, self._fragmented, self.cargo = None, None, _NOTHING
        return large

    def _cut(self) -> bytes | None:
        if self.copied is not None:
            serial, self.copied = self.copied, None
            return self._encode(self._number, COPIED, pack_serial(serial))
        if self._fragmented is not None:
            return self._next_fragment(self._fragmented)
        run = self.run
        if run.front is None or (self.must_wait and self.is_patient):
            return None
        if self._arena is not None:
            places = self._place(self._arena)
            if places:
                return self._encode(self._number, PLACED, places)
            if self.must_wait and self.is_patient:
                return None
        run.cut_front(self._capacity_bytes)
        front = run.take_front()
        if isinstance(front, LargeMessage):
            self.cargo = Cargo(1, front.size_bytes, (front,))
            return self._begin_fragments(front)
        self.cargo = Cargo(front.messages, front.size_bytes)
        if front.size_bytes > self._capacity_bytes:
            prefix, body = front.parts
            return self._begin_fragments(LargeMessage(prefix, body, front.size_bytes))
        return self._encode(self._number, BATCH, front.payload())

    def _begin_fragments(self, message: LargeMessage) -> bytes:
        self._fragmented = message
        self._written_bytes = 0
        return self._next_fragment(message)

    def _next_fragment(self, message: LargeMessage) -> bytes:
        start = self._written_bytes
        room = self._max_packet_bytes - HEADER_BYTES
        stop = min(start + room - (0 if start else TOTAL_BYTES), message.size_bytes)
        piece = message.piece(start, stop)
        self._written_bytes = stop
        if stop == message.size_bytes:
            self._fragmented = None
        if start:
            return self._encode(self._number, FRAGMENT_MORE, piece)
        return self._encode(self._number, FRAGMENT_FIRST, first_fragment(message.size_bytes, piece))

    def _place(self, arena: Arena) -> bytes:
        """Write what comes next into the arena; the places. Empty: it travels in packets, or must wait."""
        run = self.run
        places: list[bytes] = []
        messages = size_bytes = 0
        large: list[LargeMessage] = []
        most = self._capacity_bytes // PLACE.size
        while (front := run.front) is not None and len(places) < most and size_bytes < PLACED_BYTES:
            # As much as fits one packet is not worth a block.
            if front.size_bytes <= self._capacity_bytes and isinstance(front, Piece):
                break
            if not arena.fits(front.size_bytes + BATCH_HEADER_BYTES):
                break
            if not arena.may_hold(self._receiver, front.size_bytes):
                self.must_wait = self.is_patient and not places
                break
            place = (
                self._place_piece(arena, front)
                if isinstance(front, Piece)
                else self._place_large(arena, front)
            )
            if place is None:
                break
            run.take_front()
            places.append(place)
            size_bytes += front.size_bytes
            if isinstance(front, Piece):
                messages += front.messages
            else:
                messages += 1
                large.append(front)
        if places:
            self.cargo = Cargo(messages, size_bytes, tuple(large))
        return b"".join(places)

    def _place_piece(self, arena: Arena, piece: Piece) -> bytes | None:
        block = arena.reserve(BATCH_HEADER_BYTES + piece.size_bytes)
        if block is None:
            return None
        piece.seal(arena.memory, block.content_start)
        place = arena.announce(block, self._receiver)
        arena.release(block)
        return place

    def _place_large(self, arena: Arena, message: LargeMessage) -> bytes | None:
        # Another receiver of the same message may have placed it already.
        if message.block is None:
            message.block = arena.place(ONE_MESSAGE + message.prefix, message.body)
        return arena.announce(message.block, self._receiver) if message.block is not None else None
