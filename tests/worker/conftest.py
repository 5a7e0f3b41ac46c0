"""What the tests of a worker share."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TypeAlias

import pytest

from asgi_ipc.worker.lifeline import Lifeline

Line: TypeAlias = tuple[socket.socket, Lifeline]


@pytest.fixture
def line() -> Iterator[Line]:
    """The launcher's end of a lifeline, and the worker's."""
    ours, theirs = socket.socketpair()
    lifeline = Lifeline(theirs.detach())
    yield ours, lifeline
    lifeline.close()
    ours.close()
