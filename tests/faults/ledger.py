"""The ledger: the offers of every worker, their outcomes, and the messages that its handlers got.

Law: the ledger lies in memory-mapped files outside the workers, so that a killed worker's half survives to
its last byte. A record counts once its last byte, the outcome, is not zero. This file only writes; the oracle
reads.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

# sender, receiver (generations), sequence, hash of the data, its bytes, outcome
RECORD: Final = struct.Struct("<IIQIIB")
_OUTCOME_AT: Final = RECORD.size - 1

OFFERED: Final = 1  # the verb was called; if nothing else follows, its caller was killed in it
ACCEPTED: Final = 2  # the verb returned without an error
REFUSED: Final = 3  # the verb raised, or did not name the receiver among those who took it
DELIVERED: Final = 4  # the receiver's handler was called

# One file for the notes of all workers (appends of a line don't mix), and the socket that each note wakes.
NOTES: Final = "notes"
NOTES_SOCKET: Final = "notes.sock"

# The file grows in steps of this; what is not written costs nothing (it is sparse).
_STEP_BYTES: Final = RECORD.size * 65_536


class Book:
    """A memory-mapped file of records, written by one process."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.ftruncate(fd, _STEP_BYTES)
        self._map = mmap.mmap(fd, _STEP_BYTES)
        os.close(fd)
        self._size = _STEP_BYTES
        self._end = 0

    def write(
        self, sender: int, receiver: int, sequence: int, checksum: int, size_bytes: int, outcome: int
    ) -> int:
        """Append a record; its place."""
        place = self._end
        if place + RECORD.size > self._size:
            self._size += _STEP_BYTES
            self._map.resize(self._size)
        RECORD.pack_into(self._map, place, sender, receiver, sequence, checksum, size_bytes, outcome)
        self._end = place + RECORD.size
        return place

    def settle(self, place: int, outcome: int) -> None:
        """Write the outcome of an offer."""
        self._map[place + _OUTCOME_AT] = outcome


class Ledger:
    """One worker's half: its offers, its messages, and its notes."""

    def __init__(self, folder: Path, generation: int) -> None:
        self.generation = generation
        self.sent = Book(folder / f"{generation}.sent")
        self.got = Book(folder / f"{generation}.got")

    def offer(self, receiver: int, sequence: int, checksum: int, size_bytes: int) -> int:
        """Before a verb is called; the place for `sent.settle`."""
        return self.sent.write(self.generation, receiver, sequence, checksum, size_bytes, OFFERED)

    def deliver(self, sender: int, sequence: int, checksum: int, size_bytes: int) -> None:
        """First thing in a handler."""
        self.got.write(sender, self.generation, sequence, checksum, size_bytes, DELIVERED)


class Notes:
    """Events of a worker besides messages: one line of JSON each, in one file for all workers.

    A datagram wakes a listener. The kernel queues only some datagrams and may refuse one; but then others
    still wait there, and a listener that they wake finds this line, too.
    """

    def __init__(self, folder: Path, generation: int) -> None:
        self._generation = generation
        self._fd = os.open(folder / NOTES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._to = str(folder / NOTES_SOCKET)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def write(self, what: str, **values: Any) -> None:
        """Times are seconds of the machine's monotonic clock, the same for all processes."""
        note = {
            "what": what,
            "by": self._generation,
            "pid": os.getpid(),
            "at": time.monotonic(),
            **values,
        }
        line = json.dumps(note).encode() + b"\n"
        os.write(self._fd, line)
        with suppress(OSError):  # nobody listens, or is too slow to
            self._socket.sendto(b"!", self._to)
