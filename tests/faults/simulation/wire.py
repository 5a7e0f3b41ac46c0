"""The wire: which messages lie wholly in a pipe, read off the packets that were written.

Law: its own reading of the layout in protocol/packet.py and protocol/batch.py,
so that a mistake there is not made here again.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, field

_HEADER = struct.Struct("<8sHBxIIQI")
_TOTAL = struct.Struct("<I")
_ARRAY16 = struct.Struct(">BH")
_BATCH, _FRAGMENT_FIRST = 1, 2


@dataclass(slots=True)
class Wire:
    """What has been written, by (sender, receiver).

    Attributes:
        whole: messages whose last byte has been written.
        rest_bytes: what is still to come of a large message that has been begun.
    """

    whole: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    rest_bytes: dict[tuple[int, int], int] = field(default_factory=dict)

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

    def is_mid_fragment(self, sender: int) -> bool:
        """Whether it has begun to write a large message and not ended."""
        return any(key[0] == sender for key in self.rest_bytes)
