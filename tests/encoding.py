"""Wire: a message as the bytes that travel, for tests that write packets themselves."""

from __future__ import annotations

from typing import Any

import msgspec

from asgi_ipc.wire.batch import Message, Reassembler
from asgi_ipc.wire.message import Encoded, Extra, LargeMessage, Packer
from asgi_ipc.wire.packet import BATCH, Packet


def as_bytes(message: Encoded) -> bytes:
    """Return a whole encoded message of any size."""
    return message.prefix + message.body if isinstance(message, LargeMessage) else message


def large(encoded: bytes) -> LargeMessage:
    """Return an encoded message in the form in which it travels alone."""
    return LargeMessage(b"", encoded, len(encoded))


def encode_message(name: str, data: Any, max_message_bytes: int, extra: Extra | None = None) -> bytes:
    """Return one message, in one piece."""
    return as_bytes(Packer(max_message_bytes, max_message_bytes).pack(name, data, extra))


def decode_batch(payload: bytes | memoryview) -> list[Message]:
    """Return the messages of one batch, in order."""
    return Reassembler(len(payload)).accept(Packet(1, 2, 0, BATCH, memoryview(payload)))


def encode_unchecked(name: str, data: Any) -> bytes:
    """Return one message as only a foreign program would send it."""
    return msgspec.msgpack.encode((name, data))
