"""The wire: the messages that lie whole in a pipe, derived from the packets that were written.

Law: it reads the layout of wire/packet.py and wire/batch.py with code of its own, so that it does not repeat
a mistake there.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, field

_HEADER = struct.Struct("<8sHBxIIQI")
_TOTAL = struct.Struct("<I")
_ARRAY16 = struct.Struct(">BH")
_PLACE = struct.Struct("<QII")
_BLOCK_HEADER = struct.Struct("<QI4x")
_BATCH, _FRAGMENT_FIRST, _FRAGMENT_MORE, _PLACED, _COPIED = 1, 2, 3, 4, 5


@dataclass(slots=True)
class Wire:
    """The written bytes, by (sender, receiver).

    Attributes:
        whole: messages whose last byte has been written.
        rest_bytes: what is still to come of a large message that has been begun.
        arenas: by sender.
    """

    whole: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    rest_bytes: dict[tuple[int, int], int] = field(default_factory=dict)
    arenas: dict[int, bytearray] = field(default_factory=dict)

    def wrote(self, packet: bytes) -> str:
        """Take note of a packet; what it is, in words."""
        _, length, kind, sender, receiver, number, _ = _HEADER.unpack_from(packet)
        assert length == len(packet)
        key = (sender, receiver)
        if kind == _BATCH:
            marker, count = _ARRAY16.unpack_from(packet, _HEADER.size)
            assert marker == 0xDC
            self.whole[key] += count
            return f"packet {number} to w{receiver}, {count} messages"
        if kind == _COPIED:
            return f"packet {number} to w{receiver}, what has been copied"
        if kind == _PLACED:
            return f"packet {number} to w{receiver}, {self._placed(packet)} messages in places"
        size_bytes = len(packet) - _HEADER.size
        if kind == _FRAGMENT_FIRST:
            (total_bytes,) = _TOTAL.unpack_from(packet, _HEADER.size)
            rest_bytes = total_bytes - (size_bytes - _TOTAL.size)
        else:
            rest_bytes = self.rest_bytes[key] - size_bytes
        if rest_bytes > 0:
            self.rest_bytes[key] = rest_bytes
            return f"packet {number} to w{receiver}, {rest_bytes} bytes of its message to come"
        self.rest_bytes.pop(key, None)
        self.whole[key] += 1
        return f"packet {number} to w{receiver}, the end of its message"

    def _placed(self, packet: bytes) -> int:
        """How many messages lie in the places that a packet announces."""
        _, _, _, sender, receiver, _, _ = _HEADER.unpack_from(packet)
        total = 0
        for serial, offset, length in _PLACE.iter_unpack(packet[_HEADER.size :]):
            assert _BLOCK_HEADER.unpack_from(self.arenas[sender], offset) == (serial, length)
            marker, count = _ARRAY16.unpack_from(self.arenas[sender], offset + _BLOCK_HEADER.size)
            assert marker == 0xDC
            total += count
        self.whole[sender, receiver] += total
        return total

    def is_mid_fragment(self, sender: int) -> bool:
        """Return whether a sender has begun to write a large message and not ended it."""
        return any(key[0] == sender for key in self.rest_bytes)
