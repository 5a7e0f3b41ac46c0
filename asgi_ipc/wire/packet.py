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
from typing import Final, Protocol

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
_LAST_KIND: Final = COPIED

_HEADER: Final = struct.Struct("<8sHBxIIQ")
_CRC: Final = struct.Struct("<I")
_CRC_BYTES: Final = _CRC.size
_HEADER_BYTES: Final = HEADER_BYTES
_HEADER_AND_CRC: Final = struct.Struct("<8sHBxIIQI")
_pack_header = _HEADER.pack
_pack_crc = _CRC.pack
_unpack = _HEADER_AND_CRC.unpack_from
_crc32 = zlib.crc32


class FoundPacket(Protocol):
    """One packet found in the byte stream. Its payload is `data` from `start` to `stop`."""

    sender: int
    receiver: int
    number: int
    kind: int
    data: bytes
    start: int
    stop: int


def encode_packet(
    cookie: bytes, sender: int, receiver: int, number: int, kind: int, payload: bytes | memoryview
) -> bytes:
    """Return one packet, ready for one `write`. The caller keeps it within the atomic limit."""
    head = _pack_header(cookie, HEADER_BYTES + len(payload), kind, sender, receiver, number)
    return b"".join((head, _pack_crc(_crc32(payload, _crc32(head))), payload))


class PacketParser:
    """Finds the packets in a byte stream that arrives in pieces, one after the other.

    `find` leaves the packet in the attributes of FoundPacket, until the next `find` or `feed`. Bytes that are
    no packet of this run are skipped and counted in `skips` (runs of stray bytes) and `skipped_bytes`. The
    run's cookie shows the next packet.
    """

    __slots__ = (
        "_at",
        "_cookie",
        "_in_skip",
        "_max_packet_bytes",
        "data",
        "kind",
        "number",
        "receiver",
        "sender",
        "skipped_bytes",
        "skips",
        "start",
        "stop",
    )

    def __init__(self, cookie: bytes, max_packet_bytes: int) -> None:
        if len(cookie) != COOKIE_BYTES:
            raise ValueError(f"a cookie has {COOKIE_BYTES} bytes, not {len(cookie)}")
        self._cookie = cookie
        self._max_packet_bytes = max_packet_bytes
        self._in_skip = False
        self.skips = 0
        self.skipped_bytes = 0
        # The bytes that have arrived, and how far they were searched.
        self.data = b""
        self._at = 0
        self.sender = self.receiver = self.number = self.kind = self.start = self.stop = 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes in which no packet was found yet; less than one packet behind the last `find`."""
        return len(self.data) - self._at

    def feed(self, chunk: bytes) -> None:
        """Take what one read has brought."""
        self.data = self.data[self._at :] + chunk
        self._at = 0

    def find(self, drained: bool) -> bool:
        """Find the next packet; False: there is none.

        `drained` says that the last read emptied the pipe. A write is atomic, so a packet that is incomplete
        then is garbage.
        """
        data = self.data
        end = len(data)
        while end - self._at >= _HEADER_BYTES:
            at = self._at
            cookie, length, kind, sender, receiver, number, crc = _unpack(data, at)
            is_ours = cookie == self._cookie and 0 < kind <= _LAST_KIND
            if is_ours and _HEADER_BYTES <= length <= self._max_packet_bytes:
                start, stop = at + _HEADER_BYTES, at + length
                if stop <= end:
                    payload = data[start:stop]
                    if _crc32(payload, _crc32(data[at : start - _CRC_BYTES])) == crc:
                        self.sender, self.receiver, self.number, self.kind = sender, receiver, number, kind
                        self.start, self.stop = start, stop
                        self._at = stop
                        self._in_skip = False
                        return True
                elif not drained:
                    break
            self._skip()
        if drained:
            self._count_skip(end - self._at)
            self._at = end
        self.data = data[self._at :]
        self._at = 0
        return False

    def _skip(self) -> None:
        """Go to the next place where a packet may begin, at least one byte on."""
        found = self.data.find(self._cookie, self._at + 1)
        if found < 0:
            # The last bytes may be the beginning of a cookie.
            found = max(self._at + 1, len(self.data) - COOKIE_BYTES + 1)
        self._count_skip(found - self._at)
        self._at = found

    def _count_skip(self, size_bytes: int) -> None:
        if size_bytes and not self._in_skip:
            self.skips += 1
            self._in_skip = True
        self.skipped_bytes += size_bytes
