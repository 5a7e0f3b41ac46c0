"""Batches: messages that travel together, and the pieces of a large one.

Law: nothing in this file asks the kernel or the clock, and no size on the wire makes it allocate memory: a
first fragment's total is only a limit.

A message is the MessagePack array [name, data] or [name, data, extra]. A batch
is a MessagePack array of messages, so one decode reads all that share a
packet; its messages are encoded one by one, when each is accepted. A message
that exceeds one packet travels alone, in fragments.
"""

from __future__ import annotations

import struct
from typing import Any, Final, TypeAlias

import msgspec

from asgi_ipc.wire.arena import ACKNOWLEDGED_BYTES, NOTHING_COPIED, PLACE, is_there, read_block
from asgi_ipc.wire.message import Extra, read_extra, refuse_extension
from asgi_ipc.wire.packet import (
    BATCH,
    COPIED,
    FRAGMENT_FIRST,
    FRAGMENT_MORE,
    HEADER_BYTES,
    PLACED,
    Packet,
)

Message: TypeAlias = tuple[str, Any]


class MessageWithExtra(tuple[str, Any]):
    """A message that carries `extra`. Its name and data are read as those of any other."""

    extra: Extra


_NO_EXTRA: Final = msgspec.Raw()


class _Raw(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A message as it is read when one of its batch carries extra."""

    name: str
    data: Any
    extra: msgspec.Raw = _NO_EXTRA


# MessagePack's 16-bit array header, which every batch carries; its count is far above what fits a packet.
_BATCH_HEADER: Final = struct.Struct(">BH")
_ARRAY16: Final = 0xDC
BATCH_HEADER_BYTES: Final = _BATCH_HEADER.size

# The bytes before one encoded message that travels alone.
ONE_MESSAGE: Final = _BATCH_HEADER.pack(_ARRAY16, 1)

_SERIAL: Final = struct.Struct("<Q")
pack_serial = _SERIAL.pack

_TOTAL: Final = struct.Struct("<I")
TOTAL_BYTES: Final = _TOTAL.size


_decode = msgspec.msgpack.Decoder(list[Message], ext_hook=refuse_extension).decode
_decode_raw = msgspec.msgpack.Decoder(list[_Raw], ext_hook=refuse_extension).decode


def batch_header(messages: int) -> bytes:
    """The bytes before so many encoded messages that travel together."""
    return _BATCH_HEADER.pack(_ARRAY16, messages)


def join_batch(messages: list[bytes]) -> bytes:
    """The payload of one packet: encoded messages that travel together."""
    return batch_header(len(messages)) + b"".join(messages)


def batch_capacity_bytes(max_packet_bytes: int) -> int:
    """Encoded messages that fit one packet together, in bytes."""
    return max_packet_bytes - HEADER_BYTES - BATCH_HEADER_BYTES


def first_fragment(total_bytes: int, piece: bytes | memoryview) -> bytes:
    """The payload of a large message's first packet."""
    return _TOTAL.pack(total_bytes) + piece


class Reassembler:
    """Reassembles the messages of each sender to this receiver from its packets.

    A repeat is dropped, a gap is counted, and a message that a gap makes impossible to complete is dropped.
    `drops` counts by reason: `repeat` and `corrupt` (packets), `gap` (packets missing), `partial` (messages
    that can't be completed), `too_large` (messages). Pieces that continue a dropped message are dropped with
    it. Pieces that continue nothing are `corrupt`, counted once for a row of them.

    Attributes:
        fetched: by sender, the serial of the last place that was read and must be acknowledged now. Less
            than ACKNOWLEDGED_BYTES is owed until `pay` is called.
        copied: (sender, serial), the acknowledgements of places in this worker's own arena.
        each_bytes: the average size of the messages of the last `accept`; 0: they are small.
        has_extra: whether one of those messages carries extra.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._streams: dict[int, _Stream] = {}
        self.partial_bytes = 0
        self.drops: dict[str, int] = {}
        self.fetched: dict[int, int] = {}
        self.copied: list[tuple[int, int]] = []
        self.each_bytes = 0
        self.has_extra = False

    def attach(self, sender: int, memory: memoryview) -> None:
        """Read a sender's arena through this mapping from now on."""
        self._stream_of(sender).memory = memory

    def _stream_of(self, sender: int) -> _Stream:
        stream = self._streams.get(sender)
        if stream is None:
            stream = self._streams[sender] = _Stream()
        return stream

    def accept(self, packet: Packet) -> list[Message]:
        """The messages that `packet` completes, in order."""
        stream = self._streams.get(packet.sender) or self._stream_of(packet.sender)
        if packet.number != stream.next_number:
            if packet.number < stream.next_number:
                self._drop("repeat")
                return []
            self._drop("gap", packet.number - stream.next_number)
            self._drop_partial(stream)
            # The missing packets may have begun a message.
            stream.is_skipping = True
        stream.next_number = packet.number + 1
        self.each_bytes = 0
        self.has_extra = False
        if packet.kind == BATCH:
            if stream.pieces:
                self._drop_partial(stream)
            stream.is_skipping = False
            return self._decode(packet.payload)
        if packet.kind == FRAGMENT_FIRST:
            return self._begin(stream, packet.payload)
        if packet.kind == FRAGMENT_MORE:
            return self._continue(stream, packet.payload)
        return self._place(stream, packet)

    def pay(self) -> None:
        """Move the owed acknowledgements to `fetched`."""
        for sender, stream in self._streams.items():
            if stream.owed_bytes:
                stream.owed_bytes = 0
                self.fetched[sender] = stream.owed_serial

    def forget(self, sender: int) -> None:
        """Drop the unfinished message of a departed sender."""
        stream = self._streams.pop(sender, None)
        self.fetched.pop(sender, None)
        if stream is not None:
            self._drop_partial(stream)

    def close(self) -> None:
        """Drop the unfinished messages of all senders."""
        for sender in list(self._streams):
            self.forget(sender)

    def _place(self, stream: _Stream, packet: Packet) -> list[Message]:
        """Handle a packet about an arena: the sender's, or the receiver's own."""
        if packet.kind == PLACED:
            self._drop_partial(stream)
            stream.is_skipping = False
        if len(packet.payload) % (PLACE.size if packet.kind == PLACED else _SERIAL.size):
            self._drop("corrupt")
            return []
        if packet.kind == COPIED:
            # This may come between two pieces of a large message.
            self.copied += [(packet.sender, serial) for (serial,) in _SERIAL.iter_unpack(packet.payload)]
            return []
        messages: list[Message] = []
        placed_bytes = 0
        for place in PLACE.iter_unpack(packet.payload):
            memory = stream.memory
            content = read_block(memory, *place) if memory is not None else None
            found = self._decode(content) if content is not None and memory is not None else []
            if memory is None or content is None or not is_there(memory, *place):
                self._drop("corrupt")
            else:
                messages += found
                placed_bytes += place[2]
                stream.owed_serial = place[0]
                stream.owed_bytes += place[2]
        if stream.owed_bytes >= ACKNOWLEDGED_BYTES:
            stream.owed_bytes = 0
            self.fetched[packet.sender] = stream.owed_serial
        if messages:
            self.each_bytes = placed_bytes // len(messages)
        return messages

    def _begin(self, stream: _Stream, payload: memoryview) -> list[Message]:
        self._drop_partial(stream)
        stream.is_skipping = True
        if len(payload) <= TOTAL_BYTES:
            self._drop("corrupt")
            return []
        (total,) = _TOTAL.unpack_from(payload)
        if not total:
            self._drop("corrupt")
            return []
        if total > self._max_message_bytes:
            self._drop("too_large")
            return []
        stream.total_bytes = total
        stream.is_skipping = False
        return self._continue(stream, payload[TOTAL_BYTES:])

    def _continue(self, stream: _Stream, piece: memoryview) -> list[Message]:
        if not stream.total_bytes:
            if not stream.is_skipping:
                self._drop("corrupt")
                stream.is_skipping = True
            return []
        stream.pieces.append(bytes(piece))
        stream.have_bytes += len(piece)
        self.partial_bytes += len(piece)
        if stream.have_bytes < stream.total_bytes:
            return []
        if stream.have_bytes > stream.total_bytes:
            self._drop_partial(stream)
            stream.is_skipping = True
            return []
        self.each_bytes = stream.total_bytes
        encoded = b"".join((ONE_MESSAGE, *stream.pieces))
        self._clear(stream)
        return self._decode(encoded)

    def _decode(self, payload: bytes | memoryview) -> list[Message]:
        try:
            return _decode(payload)
        except msgspec.ValidationError:
            # That is how a message of three parts shows, so that those of two cost nothing.
            return self._decode_with_extra(payload)
        except (msgspec.DecodeError, RecursionError, ValueError):
            # ValueError: a timestamp that no datetime can hold, or text that is no UTF-8.
            self._drop("corrupt")
            return []

    def _decode_with_extra(self, payload: bytes | memoryview) -> list[Message]:
        try:
            raw_messages = _decode_raw(payload)
        except (msgspec.DecodeError, RecursionError, ValueError):
            self._drop("corrupt")
            return []
        messages: list[Message] = []
        for raw in raw_messages:
            message: Message = (raw.name, raw.data)
            if raw.extra is not _NO_EXTRA:
                try:
                    extra = read_extra(raw.extra)
                except (msgspec.DecodeError, RecursionError, ValueError):
                    # It costs no other message.
                    self._drop("corrupt")
                    continue
                message = MessageWithExtra(message)
                message.extra = extra
                self.has_extra = True
            messages.append(message)
        return messages

    def _drop_partial(self, stream: _Stream) -> None:
        if stream.total_bytes:
            self._drop("partial")
            self._clear(stream)

    def _clear(self, stream: _Stream) -> None:
        self.partial_bytes -= stream.have_bytes
        stream.pieces = []
        stream.have_bytes = stream.total_bytes = 0

    def _drop(self, reason: str, count: int = 1) -> None:
        self.drops[reason] = self.drops.get(reason, 0) + count


class _Stream:
    """The state of one sender's packets: the next number, and a large message under way."""

    __slots__ = (
        "have_bytes",
        "is_skipping",
        "memory",
        "next_number",
        "owed_bytes",
        "owed_serial",
        "pieces",
        "total_bytes",
    )

    def __init__(self) -> None:
        self.next_number = 0
        self.pieces: list[bytes] = []
        self.have_bytes = 0
        self.total_bytes = 0
        # The sender's arena, and the copies from it that are not acknowledged.
        self.memory: memoryview | None = None
        self.owed_serial = NOTHING_COPIED
        self.owed_bytes = 0
        # The next pieces may continue a message whose beginning was dropped and counted.
        self.is_skipping = False
