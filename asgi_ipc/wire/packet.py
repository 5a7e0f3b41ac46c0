"""Packets: each is one atomic write on a worker's pipe.

Law: nothing in this file asks the kernel or the clock. A pipe is read in pieces of any size; this file finds
the packets in them, with any stray bytes between.

    0        8       10    11   12       16        20      28     32
    | cookie | length | kind | 0 | sender | receiver | number | crc | payload ...

All numbers are little-endian. `length` counts the whole packet, header
included. `sender` and `receiver` are generations. `number` counts packets of
one sender to one receiver from 0. `crc` is the CRC-32 of everything else, so
a packet that was cut or flipped on its way is skipped, not misread.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import msgspec

HEADER_BYTES: Final = 32
COOKIE_BYTES: Final = 8

# The payload must be able to carry a message's array header and something of
# its data; 128 leaves 96 bytes. The upper limit is the kernel's PIPE_BUF.
MIN_PACKET_BYTES: Final = 128

BATCH: Final = 1  # payload: one or more whole messages
FRAGMENT_FIRST: Final = 2  # payload: total size (4 bytes), then the first piece of one large message
FRAGMENT_MORE: Final = 3  # payload: the next piece of it
PLACED: Final = 4  # payload: places in the sender's arena, each with whole messages; see arena.py
COPIED: Final = 5  # payload: the serial of the last such place of the receiver's that has been copied
_KINDS: Final = frozenset({BATCH, FRAGMENT_FIRST, FRAGMENT_MORE, PLACED, COPIED})

_HEADER: Final = struct.Struct("<8sHBxIIQ")
_CRC: Final = struct.Struct("<I")
_HEADER_AND_CRC: Final = struct.Struct("<8sHBxIIQI")
_pack_header = _HEADER.pack
_pack_crc = _CRC.pack
_unpack = _HEADER_AND_CRC.unpack_from
_crc32 = zlib.crc32


class Packet(msgspec.Struct, frozen=True, gc=False):
    """One packet found in the byte stream."""

    sender: int
    receiver: int
    number: int
    kind: int
    payload: memoryview


def encode_packet(
    cookie: bytes, sender: int, receiver: int, number: int, kind: int, payload: bytes | memoryview
) -> bytes:
    """Return one packet, ready for one `write`. The caller keeps it within the atomic limit."""
    head = _pack_header(cookie, HEADER_BYTES + len(payload), kind, sender, receiver, number)
    return b"".join((head, _pack_crc(_crc32(payload, _crc32(head))), payload))


class PacketParser:
    """Finds the packets in a byte stream that arrives in pieces.

    Bytes that are no packet of this run are skipped and counted in `skips` (runs of stray bytes) and
    `skipped_bytes`. The run's cookie shows the next packet.
    """

    __slots__ = ("_cookie", "_in_skip", "_max_packet_bytes", "_rest", "skipped_bytes", "skips")

    def __init__(self, cookie: bytes, max_packet_bytes: int) -> None:
        if len(cookie) != COOKIE_BYTES:
            raise ValueError(f"a cookie has {COOKIE_BYTES} bytes, not {len(cookie)}")
        self._cookie = cookie
        self._max_packet_bytes = max_packet_bytes
        self._rest = b""
        self._in_skip = False
        self.skips = 0
        self.skipped_bytes = 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait for the rest of their packet: less than one packet."""
        return len(self._rest)

    def feed(self, chunk: bytes, *, drained: bool) -> list[Packet]:
        """Return the packets that `chunk` completes, in order.

        `drained` says that the read which brought `chunk` emptied the pipe.
        A write is atomic, so a packet that is incomplete then is garbage.
        """
        data = self._rest + chunk if self._rest else chunk
        packets: list[Packet] = []
        position = self._collect(data, packets, drained)
        if drained and position < len(data):
            self._count_skip(len(data) - position)
            position = len(data)
        self._rest = data[position:]
        return packets

    def _collect(self, data: bytes, packets: list[Packet], drained: bool) -> int:
        """Append the packets in `data`, and return where the bytes begin that may be the next one's."""
        view = memoryview(data)
        end = len(data)
        position = 0
        while end - position >= HEADER_BYTES:
            cookie, length, kind, sender, receiver, number, crc = _unpack(data, position)
            if cookie == self._cookie and HEADER_BYTES <= length <= self._max_packet_bytes and kind in _KINDS:
                stop = position + length
                if stop <= end:
                    payload = view[position + HEADER_BYTES : stop]
                    if _crc32(payload, _crc32(view[position : position + HEADER_BYTES - 4])) == crc:
                        packets.append(Packet(sender, receiver, number, kind, payload))
                        position = stop
                        self._in_skip = False
                        continue
                elif not drained:
                    break
            position += self._skip(data, position)
        return position

    def _skip(self, data: bytes, position: int) -> int:
        """Return the distance to the next place where a packet may begin, at least one byte on."""
        found = data.find(self._cookie, position + 1)
        if found < 0:
            # The last bytes may be the beginning of a cookie.
            found = max(position + 1, len(data) - COOKIE_BYTES + 1)
        self._count_skip(found - position)
        return found - position

    def _count_skip(self, size_bytes: int) -> None:
        if not self._in_skip:
            self.skips += 1
            self._in_skip = True
        self.skipped_bytes += size_bytes
