"""The journal: the latest messages that this worker received.

Law: pure; the time arrives as an argument. Both the number of entries and the size of each are bounded, so a
worker that receives many messages does not grow.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

# More entries would not help a reader of /log.
MAX_ENTRIES: Final = 100

# No text from a URL is longer: h11 takes 64 KiB for request line and headers.
MAX_TEXT_CHARS: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One message received.

    Attributes:
        number: the n-th that this worker received, from 1.
        name: the message's name.
        sender: the pid of the worker that sent it.
        sender_slot: its slot; None if it had gone when the message was read.
        host: the name of its host, if that is another one.
        text: its data, cut to MAX_TEXT_CHARS; other data as `repr` shows it.
        at_s: when, in seconds since 1970.
    """

    number: int
    name: str
    sender: int
    sender_slot: int | None
    text: str
    at_s: float
    host: str | None = None


class Journal:
    """The last MAX_ENTRIES messages, oldest first."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self._count = 0

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries)

    def add(
        self,
        name: str,
        sender: int,
        sender_slot: int | None,
        data: object,
        at_s: float,
        host: str | None = None,
    ) -> Entry:
        self._count += 1
        text = data if isinstance(data, str) else repr(data)
        entry = Entry(self._count, name, sender, sender_slot, text[:MAX_TEXT_CHARS], at_s, host)
        self._entries.append(entry)
        return entry
