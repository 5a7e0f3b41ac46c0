"""Survivors: the mutants that no test notices, each with its reason in docs/mutants.md.

Law: a survivor is known by its module, its function and the text of its change, never by a line number.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from tests.faults.guarantees import ROOT

PAGE: Final = ROOT / "docs" / "mutants.md"

_ROW: Final = re.compile(r"^\| `([^`]+)` \| `` (.+) `` \| (.+) \|$", re.MULTILINE)


class Key(NamedTuple):
    """What a mutant is known by. `where`: the module, and the class and function in it."""

    where: str
    change: str


def reasons(page: str) -> dict[Key, str]:
    """The survivors that the page lists, with their reasons."""
    return {Key(where, change.replace(r"\|", "|")): reason for where, change, reason in _ROW.findall(page)}


def row(key: Key, reason: str) -> str:
    """The line of the page for one survivor."""
    change = key.change.replace("|", r"\|")
    return f"| `{key.where}` | `` {change} `` | {reason} |"
