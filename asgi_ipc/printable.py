"""Printable: what somebody else has said, as it may stand in a log.

Law: nothing in this file asks the kernel or the clock. What could end a line,
move a cursor or turn text around is written as an escape; names that come
from the wire are shown with `repr`, which does the same.
"""

from __future__ import annotations

from typing import Final

# A log is read by people; an error that quotes a large message is shown by its
# beginning, and escaping 16 MiB would hold the loop up for a second.
MAX_SHOWN_CHARACTERS: Final = 10_000

# Before each further line, so that none can be taken for a line of the log's own.
MARGIN: Final = "    "


def printable(text: str) -> str:
    """`text` on one line: every unprintable character as its escape, and no more than fits a log."""
    if len(text) > MAX_SHOWN_CHARACTERS:
        more = len(text) - MAX_SHOWN_CHARACTERS
        text = f"{text[:MAX_SHOWN_CHARACTERS]}... and {more} characters more"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def printable_lines(text: str) -> str:
    """`text` of several lines: each printable, and all but the first with a margin."""
    return f"\n{MARGIN}".join(map(printable, text.split("\n")))
