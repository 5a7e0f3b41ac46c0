"""Payloads: what is sent, each with content of its own, and the check of what arrives.

Law: no I/O. The sender and the receiver derive the same sequence from
(count, size), so the receiver compares every byte of every message with what
must come next: a message that is lost, altered, repeated or out of its order
is found, and the comparison costs less than a checksum would.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from typing import Final

# Where a message's number stands; the smallest payload is nothing but that.
NUMBER_BYTES: Final = 10

# Up to here payloads are made before the clock starts, above as they are sent:
# a list of large ones would have to be fetched from main memory, while a copy
# of 10 KiB costs 0.3 us, some 2 % of sending it.
MAX_PREPARED_BYTES: Final = 1024

# Different bodies behind the number, so that a piece of one large message does
# not fit into its neighbours unnoticed.
BODIES: Final = 16

# Wrong messages that are named; behind the first, all may be wrong.
MAX_NAMED: Final = 5


def payloads(count: int, size_bytes: int) -> Iterable[bytes]:
    """`count` different payloads of `size_bytes` each, the same ones in every process.

    Raises ValueError for a size below NUMBER_BYTES.
    """
    if size_bytes < NUMBER_BYTES:
        raise ValueError(f"a payload has at least {NUMBER_BYTES} bytes, not {size_bytes}")
    # A sequence that anyone can make again, not a secret.
    source = random.Random(size_bytes)
    bodies = [source.randbytes(size_bytes - NUMBER_BYTES) for _ in range(BODIES)]
    sequence = _numbered(count, bodies)
    return list(sequence) if size_bytes <= MAX_PREPARED_BYTES else sequence


def _numbered(count: int, bodies: list[bytes]) -> Iterator[bytes]:
    for number in range(count):
        yield number.to_bytes(NUMBER_BYTES, "little") + bodies[number % BODIES]


class Inbox:
    """A plain handler that compares what arrives with what must arrive, and notes when the last did.

    Attributes:
        taken: messages so far.
        wrong: those that were not what had to come next.
        named: the positions of the first of them.
        ended_ns: when the last expected one was handed over, on the system-wide monotonic clock; or 0.
    """

    __slots__ = ("_count", "_expected", "ended_ns", "named", "taken", "wrong")

    def __init__(self, count: int, size_bytes: int) -> None:
        self._count = count
        self._expected = iter(payloads(count, size_bytes))
        self.taken = 0
        self.wrong = 0
        self.named: list[int] = []
        self.ended_ns = 0

    def take(self, data: object) -> None:
        """Handle one message."""
        if data != next(self._expected, None):
            self.wrong += 1
            if len(self.named) < MAX_NAMED:
                self.named.append(self.taken)
        self.taken += 1
        if self.taken == self._count:
            self.ended_ns = time.monotonic_ns()
