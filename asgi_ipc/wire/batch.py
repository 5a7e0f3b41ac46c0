"""Batches: messages that arrived together, looked over as a whole and then decoded one at a time.

Law: nothing in this file asks the kernel or the clock. No length in the bytes leads beyond their end. What
lies in shared memory is decoded late, and must then still be the block that was announced.

Most batches have text, bytes and numbers only. Their messages are decoded one by one, so that large data is
copied once, when its turn comes. Every other batch is decoded whole at once, by msgspec, which alone decides
what is no batch. The layout of both is in payload.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from asgi_ipc import fast
from asgi_ipc.wire.arena import BLOCK_HEADER_BYTES, block_header
from asgi_ipc.wire.message import Extra
from asgi_ipc.wire.payload import ARRAY16, BATCH_HEADER_BYTES, Message, decode_whole

_ARRAY16: Final = ARRAY16
_BATCH_HEADER_BYTES: Final = BATCH_HEADER_BYTES

# MessagePack's array of two, and the first bytes of short text, of bytes, and of longer text.
_ARRAY2: Final = 0x92
_FIXSTR: Final = 0xA0
_BIN8: Final = 0xC4
_BIN32: Final = 0xC6
_STR8: Final = 0xD9
_STR32: Final = 0xDB

# The size of nil, a boolean or a number, by its first byte from 0xC0 to 0xD3; 0: it is something else.
_NIL: Final = 0xC0
_INT64: Final = 0xD3
_NUMBER_BYTES: Final = bytes((1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 5, 9, 2, 3, 5, 9, 2, 3, 5, 9))

# The kinds of values.
_OTHER: Final = 0
_NUMBER: Final = 1
_BYTES: Final = 2
_TEXT: Final = 3

# No message begins like this.
_NO_FRONT: Final = b"\xc1"

_decode_number = msgspec.msgpack.Decoder().decode


class Batch:
    """Messages that arrived together: `next` finds one after the other. It may be opened again and again.

    Attributes:
        name, data, extra: of the message that `next` found last.
        left: how many messages are to come.
        each_bytes: the average size of the messages; 0: they are small.
        spoilt: how many messages were dropped for an extra that is none.
        is_overwritten: the sender has used the block again before all messages were read; the rest is lost.
    """

    __slots__ = (
        "_at",
        "_block",
        "_content",
        "_decoded",
        "_front",
        "_header",
        "_memory",
        "_stop",
        "_value_start",
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
        # The bytes to decode lie from `_at` to `_stop`; `_memory` is where they lie.
        self._content: bytes | memoryview = b""
        self._memory = fast.address(self._content)
        self._at = 0
        self._stop = 0
        # The place of the block in shared memory, and how it begins as long as it is the same; -1: none.
        self._block = -1
        self._header = b""
        # The messages that were decoded at once, the last one first.
        self._decoded: list[Message] = []
        # The bytes before the data of the last message: most messages have the name of the one before.
        self._front = _NO_FRONT
        # The content of the value that `_find` found.
        self._value_start = 0
        self._value_stop = 0

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Batch:
        """Return a batch of messages that are decoded already."""
        batch = cls()
        batch.hold(messages)
        return batch

    # --- opened

    def open(self, content: bytes | memoryview, start: int, stop: int) -> bool:
        """Look over the batch that lies there in `content`; False, and no messages, if it is none."""
        self._begin()
        self._read_from(content, start, stop)
        return self._look_over()

    def open_block(self, memory: memoryview, serial: int, offset: int, length: int) -> bool:
        """Look over the batch in an announced block, and leave it there; False if it is none."""
        self._begin()
        start = offset + BLOCK_HEADER_BYTES
        stop = start + length
        if stop > len(memory):
            self._lose()
            return False
        self._read_from(memory, start, stop)
        self._block = offset
        self._header = block_header(serial, length)
        # Whatever lies there instead is not decoded.
        if not self._check_block():
            return False
        is_batch = self._look_over()
        if self.left:
            self.each_bytes = length // self.left
        return is_batch and not self.is_overwritten

    def hold(self, messages: Sequence[Message]) -> None:
        """Take messages that are decoded already."""
        self.drop_rest()
        self._decoded = [*reversed(messages)]
        self.left = len(self._decoded)
        # `name` will be that of a message without a front.
        self._front = _NO_FRONT

    def _begin(self) -> None:
        self.left = self.each_bytes = self.spoilt = 0
        self.is_overwritten = False
        self._decoded.clear()

    def _read_from(self, content: bytes | memoryview, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(content):
            raise ValueError(f"{len(content)} bytes have no batch from {start} to {stop}")
        self._memory = fast.address(content)
        self._content = content
        self._at = start
        self._stop = stop
        self._block = -1

    def _look_over(self) -> bool:
        """Count the messages, or decode them if they have more than text, bytes and numbers."""
        count = self._count()
        if count >= 0:
            self._at += _BATCH_HEADER_BYTES
            self.left = count
            self._check_block()
            return True
        payload = fast.bytes_at(self._memory, self._at, self._stop)
        if not self._check_block():
            return False
        self.drop_rest()
        decoded = decode_whole(payload)
        if decoded is None:
            return False
        messages, self.spoilt = decoded
        self.hold(messages)
        return True

    def _count(self) -> int:
        """Return the number of messages, all of them with text, bytes and numbers only; -1: it is not so."""
        memory, at, stop = self._memory, self._at, self._stop
        if stop - at < _BATCH_HEADER_BYTES or memory[at] != _ARRAY16:
            return -1
        count = memory[at + 1] << 8 | memory[at + 2]
        at += _BATCH_HEADER_BYTES
        for _ in range(count):
            kind = self._find(self._read_front(at))
            if kind == _OTHER:
                return -1
            if kind == _TEXT and not fast.is_text(memory, self._value_start, self._value_stop):
                return -1
            at = self._value_stop
        return count if at == stop else -1

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
        kind = self._find(self._read_front(self._at))
        start, stop = self._value_start, self._value_stop
        self._at = stop
        try:
            if kind == _BYTES:
                self.data = fast.bytes_at(self._memory, start, stop)
            elif kind == _TEXT:
                self.data = fast.text_at(self._memory, start, stop)
            elif kind == _NUMBER:
                self.data = _decode_number(fast.bytes_at(self._memory, start, stop))
            else:
                self._lose()
        except ValueError:
            # It was looked over, so only the sender can have changed it meanwhile.
            self._lose()
        self._check_block()
        return not self.is_overwritten

    def copy_rest(self) -> None:
        """Copy what is left out of the shared memory, which will be unmapped."""
        if self.is_in_block:
            rest = fast.bytes_at(self._memory, self._at, self._stop)
            if self._check_block():
                self._read_from(rest, 0, len(rest))

    def drop_rest(self) -> None:
        """Forget what is left."""
        self.left = 0
        self._decoded.clear()
        self._read_from(b"", 0, 0)

    @property
    def is_in_block(self) -> bool:
        """Return whether there is something left to read in shared memory."""
        return self.left > 0 and self._block >= 0

    def _check_block(self) -> bool:
        """Return whether the block is still what was announced, if it is one; otherwise, it is lost."""
        if self._block < 0 or fast.is_at(self._memory, self._block, self._stop, self._header):
            return True
        self._lose()
        return False

    def _lose(self) -> None:
        self.drop_rest()
        self.data = None
        self.is_overwritten = True

    # --- MessagePack

    def _read_front(self, at: int) -> int:
        """Read a message up to its name; return where its data begins, or the end if it has another form."""
        memory, stop = self._memory, self._stop
        if fast.is_at(memory, at, stop, self._front):
            return at + len(self._front)
        if at >= stop or memory[at] != _ARRAY2 or self._find(at + 1) != _TEXT:
            return stop
        behind = self._value_stop
        try:
            self.name = fast.text_at(memory, self._value_start, behind)
        except ValueError:
            return stop
        self._front = fast.bytes_at(memory, at, behind)
        return behind

    def _find(self, at: int) -> int:
        """Return what the value there is, and find its content; that of a number is all of it."""
        memory, stop = self._memory, self._stop
        if at >= stop:
            return _OTHER
        tag = memory[at]
        start = at
        size = 0
        if tag < 0x80 or tag >= 0xE0:
            kind, size = _NUMBER, 1
        elif _FIXSTR <= tag < _NIL:
            kind, start, size = _TEXT, at + 1, tag - _FIXSTR
        elif _BIN8 <= tag <= _BIN32:
            kind, start = _BYTES, at + 1 + (1 << (tag - _BIN8))
        elif _STR8 <= tag <= _STR32:
            kind, start = _TEXT, at + 1 + (1 << (tag - _STR8))
        elif _NIL <= tag <= _INT64 and _NUMBER_BYTES[tag - _NIL]:
            kind, size = _NUMBER, _NUMBER_BYTES[tag - _NIL]
        else:
            return _OTHER
        if start > stop:
            return _OTHER
        for place in range(at + 1, start):
            size = size << 8 | memory[place]
        self._value_start = start
        self._value_stop = start + size
        return kind if self._value_stop <= stop else _OTHER
