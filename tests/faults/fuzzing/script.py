"""Scripts: the writes into one pipe, its reads, and the senders that the changes harm.

Law: any decision bytes make a script; after their end the rest is zeros. Senders in `touched` may lose
messages. Senders in `forged` may seem to have sent the messages that a forger wrote in their name. All others
are owed every message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from asgi_ipc.wire.packet import HEADER_BYTES
from tests.faults.fuzzing.wire import RUNS


class Decisions:
    """Reads one decision after the other."""

    __slots__ = ("_at", "_source")

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._at = 0

    def byte(self) -> int:
        at = self._at
        self._at = at + 1
        try:
            return self._source[at]
        except IndexError:
            return 0

    def below(self, limit: int) -> int:
        """Less than `limit`, which is at least 1."""
        number = self.byte()
        if limit > 256:
            number |= self.byte() << 8
        return number % limit

    def raw(self, size: int) -> bytes:
        at = self._at
        self._at = at + size
        return self._source[at : at + size].ljust(size, b"\0")


class Script:
    """The writes in their order, the reads as (end, drained), and the harmed senders."""

    __slots__ = ("drains_lie", "forged", "owners", "reads", "run", "sent", "sources", "touched", "writes")

    def __init__(self, variant: int) -> None:
        self.run = RUNS[variant % len(RUNS)]
        self.writes: list[bytes] = []
        # The sender of each write, or of the packet that it was made of; 0: none.
        self.owners: list[int] = []
        # Genuine packets with their senders; changes never reach them.
        self.sources: list[tuple[bytes, int]] = []
        # The deliveries owed to each sender.
        self.sent: dict[int, tuple[bytes, ...]] = {}
        self.touched: set[int] = set()
        self.forged: set[int] = set()
        self.reads: list[tuple[int, bool]] = []
        # True if a read may say that it emptied the pipe in the middle of a write.
        self.drains_lie = False

    def insert(self, at: int, write: bytes, owner: int) -> None:
        self.writes.insert(at, write)
        self.owners.insert(at, owner)

    def replace(self, at: int, write: bytes) -> None:
        """Change a write; its owner may lose it."""
        self.writes[at] = write
        self.touched.add(self.owners[at])

    def place(self, decisions: Decisions) -> int:
        """Return a place to insert a write."""
        return decisions.byte() % (len(self.writes) + 1)

    def source(self, decisions: Decisions) -> tuple[bytes, int]:
        """Return a genuine packet and its sender."""
        return self.sources[decisions.byte() % len(self.sources)]

    def target(self, decisions: Decisions) -> int:
        """Return the write to change; -1 if the chosen one has no header."""
        if not self.writes:
            return -1
        at = decisions.byte() % len(self.writes)
        return at if len(self.writes[at]) >= HEADER_BYTES else -1


Change: TypeAlias = Callable[[Script, Decisions], None]


def flip_bit(content: bytes, decisions: Decisions) -> bytes:
    """`content` with one bit changed, in its header as often as in the rest."""
    place = decisions.byte()
    place = (place >> 1) % HEADER_BYTES if place & 1 else place << 8 | decisions.byte()
    changed = bytearray(content)
    changed[place % len(content)] ^= 1 << (decisions.byte() & 7)
    return bytes(changed)
