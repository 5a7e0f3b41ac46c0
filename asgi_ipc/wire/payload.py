"""Payloads: what stands in a packet, and in a block, around encoded messages.

Law: nothing in this file asks the kernel or the clock.

A message is the MessagePack array [name, data] or [name, data, extra]. A batch is a MessagePack array of
messages; its messages are encoded one by one, when each is accepted. A message that exceeds one packet
travels alone, in fragments.
"""

from __future__ import annotations

import struct
from typing import Any, Final, TypeAlias

import msgspec

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
ARRAY16: Final = 0xDC
BATCH_HEADER_BYTES: Final = _BATCH_HEADER.size

# The bytes before one encoded message that travels alone.
ONE_MESSAGE: Final = _BATCH_HEADER.pack(ARRAY16, 1)

_SERIAL: Final = struct.Struct("<Q")
SERIAL_BYTES: Final = _SERIAL.size
pack_serial = _SERIAL.pack
read_serials = _SERIAL.iter_unpack

_TOTAL: Final = struct.Struct("<I")
TOTAL_BYTES: Final = _TOTAL.size
read_total = _TOTAL.unpack_from

_decode_plain = msgspec.msgpack.Decoder(list[tuple[str, Any]], ext_hook=refuse_extension).decode
_decode_raw = msgspec.msgpack.Decoder(list[_Raw], ext_hook=refuse_extension).decode


def batch_header(messages: int) -> bytes:
    """The bytes before so many encoded messages that travel together."""
    return _BATCH_HEADER.pack(ARRAY16, messages)


def join_batch(messages: list[bytes]) -> bytes:
    """The payload of one packet: encoded messages that travel together."""
    return batch_header(len(messages)) + b"".join(messages)


def batch_capacity_bytes(max_packet_bytes: int) -> int:
    """Encoded messages that fit one packet together, in bytes."""
    return max_packet_bytes - HEADER_BYTES - BATCH_HEADER_BYTES


def first_fragment(total_bytes: int, piece: bytes | memoryview) -> bytes:
    """The payload of a large message's first packet."""
    return _TOTAL.pack(total_bytes) + piece


def decode_whole(payload: bytes) -> tuple[list[Message], int] | None:
    """Decode all messages of a batch at once; None if it is none.

    The number is that of the messages that were dropped for an extra that is none.
    """
    try:
        return [(name, data, None) for name, data in _decode_plain(payload)], 0
    except msgspec.ValidationError:
        # That is how a message of three parts shows, so that those of two cost nothing.
        return _decode_with_extra(payload)
    except (msgspec.DecodeError, RecursionError, ValueError):
        # ValueError: a timestamp that no datetime can hold, or text that is no UTF-8.
        return None


def _decode_with_extra(payload: bytes) -> tuple[list[Message], int] | None:
    try:
        raw_messages = _decode_raw(payload)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    messages: list[Message] = []
    for raw in raw_messages:
        try:
            extra = read_extra(raw.extra) if raw.extra is not _NO_EXTRA else None
        except (msgspec.DecodeError, RecursionError, ValueError):
            # It costs no other message.
            continue
        messages.append((raw.name, raw.data, extra))
    return messages, len(raw_messages) - len(messages)
