"""The ledger: what every worker accepted and what every handler saw, outside the workers.

Law: a record is one append of a few bytes to a file of the worker's own, so
a killed worker's half survives. The oracle only compares; it knows nothing
of how messages travel.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_RECORD = struct.Struct("<cIIQI")

ACCEPTED = b"A"  # a verb returned: sender, receiver, sequence, checksum
DELIVERED = b"D"  # a handler was called: sender, receiver, sequence, checksum
LOST = b"L"  # this worker counted messages as lost: itself, receiver, how many
JOINED = b"J"  # a lifespan has entered: itself
LEFT = b"E"  # a lifespan has ended: itself


class Ledger:
    """One worker's half."""

    def __init__(self, folder: Path, generation: int) -> None:
        path = folder / f"{generation}.ledger"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, kind: bytes, sender: int, receiver: int, sequence: int = 0, checksum: int = 0) -> None:
        os.write(self._fd, _RECORD.pack(kind, sender, receiver, sequence, checksum))


@dataclass
class Verdict:
    """What the halves say together. Keys are (sender, receiver, sequence)."""

    accepted: dict[tuple[int, int, int], int] = field(default_factory=dict)
    delivered: dict[tuple[int, int, int], int] = field(default_factory=dict)
    counted_lost: dict[tuple[int, int], int] = field(default_factory=dict)
    duplicated: list[tuple[int, int, int]] = field(default_factory=list)
    reordered: list[tuple[int, int, int]] = field(default_factory=list)
    altered: list[tuple[int, int, int]] = field(default_factory=list)
    misdelivered: list[tuple[int, int, int]] = field(default_factory=list)
    left: set[int] = field(default_factory=set)

    @property
    def missing(self) -> set[tuple[int, int, int]]:
        """Accepted and never delivered."""
        return self.accepted.keys() - self.delivered.keys()

    @property
    def invented(self) -> set[tuple[int, int, int]]:
        """Delivered and never accepted."""
        return self.delivered.keys() - self.accepted.keys()

    def missing_between(self, alive: set[int]) -> set[tuple[int, int, int]]:
        """Missing between two workers of `alive`, who lived or left cleanly."""
        return {key for key in self.missing if key[0] in alive and key[1] in alive}


def judge(folder: Path) -> Verdict:
    """Compare all halves."""
    verdict = Verdict()
    for path in sorted(folder.glob("*.ledger"), key=lambda each: int(each.stem)):
        last: dict[int, int] = {}
        owner = int(path.stem)
        for kind, sender, receiver, sequence, checksum in _records(path):
            key = (sender, receiver, sequence)
            if kind == ACCEPTED:
                verdict.accepted[key] = checksum
            elif kind == LOST:
                verdict.counted_lost[sender, receiver] = sequence
            elif kind == LEFT:
                verdict.left.add(owner)
            elif kind == DELIVERED:
                if key in verdict.delivered:
                    verdict.duplicated.append(key)
                if receiver != owner:
                    verdict.misdelivered.append(key)
                if sequence <= last.get(sender, -1):
                    verdict.reordered.append(key)
                last[sender] = sequence
                verdict.delivered[key] = checksum
    for key, checksum in verdict.delivered.items():
        if key in verdict.accepted and verdict.accepted[key] != checksum:
            verdict.altered.append(key)
    return verdict


def _records(path: Path) -> Iterator[tuple[bytes, int, int, int, int]]:
    data = path.read_bytes()
    whole = len(data) - len(data) % _RECORD.size
    yield from _RECORD.iter_unpack(data[:whole])
