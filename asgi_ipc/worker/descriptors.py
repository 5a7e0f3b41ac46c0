"""Descriptors: one owner each, and none of them outlives a fork.

Law: a child that the app forks must not hold a pipe of ours, or the death of
this worker would go unnoticed (pipe(7): a reader gets EOF, and a writer
EPIPE, only when the last copy is closed). Every owner registers here.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Owner(Protocol):
    """Something that owns a descriptor, or state that means nothing in a forked child."""

    def abandon(self) -> None:
        """In a forked child: close it, without touching the event loop."""


_owners: WeakSet[Owner] = WeakSet()


def register(owner: Owner) -> None:
    """Have `owner.abandon()` called in every child that this process forks."""
    _owners.add(owner)


def _abandon_all() -> None:
    for owner in list(_owners):
        owner.abandon()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_abandon_all)
