"""Wire: a message as the bytes that travel, for tests that write packets themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec

from asgi_ipc.wire.batch import Batch
from asgi_ipc.wire.message import Encoded, Extra, LargeMessage, Packer
from asgi_ipc.wire.packet import Packet
from asgi_ipc.wire.reassembler import Reassembler

Message: TypeAlias = tuple[str, Any]


class MessageWithExtra(tuple[str, Any]):
    """A message that carries `extra`."""

    extra: Extra


def read(batches: Iterable[Batch]) -> list[Message]:
    """Return the messages of these batches, which have been read then."""
    messages: list[Message] = []
    for batch in batches:
        assert batch.left
        while batch.next():
            message: Message = (batch.name, batch.data)
            if batch.extra is not None:
                message = MessageWithExtra(message)
                message.extra = batch.extra
            messages.append(message)
        assert not batch.left
    return messages


def accept(reassembler: Reassembler, packet: Packet) -> list[Message]:
    """Return the messages that a packet completes, read at once."""
    messages = read(reassembler.accept(packet))
    reassembler.note_read()
    return messages


def as_bytes(message: Encoded) -> bytes:
    """Return a whole encoded message of any size."""
    return message.prefix + message.body if isinstance(message, LargeMessage) else message


def large(encoded: bytes) -> LargeMessage:
    """Return an encoded message in the form in which it travels alone."""
    return LargeMessage(b"", encoded, len(encoded), is_shared=True)


def encode_message(name: str, data: Any, max_message_bytes: int, extra: Extra | None = None) -> bytes:
    """Return one message, in one piece."""
    return as_bytes(Packer(max_message_bytes, max_message_bytes).pack(name, data, extra))


def decode_batch(payload: bytes | memoryview) -> list[Message]:
    """Return the messages of one batch, in order."""
    batch = Batch()
    batch.open(payload, 0, len(payload))
    return read([batch] if batch.left else [])


def encode_unchecked(name: str, data: Any) -> bytes:
    """Return one message as only a foreign program would send it."""
    return msgspec.msgpack.encode((name, data))
