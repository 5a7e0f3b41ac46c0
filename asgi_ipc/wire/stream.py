"""Streams: how far the packets of one sender have come.

Law: nothing in this file asks the kernel or the clock. The reassembler decides; a reader may ask `take_batch`
first, since nearly every packet is the next one of its sender, and a whole batch.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from asgi_ipc.wire.arena import NOTHING_COPIED
from asgi_ipc.wire.batch import Batch


class Placed(NamedTuple):
    """A batch in a sender's arena, and its place."""

    batch: Batch
    serial: int
    length: int


class Stream:
    """The state of one sender's packets to this receiver.

    Attributes:
        next_number: of the next packet.
        total_bytes, have_bytes, pieces: a large message under way; no total, no message.
        is_skipping: the next pieces may continue a message whose beginning was dropped and counted.
        memory: the sender's arena.
        reading: the batches that are left in that arena.
        owed_serial, owed_bytes: copies that are not acknowledged, up to this block.
    """

    __slots__ = (
        "have_bytes",
        "is_skipping",
        "memory",
        "next_number",
        "owed_bytes",
        "owed_serial",
        "pieces",
        "reading",
        "total_bytes",
    )

    def __init__(self) -> None:
        self.next_number = 0
        self.total_bytes = 0
        self.have_bytes = 0
        self.pieces: list[bytes] = []
        self.is_skipping = False
        self.memory: memoryview | None = None
        self.reading: deque[Placed] = deque()
        self.owed_serial = NOTHING_COPIED
        self.owed_bytes = 0

    def take_batch(self, number: int) -> bool:
        """Note that the batch with this number has come, if it is the next packet and interrupts no message.

        Otherwise, nothing is noted, and the packet is for the reassembler.
        """
        if number != self.next_number or self.total_bytes or self.is_skipping:
            return False
        self.next_number = number + 1
        return True
