"""The oracle: the verdict of the ledgers of all workers together.

Law: it only compares; it knows nothing of how messages travel. A message is one sender's number for one
receiver. Between two workers, in the order of the offers, the messages that arrived are the first ones of
those accepted. A hole is a fault, and a death or a drain timeout must explain messages missing at the end.
"""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.faults.ledger import ACCEPTED, DELIVERED, NOTES, RECORD, REFUSED

Pair: TypeAlias = tuple[int, int]

# Examples of a fault that a report shows.
SHOWN: Final = 5

Note: TypeAlias = dict[str, Any]


@dataclass(slots=True)
class _Stream:
    """One sender to one receiver, in the order of the offers."""

    sequences: array[int] = field(default_factory=lambda: array("Q"))
    checksums: array[int] = field(default_factory=lambda: array("I"))
    sizes: array[int] = field(default_factory=lambda: array("I"))
    outcomes: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class Missing:
    """Messages accepted by one sender for one receiver that never reached a handler, in order."""

    sizes_bytes: Sequence[int]
    # How many of them their sender has counted as lost: the last ones.
    counted: int

    @property
    def messages(self) -> int:
        """How many."""
        return len(self.sizes_bytes)

    @property
    def in_doubt(self) -> int:
        """The number of messages in the dead worker's pipe or memory; no process could count them."""
        return self.messages - self.counted

    @property
    def in_doubt_bytes(self) -> Sequence[int]:
        """The size of each of those."""
        return self.sizes_bytes[: max(self.in_doubt, 0)]


@dataclass(slots=True)
class Verdict:
    """The result of all halves together. Workers are named by their generation.

    Attributes:
        accepted: messages whose verb has returned, one for each receiver.
        delivered: messages whose handler was called.
        duplicated, reordered, altered: as (sender, receiver, sequence).
        misdelivered: delivered to a worker for which it was never offered.
        invented: delivered, but refused in its sender.
        holes: missing, although a later one of the same sender has arrived.
        missing: by (sender, receiver).
        unfinished: offers that their sender's death has cut short, as (sender, receiver, bytes).
        left: workers whose lifespan has ended.
        notes: what the workers have noted, by time.
    """

    accepted: int = 0
    delivered: int = 0
    refused: int = 0
    duplicated: list[tuple[int, int, int]] = field(default_factory=list)
    reordered: list[tuple[int, int, int]] = field(default_factory=list)
    altered: list[tuple[int, int, int]] = field(default_factory=list)
    misdelivered: list[tuple[int, int, int]] = field(default_factory=list)
    invented: list[tuple[int, int, int]] = field(default_factory=list)
    holes: list[tuple[int, int, int]] = field(default_factory=list)
    missing: dict[Pair, Missing] = field(default_factory=dict)
    unfinished: list[tuple[int, int, int]] = field(default_factory=list)
    left: set[int] = field(default_factory=set)
    notes: list[Note] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """Faults that no death and no deadline can excuse, in words; empty if all is well."""
        kinds = ("duplicated", "reordered", "altered", "misdelivered", "invented", "holes")
        return [
            f"{len(found)} {kind}: {found[:SHOWN]}" for kind in kinds if (found := getattr(self, kind))
        ] + [
            f"{self.counted(pair)} counted lost of {each.messages} missing: {pair}"
            for pair, each in self.missing.items()
            if each.in_doubt < 0
        ]

    @property
    def lost(self) -> int:
        """Messages that their senders have counted as lost."""
        return sum(each.counted for each in self.missing.values())

    @property
    def in_doubt(self) -> int:
        """Messages to or from a dead worker that no process could count."""
        return sum(each.in_doubt for each in self.missing.values())

    def counted(self, pair: Pair) -> int:
        """Return the messages that the first of a pair has counted as lost to the second."""
        return self.missing[pair].counted if pair in self.missing else 0

    def missing_between(self, alive: set[int]) -> dict[Pair, Missing]:
        """Missing between two workers of `alive`, who lived or left cleanly: a broken promise."""
        return {pair: each for pair, each in self.missing.items() if pair[0] in alive and pair[1] in alive}

    def told(self, what: str, **values: Any) -> list[Note]:
        """The notes of that kind with these values."""
        return [
            note
            for note in self.notes
            if note["what"] == what and all(note[name] == value for name, value in values.items())
        ]

    def summary(self) -> dict[str, int]:
        """The figures of the table."""
        kinds = ("duplicated", "reordered", "altered", "misdelivered", "invented", "holes")
        return {
            "accepted": self.accepted,
            "delivered": self.delivered,
            "counted lost": self.lost,
            "in doubt": self.in_doubt,
            **{kind: len(getattr(self, kind)) for kind in kinds},
        }


