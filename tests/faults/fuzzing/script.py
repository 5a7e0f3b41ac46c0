"""Scripts: the writes into one pipe, its reads, and the senders that the changes harm.

Law: `touched` may lose messages, `forged` may seem to have sent what a forger
wrote in their name. All others are owed every message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, TypeVar

from asgi_ipc.wire.packet import HEADER_BYTES
from tests.faults.fuzzing.wire import RUNS

T = TypeVar("T")


class Choices(Protocol):
    """Where the choices of a script come from."""

    def below(self, limit: int) -> int:
        """Less than `limit`, which is at least 1."""
        ...

    def raw(self, size: int) -> bytes:
        """So many bytes."""
        ...


class Script:
    """The writes in their order, the reads as (end, drained), and the harmed senders."""

    def __init__(self, choices: Choices) -> None:
        self.below = choices.below
        self.raw = choices.raw
        self.run = self.pick(RUNS)
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
        self.changes: list[str] = []

    def __repr__(self) -> str:
        lines = [
            f"cookie {self.run.cookie.hex()}, packets of at most {self.run.max_packet_bytes} bytes; "
            f"harmed: {sorted(self.touched)}, forged: {sorted(self.forged)}, by {self.changes}"
        ]
        start = 0
        for write, owner in zip(self.writes, self.owners, strict=True):
            genuine = " as it was sent" if (write, owner) in self.sources else ""
            lines.append(f"{start:6} write of {len(write)} bytes by {owner}{genuine}: {write.hex()}")
            start += len(write)
        lines += [f"{stop:6} read to here{', drained' * drained}" for stop, drained in self.reads]
        return "\n".join(lines)

    # --- choices

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def chance(self, one_in: int = 2) -> bool:
        """Once in so many times."""
        return self.below(one_in) == one_in - 1

    def place(self) -> int:
        """Return a place to insert a write."""
        return self.below(len(self.writes) + 1)

    def source(self) -> tuple[bytes, int]:
        """Return a genuine packet and its sender."""
        return self.pick(self.sources)

    def target(self) -> int:
        """Return the write to change; -1 if the chosen one has no header."""
        if not self.writes:
            return -1
        at = self.below(len(self.writes))
        return at if len(self.writes[at]) >= HEADER_BYTES else -1

    def flip_bit(self, content: bytes) -> bytes:
        """`content` with one bit changed, in its header as often as in the rest."""
        place = self.below(min(HEADER_BYTES if self.chance() else len(content), len(content)))
        changed = bytearray(content)
        changed[place] ^= 1 << self.below(8)
        return bytes(changed)

    # --- changes

    def insert(self, at: int, write: bytes, owner: int) -> None:
        self.writes.insert(at, write)
        self.owners.insert(at, owner)

    def replace(self, at: int, write: bytes) -> None:
        """Change a write; its owner may lose it."""
        self.writes[at] = write
        self.touched.add(self.owners[at])


Change: TypeAlias = Callable[[Script], None]
