"""Descriptors: one owner each, and none of them outlives a fork.

Law: a child that the app forks must not hold a pipe of ours, or the death of
this worker would go unnoticed (pipe(7): a reader gets EOF, and a writer
EPIPE, only when the last copy is closed). Every owner registers here; what
has no owner yet is held here. A fork on another thread waits while a
descriptor changes hands.
"""

from __future__ import annotations

import os
import threading
from typing import Final, Protocol
from weakref import WeakSet


class Owner(Protocol):
    """Something that owns a descriptor, or state that means nothing in a forked child."""

    def abandon(self) -> None:
        """In a forked child: close it, without touching the event loop."""


_owners: WeakSet[Owner] = WeakSet()

# What has been inherited or has arrived, and has no owner yet.
_held: set[int] = set()

# Taken by whoever receives a descriptor until it is held, or closes one of his own. Nothing of the
# app's runs meanwhile, so no fork waits for long. Reentrant: a signal handler may fork.
changing_hands: Final = threading.RLock()


def hold(*fds: int) -> None:
    """Own these until they are registered or closed here."""
    with changing_hands:
        _held.update(fds)


def register(owner: Owner, *fds: int) -> None:
    """Have `owner.abandon()` called in every child that this process forks; it owns `fds` from now on."""
    with changing_hands:
        _owners.add(owner)
        _held.difference_update(fds)


def close(fd: int) -> None:
    """Close what nobody has come to own."""
    with changing_hands:
        _held.discard(fd)
        os.close(fd)


def _abandon_all() -> None:
    try:
        for fd in list(_held):
            close(fd)
        for owner in list(_owners):
            owner.abandon()
    finally:
        changing_hands.release()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=changing_hands.acquire,
        after_in_parent=changing_hands.release,
        after_in_child=_abandon_all,
    )