def judge(folder: Path) -> Verdict:
    """Compare all halves in `folder`."""
    verdict = Verdict()
    _read_notes(folder, verdict)
    sent: dict[Pair, _Stream] = defaultdict(_Stream)
    for owner, record in _records(folder, "sent"):
        sender, receiver, sequence, checksum, size_bytes, outcome = record
        assert sender == owner
        stream = sent[sender, receiver]
        stream.sequences.append(sequence)
        stream.checksums.append(checksum)
        stream.sizes.append(size_bytes)
        stream.outcomes.append(outcome)
    got = _read_deliveries(folder, verdict)
    counted = _counted(verdict)
    for pair in sent.keys() | got.keys():
        _judge_pair(pair, sent[pair], got.get(pair, {}), verdict, counted.get(pair, 0))
    return verdict


def _read_notes(folder: Path, verdict: Verdict) -> None:
    if (path := folder / NOTES).exists():
        verdict.notes += map(json.loads, path.read_bytes().splitlines())
    verdict.notes.sort(key=lambda note: note["at"])
    verdict.left = {note["by"] for note in verdict.notes if note["what"] == "left"}


def _records(folder: Path, half: str) -> Iterator[tuple[int, tuple[int, int, int, int, int, int]]]:
    """The records of that half of every worker, each with the worker who wrote it."""
    for path in sorted(folder.glob(f"*.{half}"), key=lambda each: int(each.stem)):
        data = path.read_bytes()
        for record in RECORD.iter_unpack(data[: len(data) - len(data) % RECORD.size]):
            if not record[-1]:
                break
            yield int(path.stem), record


def _read_deliveries(folder: Path, verdict: Verdict) -> dict[Pair, dict[int, int]]:
    """Checksums by sequence, for each pair; order and number are judged on the way."""
    got: dict[Pair, dict[int, int]] = defaultdict(dict)
    last: dict[Pair, int] = {}
    for owner, (sender, receiver, sequence, checksum, _, outcome) in _records(folder, "got"):
        assert receiver == owner
        assert outcome == DELIVERED
        pair = (sender, receiver)
        seen = got[pair]
        verdict.delivered += 1
        if sequence in seen:
            verdict.duplicated.append((*pair, sequence))
        elif sequence <= last.get(pair, -1):
            verdict.reordered.append((*pair, sequence))
        last[pair] = sequence
        seen[sequence] = checksum
    return got


def _counted(verdict: Verdict) -> dict[Pair, int]:
    """Return the messages counted as lost, by (sender, receiver)."""
    counted: dict[Pair, int] = defaultdict(int)
    for note in verdict.notes:
        if note["what"] == "told_leave":
            counted[note["by"], note["of"]] += note["lost"]
        elif note["what"] == "left":
            for receiver, lost in note["lost"].items():
                counted[note["by"], int(receiver)] += lost
    return counted


def _judge_pair(pair: Pair, sent: _Stream, got: dict[int, int], verdict: Verdict, counted: int) -> None:
    missing: list[int] = []
    sizes_bytes = array("I")
    known = 0
    for sequence, checksum, size_bytes, outcome in zip(
        sent.sequences, sent.checksums, sent.sizes, sent.outcomes, strict=True
    ):
        seen = got.get(sequence)
        if seen is not None:
            known += 1
            if seen != checksum:
                verdict.altered.append((*pair, sequence))
            if outcome == REFUSED:
                verdict.invented.append((*pair, sequence))
            elif missing:
                verdict.holes += [(*pair, each) for each in missing]
                missing.clear()
                sizes_bytes = array("I")
        if outcome == ACCEPTED:
            verdict.accepted += 1
            if seen is None:
                missing.append(sequence)
                sizes_bytes.append(size_bytes)
        elif outcome == REFUSED:
            verdict.refused += 1
        elif seen is None:
            verdict.unfinished.append((*pair, size_bytes))
    if known != len(got):
        # Its sender never meant this receiver, or never was.
        verdict.misdelivered += [(*pair, each) for each in got.keys() - set(sent.sequences)]
    if missing or counted:
        verdict.missing[pair] = Missing(sizes_bytes, counted)
