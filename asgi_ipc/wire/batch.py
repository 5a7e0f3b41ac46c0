"""Batches: messages that arrived together, looked over as a whole and then decoded one at a time.

Law: nothing in this file asks the kernel or the clock. No length in the bytes leads beyond their end. What
lies in shared memory is decoded late, and must then still be the block that was announced.

A message is the MessagePack array [name, data] or [name, data, extra]. A batch is a MessagePack array of
messages; its messages are encoded one by one, when each is accepted. A message that exceeds one packet
travels alone, in fragments.

Most batches have text, bytes and numbers only. Their messages are decoded one by one, so that large data is
copied once, when its turn comes. Every other batch is decoded whole at once, by msgspec, which alone decides
what is no batch.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import msgspec

from asgi_ipc.wire.arena import BLOCK_HEADER_BYTES, is_there
from asgi_ipc.wire.message import Extra, read_extra, refuse_extension
from asgi_ipc.wire.packet import HEADER_BYTES

# The name, the data and, rarely, the extra of a message.
Message: TypeAlias = tuple[str, Any, Extra | None]

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

# MessagePack's array of two, and the first bytes of short text, of bytes, and of longer text.
_ARRAY2: Final = 0x92
_FIXSTR: Final = 0xA0
_BIN8: Final = 0xC4
_BIN32: Final = 0xC6
_STR8: Final = 0xD9
_STR32: Final = 0xDB

# The size of nil, a boolean or a number, by its first byte from 0xC0 on; 0: it is something else.
_NUMBER_BYTES: Final = bytes((1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 5, 9, 2, 3, 5, 9, 2, 3, 5, 9))

# What a value is.
_OTHER: Final = 0
_NUMBER: Final = 1
_BYTES: Final = 2
_TEXT: Final = 3

_SERIAL: Final = struct.Struct("<Q")
SERIAL_BYTES: Final = _SERIAL.size
pack_serial = _SERIAL.pack
read_serials = _SERIAL.iter_unpack

_TOTAL: Final = struct.Struct("<I")
TOTAL_BYTES: Final = _TOTAL.size
read_total = _TOTAL.unpack_from

_decode_number = msgspec.msgpack.Decoder().decode
_decode_plain = msgspec.msgpack.Decoder(list[tuple[str, Any]], ext_hook=refuse_extension).decode
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


class Batch:
    """Messages that arrived together: `next` finds one after the other.

    Attributes:
        name, data, extra: of the message that `next` found last.
        left: how many messages are to come.
        each_bytes: the average size of the messages; 0: they are small.
        spoilt: how many messages were dropped for an extra that is none.
        is_overwritten: the sender has used the block again before all messages were read; the rest is lost.
    """

    __slots__ = (
        "_at",
        "_content",
        "_decoded",
        "_front",
        "_place",
        "_start",
        "_stop",
        "_value_stop",
        "data",
        "each_bytes",
        "extra",
        "is_overwritten",
        "left",
        "name",
        "spoilt",
    )

    def __init__(self) -> None:
        self.name = ""
        self.data: Any = None
        self.extra: Extra | None = None
        self.left = 0
        self.each_bytes = 0
        self.spoilt = 0
        self.is_overwritten = False
        # What is to be decoded, from `_at` on.
        self._content: bytes | memoryview = b""
        self._at = 0
        self._stop = 0
        # In shared memory: the serial, offset and length of the block.
        self._place: tuple[int, int, int] | None = None
        # The messages that were decoded at once, the last one first.
        self._decoded: list[Message] = []
        # What stands before the data of the last message: most messages have the name of the one before.
        self._front = b""
        # The content of the value that `_find` found.
        self._start = 0
        self._value_stop = 0

    # --- opened

    def open(self, content: bytes | memoryview) -> bool:
        """Look over a batch; False, and no messages, if it is none."""
        self._content = content
        self._place = None
        return self._open(0, len(content))

    def open_block(self, memory: memoryview, serial: int, offset: int, length: int) -> bool:
        """Look over the batch in an announced block, and leave it there; False if it is none."""
        self._place = (serial, offset, length)
        if not is_there(memory, serial, offset, length):
            self._lose()
            return False
        self._content = memory
        start = offset + BLOCK_HEADER_BYTES
        is_batch = self._open(start, start + length)
        if not is_there(memory, serial, offset, length):
            self._lose()
            return False
        if self.left:
            self.each_bytes = length // self.left
        return is_batch

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Batch:
        """Return a batch of messages that are decoded already."""
        batch = cls()
        batch._hold(messages)
        return batch

    def _open(self, start: int, stop: int) -> bool:
        self._at, self._stop = start + BATCH_HEADER_BYTES, stop
        self.left = self._look_over(start)
        return self.left >= 0 or self._decode_whole(bytes(self._content[start:stop]))

    def _look_over(self, start: int) -> int:
        """Return the number of messages, all of them with text, bytes and numbers only; -1: it is not so."""
        content, stop = self._content, self._stop
        at = self._at
        if at > stop or content[start] != _ARRAY16:
            return -1
        count = content[start + 1] << 8 | content[start + 2]
        for _ in range(count):
            at = self._read_front(at)
            kind = self._find(at) if at >= 0 else _OTHER
            if kind == _OTHER or (kind == _TEXT and not self._is_text()):
                return -1
            at = self._value_stop
        return count if at == stop else -1

    def _decode_whole(self, payload: bytes) -> bool:
        """Decode all messages; False if it is no batch."""
        self._leave_content()
        try:
            self._hold([(name, data, None) for name, data in _decode_plain(payload)])
        except msgspec.ValidationError:
            # That is how a message of three parts shows, so that those of two cost nothing.
            return self._decode_with_extra(payload)
        except (msgspec.DecodeError, RecursionError, ValueError):
            # ValueError: a timestamp that no datetime can hold, or text that is no UTF-8.
            return False
        return True

    def _decode_with_extra(self, payload: bytes) -> bool:
        try:
            raw_messages = _decode_raw(payload)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return False
        messages: list[Message] = []
        for raw in raw_messages:
            try:
                extra = read_extra(raw.extra) if raw.extra is not _NO_EXTRA else None
            except (msgspec.DecodeError, RecursionError, ValueError):
                # It costs no other message.
                self.spoilt += 1
            else:
                messages.append((raw.name, raw.data, extra))
        self._hold(messages)
        return True

    # --- one message at a time

    def next(self) -> bool:
        """Decode the next message into `name`, `data` and `extra`; False: there is none."""
        # With two large messages at a time the C library gives the heap's end back and takes it again for
        # each (docs/decisions/0009).
        self.data = self.extra = None
        if not self.left:
            return False
        self.left -= 1
        if self._decoded:
            self.name, self.data, self.extra = self._decoded.pop()
            return True
        at = self._read_front(self._at)
        kind = self._find(at) if at >= 0 else _OTHER
        content = self._content[self._start : self._value_stop]
        try:
            if kind == _BYTES:
                self.data = bytes(content)
            elif kind == _TEXT:
                self.data = str(content, "utf-8")
            elif kind == _NUMBER:
                self.data = _decode_number(content)
            else:
                self._lose()
        except (msgspec.DecodeError, ValueError):
            # It was looked over, so only the sender can have changed it meanwhile.
            self._lose()
        self._at = self._value_stop
        self._check_block()
        return not self.is_overwritten

    def copy_rest(self) -> None:
        """Copy what is left out of the shared memory, which will be unmapped."""
        if self.is_in_block:
            content = bytes(self._content[self._at : self._stop])
            self._check_block()
            self._content, self._at, self._stop, self._place = content, 0, len(content), None

    def drop_rest(self) -> None:
        """Forget what is left."""
        self.left = 0
        self._decoded = []
        self._leave_content()

    @property
    def is_in_block(self) -> bool:
        """Return whether there is something left to read in shared memory."""
        return self.left > 0 and self._place is not None

    def _hold(self, messages: Sequence[Message]) -> None:
        self._decoded = list(messages)
        self._decoded.reverse()
        self.left = len(messages)
        # `name` will be that of a message without a front.
        self._front = b""

    def _leave_content(self) -> None:
        self.left = 0
        self._content = b""
        self._place = None

    def _check_block(self) -> None:
        place = self._place
        if place is not None:
            memory = self._content
            assert isinstance(memory, memoryview)
            if not is_there(memory, *place):
                self._lose()

    def _lose(self) -> None:
        """The block is not what was announced."""
        self.drop_rest()
        self.data = None
        self.is_overwritten = True

    # --- MessagePack

    def _read_front(self, at: int) -> int:
        """Read the beginning of a message up to its name; where its data begins, -1: it has another form."""
        content, stop, front = self._content, self._stop, self._front
        behind = at + len(front)
        if front and behind <= stop and content[at:behind] == front:
            return behind
        if at >= stop or content[at] != _ARRAY2 or self._find(at + 1) != _TEXT:
            return -1
        behind = self._value_stop
        try:
            self.name = str(content[self._start : behind], "utf-8")
        except UnicodeDecodeError:
            return -1
        self._front = bytes(content[at:behind])
        return behind

    def _find(self, at: int) -> int:
        """Return what the value there is, and find its content; that of a number is all of it."""
        content, stop = self._content, self._stop
        if at >= stop:
            return _OTHER
        tag = content[at]
        start = at
        if tag < 0x80 or tag >= 0xE0:
            kind, size = _NUMBER, 1
        elif _FIXSTR <= tag < 0xC0:
            kind, start, size = _TEXT, at + 1, tag - _FIXSTR
        elif _BIN8 <= tag <= _BIN32 or _STR8 <= tag <= _STR32:
            kind, first = (_BYTES, _BIN8) if tag <= _BIN32 else (_TEXT, _STR8)
            start = at + 1 + (1 << (tag - first))
            if start > stop:
                return _OTHER
            size = 0
            for place in range(at + 1, start):
                size = size << 8 | content[place]
        elif 0xC0 <= tag < 0xC0 + len(_NUMBER_BYTES) and _NUMBER_BYTES[tag - 0xC0]:
            kind, size = _NUMBER, _NUMBER_BYTES[tag - 0xC0]
        else:
            return _OTHER
        self._start = start
        self._value_stop = start + size
        return kind if start + size <= stop else _OTHER

    def _is_text(self) -> bool:
        """Return whether the content that `_find` found is UTF-8."""
        try:
            str(self._content[self._start : self._value_stop], "utf-8")
        except UnicodeDecodeError:
            return False
        return True
