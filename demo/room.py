"""The room: the lines, in an order that is the same in every worker, and the rules for a line.

Law: pure; times arrive as arguments. The page gives each line an id, so a line that the page repeats after a
break counts once. The number, the size and the rate of lines are bounded.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final, TypedDict

# No person reads more after coming back.
MAX_LINES: Final = 100

MAX_TEXT_CHARS: Final = 500
MAX_NAME_CHARS: Final = 24

# JSON may write one character as twelve; the rest of a line is small.
MAX_WORD_CHARS: Final = 12 * (MAX_TEXT_CHARS + MAX_NAME_CHARS) + 200

# No person types faster for long. A page that comes back may send its waiting lines at once.
MAX_LINES_PER_S: Final = 5.0
MAX_LINES_AT_ONCE: Final = 50

_ID: Final = re.compile("[0-9a-f]{32}")


class Line(TypedDict):
    """A line of one person. `pid` and `slot` are those of the worker that took it.

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
    """A line as a page sends it: an id that no other line has, the speaker's name and hue, the text."""

    id: str
    name: str
    hue: int
    text: str


def read(word: str) -> Said | None:
    """Read a word of a page; None if no page of ours sends such a word."""
    if len(word) > MAX_WORD_CHARS:
        return None
    try:
        match json.loads(word):
            case {"id": str(key), "name": str(name), "hue": int(hue), "text": str(text)}:
                said = Said(key, name.strip(), int(hue), text.strip())
            case _:
                return None
        # Lone surrogates can't be encoded; they are no text.
        (said.name + said.text).encode()
    except (ValueError, RecursionError):
        return None
    sizes_ok = 1 <= len(said.name) <= MAX_NAME_CHARS and 1 <= len(said.text) <= MAX_TEXT_CHARS
    return said if sizes_ok and 0 <= said.hue < 360 and _ID.fullmatch(said.id) else None


class Conversation:
    """The last MAX_LINES lines.

    Attributes:
        count: how many lines were added so far: a place to read on from.
    """

    def __init__(self) -> None:
        self.count = 0
        # By id, each with its number in the order of adding.
        self._lines: dict[str, tuple[int, Line]] = {}
        self._latest_us = 0

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def stamp(self, now_us: int) -> int:
        """Return the time of a new line: after every line known here, even if the clock went back."""
        self._latest_us = max(now_us, self._latest_us + 1)
        return self._latest_us

    def add(self, line: Line) -> bool:
        """Add a line from here or elsewhere; return whether it is new.

        If a line comes twice, the earlier one counts, in whichever order they arrive.
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
        """Return the lines added after the first `count`, in the order of their times."""
        return sorted((line for number, line in self._lines.values() if number > count), key=_place)


class Pace:
    """The pace of one page: lines that come too fast wait, and none is lost."""

    def __init__(self) -> None:
        # The time at which all lines so far would be done at the allowed pace.
        self._done_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """Count one line; return how long to stop reading."""
        self._done_s = max(self._done_s, now_s) + 1 / MAX_LINES_PER_S
        return max(0.0, self._done_s - now_s - MAX_LINES_AT_ONCE / MAX_LINES_PER_S)


def _place(line: Line) -> tuple[int, str, int]:
    return line["at_us"], line["id"], line["pid"]
