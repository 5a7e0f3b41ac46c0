"""Packetizer: what was accepted for one receiver becomes packets, in order.

Law: nothing in this file asks the kernel or the clock. Small messages share packets; a message larger than a
packet travels alone, in fragments. Once the receiver has mapped this worker's arena, large messages and many
small ones are written there, and the packet carries their places.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from asgi_ipc.wire.arena import BLOCK_HEADER_BYTES, NOTHING_COPIED, PLACE, Arena
from asgi_ipc.wire.batch import (
    BATCH_HEADER_BYTES,
    ONE_MESSAGE,
    TOTAL_BYTES,
    batch_capacity_bytes,
    first_fragment,
    join_batch,
    pack_serial,
)
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
from asgi_ipc.wire.run import Backlog, Run, take_run

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


# The messages that a packet finishes: a number of small messages, their bytes, and large messages.
Cargo: TypeAlias = tuple[int, int, tuple[LargeMessage, ...]]

_NOTHING: Final[Cargo] = (0, 0, ())


class Packetizer:
    """Gives one packet at a time, the same one until `written` says that it is on its way.

    Attributes:
        backlog: what waits to be cut. To be appended to.
        copied: the last place in the receiver's arena that is to be acknowledged, before anything else.
        must_wait: there is nothing to write before the receiver has copied something.
        is_patient: wait for the receiver when the arena has no room; else use packets.
    """

    __slots__ = (
        "_arena",
        "_capacity_bytes",
        "_cargo",
        "_encode",
        "_max_packet_bytes",
        "_number",
        "_packet",
        "_receiver",
        "_written_bytes",
        "backlog",
        "copied",
        "is_patient",
        "must_wait",
    )

    def __init__(self, route: Route) -> None:
        self._receiver = route.receiver
        self._max_packet_bytes = route.max_packet_bytes
        self._capacity_bytes = batch_capacity_bytes(route.max_packet_bytes)
        self._number = 0
        self._encode = partial(encode_packet, route.cookie, route.sender, route.receiver)
        self.backlog: Backlog = deque()
        self._packet: bytes | None = None
        self._cargo = _NOTHING
        # How much of the large message at the front has been cut into fragments.
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
        elif arena.copied(self._receiver, serial):
            self.must_wait = False

    def lone_packet(self, messages: list[bytes]) -> bytes | None:
        """One packet of messages that are not in the backlog, if nothing else waits and they fit one."""
        if self.backlog or self._packet is not None or self.copied is not None:
            return None
        if sum(map(len, messages)) > self._capacity_bytes:
            return None
        return self._encode(self._number, BATCH, join_batch(messages))

    def lone_written(self) -> None:
        """The packet that `lone_packet` gave is in the pipe, whole."""
        self._number += 1

    def next_packet(self) -> bytes | None:
        """The packet to write next, or None. The same one until `written` is called."""
        if self._packet is None:
            self._packet = self._cut()
        return self._packet

    def written(self) -> Cargo:
        """The packet that `next_packet` gave is in the pipe, whole; what it has finished."""
        self._packet = None
        self._number += 1
        cargo, self._cargo = self._cargo, _NOTHING
        return cargo

    def close(self) -> Cargo:
        """Drop everything that is not written; what that is."""
        messages, size_bytes, large = self._cargo
        for each in self.backlog:
            if isinstance(each, Run):
                messages += len(each.messages)
                size_bytes += each.size_bytes
            else:
                large += (each,)
        self.backlog.clear()
        self._packet, self._cargo, self._written_bytes = None, _NOTHING, 0
        return messages, size_bytes, large

    def _cut(self) -> bytes | None:
        if self.copied is not None:
            serial, self.copied = self.copied, None
            return self._encode(self._number, COPIED, pack_serial(serial))
        if not self.backlog or (self.must_wait and self.is_patient):
            return None
        if self._arena is not None:
            places = self._place(self._arena)
            if places:
                return self._encode(self._number, PLACED, places)
            if self.must_wait and self.is_patient:
                return None
        head = self.backlog[0]
        if isinstance(head, LargeMessage):
            return self._next_fragment(head)
        run = take_run(self.backlog, self._capacity_bytes)
        self._cargo = (len(run.messages), run.size_bytes, ())
        return self._encode(self._number, BATCH, join_batch(run.messages))

    def _next_fragment(self, message: LargeMessage) -> bytes:
        start = self._written_bytes
        room = self._max_packet_bytes - HEADER_BYTES
        stop = min(start + room - (0 if start else TOTAL_BYTES), message.size_bytes)
        piece = message.piece(start, stop)
        if stop < message.size_bytes:
            self._written_bytes = stop
        else:
            self.backlog.popleft()
            self._written_bytes = 0
            self._cargo = (0, 0, (message,))
        if start:
            return self._encode(self._number, FRAGMENT_MORE, piece)
        return self._encode(self._number, FRAGMENT_FIRST, first_fragment(message.size_bytes, piece))

    def _place(self, arena: Arena) -> bytes:
        """Write what comes next into the arena; the places. Empty: it travels in packets, or must wait."""
        receiver, backlog = self._receiver, self.backlog
        places: list[bytes] = []
        messages = size_bytes = placed_bytes = 0
        large: list[LargeMessage] = []
        most = self._capacity_bytes // PLACE.size
        while backlog and len(places) < most and placed_bytes < PLACED_BYTES:
            head = backlog[0]
            if isinstance(head, Run):
                head = take_run(backlog, BLOCK_BYTES)
                backlog.appendleft(head)
                # As much as fits one packet is not worth a block.
                fits = head.size_bytes > self._capacity_bytes
            else:
                fits = not self._written_bytes and arena.fits(head.size_bytes + BATCH_HEADER_BYTES)
            if not fits:
                break
            if not arena.may_hold(receiver, head.size_bytes):
                self.must_wait = self.is_patient and not places
                break
            place = self._place_run(arena, head) if isinstance(head, Run) else self._place_large(arena, head)
            if place is None:
                break
            backlog.popleft()
            places.append(place)
            placed_bytes += head.size_bytes
            if isinstance(head, Run):
                messages += len(head.messages)
                size_bytes += head.size_bytes
            else:
                large.append(head)
        if places:
            self._cargo = (messages, size_bytes, tuple(large))
        return b"".join(places)

    def _place_run(self, arena: Arena, run: Run) -> bytes | None:
        block = arena.place(b"", join_batch(run.messages))
        if block is None:
            return None
        place = arena.announce(block, self._receiver)
        arena.release(block)
        return place

    def _place_large(self, arena: Arena, message: LargeMessage) -> bytes | None:
        # Another receiver of the same message may have placed it already.
        if message.block is None:
            message.block = arena.place(ONE_MESSAGE + message.prefix, message.body)
        return arena.announce(message.block, self._receiver) if message.block is not None else None
