"""Descriptors: each has one owner, which closes it, and none outlives a fork.

Law: a child that the app forks must not keep a pipe of ours, or the death of
this worker would go unnoticed (pipe(7): a reader gets EOF, and a writer
EPIPE, only when the last copy is closed). A fork on another thread waits
while a descriptor changes hands.
"""

from __future__ import annotations

import os
import threading
from typing import Final, Protocol
from weakref import WeakSet


class Owner(Protocol):
    """Something that has state, or a socket, that means nothing in a forked child."""

    def abandon(self) -> None:
        """In a forked child: let it go, without touching the event loop."""


_owners: WeakSet[Owner] = WeakSet()

# Strong references: a descriptor without other references is closed in a child all the same.
_open: set[Descriptor] = set()

# Taken while a descriptor arrives, is passed on or is closed. No code of the
# app runs meanwhile, so no fork waits for long. Reentrant: a signal handler may fork.
changing_hands: Final = threading.RLock()


class Descriptor:
    """Owns one descriptor.

    `fd` is its number, or -1: closed, given away, or never there.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int = -1) -> None:
        self.fd = fd
        if fd >= 0:
            with changing_hands:
                _open.add(self)

    def close(self) -> None:
        """Close it, once."""
        with changing_hands:
            fd = self.release()
            if fd >= 0:
                os.close(fd)

    def release(self) -> int:
        """Give the number to another owner; to be done under `changing_hands`."""
        with changing_hands:
            _open.discard(self)
            fd, self.fd = self.fd, -1
            return fd


def register(owner: Owner) -> None:
    """Call `owner.abandon()` in every child that this process forks."""
    with changing_hands:
        _owners.add(owner)


def _abandon_all() -> None:
    try:
        for descriptor in list(_open):
            descriptor.close()
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
