"""The room: what was said, in one order that every worker arrives at; and what may be said.

Law: pure; times arrive as arguments. A line is known by the id that its page
gave it, so what a page says again after a break is said once. The number and
the size of lines are bounded, and so is how fast one page may say them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final, TypedDict

# As much as a person reads when he comes back.
MAX_LINES: Final = 100

MAX_TEXT_CHARS: Final = 500
MAX_NAME_CHARS: Final = 24

# JSON may write one character as twelve; the rest of a line is small.
MAX_WORD_CHARS: Final = 12 * (MAX_TEXT_CHARS + MAX_NAME_CHARS) + 200

# Nobody types faster for long. A page that comes back may say at once what had to wait.
MAX_LINES_PER_S: Final = 5.0
MAX_LINES_AT_ONCE: Final = 50

_ID: Final = re.compile("[0-9a-f]{32}")


class Line(TypedDict):
    """What one person has said. `pid` and `slot` are of the worker that it was said through.

    `at_us`: microseconds since 1970, and later than all that this worker had heard.
    """

    id: str
    name: str
    hue: int
    text: str
    at_us: int
    pid: int
    slot: int


@dataclass(frozen=True, slots=True)
class Said:
    """What a page wants to be said: an id that no other line has, and who says it, in which hue."""

    id: str
    name: str
    hue: int
    text: str


def read(word: str) -> Said | None:
    """Read what a page sends; None: no page of ours sends that."""
    if len(word) > MAX_WORD_CHARS:
        return None
    try:
        match json.loads(word):
            case {"id": str(key), "name": str(name), "hue": int(hue), "text": str(text)}:
                said = Said(key, name.strip(), int(hue), text.strip())
            case _:
                return None
        # Halves of surrogate pairs are no text.
        (said.name + said.text).encode()
    except (ValueError, RecursionError):
        return None
    sizes_ok = 1 <= len(said.name) <= MAX_NAME_CHARS and 1 <= len(said.text) <= MAX_TEXT_CHARS
    return said if sizes_ok and 0 <= said.hue < 360 and _ID.fullmatch(said.id) else None


class Conversation:
    """The last MAX_LINES lines.

    Attributes:
        count: how many were added so far: a place to read on from.
    """

    def __init__(self) -> None:
        self.count = 0
        # By id, with the number under which it was added.
        self._lines: dict[str, tuple[int, Line]] = {}
        self._latest_us = 0

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def stamp(self, now_us: int) -> int:
        """A time for what is said now: after everything that was heard here, whatever the clock."""
        self._latest_us = max(now_us, self._latest_us + 1)
        return self._latest_us

    def add(self, line: Line) -> bool:
        """Add what was said here or elsewhere; whether it is news.

        If one was said twice, the earlier one counts, in whichever order they are heard.
        """
        self._latest_us = max(self._latest_us, line["at_us"])
        known = self._lines.get(line["id"])
        if known is not None and _place(known[1]) <= _place(line):
            return False
        self.count += 1
        self._lines[line["id"]] = (self.count, line)
        if len(self._lines) <= MAX_LINES:
            return True
        first = min((each for _, each in self._lines.values()), key=_place)
        del self._lines[first["id"]]
        return first is not line

    def since(self, count: int) -> list[Line]:
        """What was added after the first `count`, in the order in which it was said."""
        return sorted((line for number, line in self._lines.values() if number > count), key=_place)


class Pace:
    """How fast one page may speak: what is too fast waits, and nothing is lost."""

    def __init__(self) -> None:
        # When it would be done at the pace allowed.
        self._done_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """Count one line; for how long to read no further."""
        self._done_s = max(self._done_s, now_s) + 1 / MAX_LINES_PER_S
        return max(0.0, self._done_s - now_s - MAX_LINES_AT_ONCE / MAX_LINES_PER_S)


def _place(line: Line) -> tuple[int, str, int]:
    return line["at_us"], line["id"], line["pid"]
