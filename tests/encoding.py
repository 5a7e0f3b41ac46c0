"""Wire: a message as the bytes that travel, for tests that write packets themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from asgi_ipc.wire.batch import Batch
from asgi_ipc.wire.message import Encoded, Extra, LargeMessage, Packer
from asgi_ipc.wire.packet import FoundPacket, PacketParser
from asgi_ipc.wire.reassembler import Reassembler

Message: TypeAlias = tuple[str, Any]


class MessageWithExtra(tuple[str, Any]):
    """A message that carries `extra`."""

    extra: Extra


@dataclass
class Packet:
    """A packet as the parser finds it, to be kept or made up."""

    sender: int
    receiver: int
    number: int
    kind: int
    payload: bytes | memoryview
    data: bytes = field(init=False, repr=False)
    start: int = field(init=False, default=0)
    stop: int = field(init=False)

    def __post_init__(self) -> None:
        self.data = self.payload = bytes(self.payload)
        self.stop = len(self.data)


def find_all(parser: PacketParser, chunk: bytes, *, drained: bool) -> list[Packet]:
    """Return the packets that a chunk completes, in order."""
    parser.feed(chunk)
    packets: list[Packet] = []
    while parser.find(drained):
        payload = parser.data[parser.start : parser.stop]
        packets.append(Packet(parser.sender, parser.receiver, parser.number, parser.kind, payload))
    return packets


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


def accept(reassembler: Reassembler, packet: FoundPacket) -> list[Message]:
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
