"""Printable: foreign text in the form in which a log may show it.

Law: nothing in this file asks the kernel or the clock. A character that could end a line, move a cursor or
turn text around becomes an escape. Names from the wire are shown with `repr`, which does the same.
"""

from __future__ import annotations

from typing import Final

# People read logs, so an error that quotes a large message is cut; escaping 16 MiB would also hold up the
# loop for a second.
MAX_SHOWN_CHARACTERS: Final = 10_000

# The margin of each further line, so that none can be taken for a line of the log itself.
MARGIN: Final = "    "


def printable(text: str) -> str:
    """Return `text` on one line, with every unprintable character escaped, cut to fit a log."""
    if len(text) > MAX_SHOWN_CHARACTERS:
        more = len(text) - MAX_SHOWN_CHARACTERS
        text = f"{text[:MAX_SHOWN_CHARACTERS]}... and {more} characters more"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def printable_lines(text: str) -> str:
    """Return `text` of several lines, each printable, all except the first with a margin."""
    return f"\n{MARGIN}".join(map(printable, text.split("\n")))
