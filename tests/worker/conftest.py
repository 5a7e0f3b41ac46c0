"""Shared by tests of a worker: a lifeline, and event loops (`LOOP_FACTORIES` of a module, or asyncio)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest

from asgi_ipc.worker.lifeline import Lifeline

Line: TypeAlias = tuple[socket.socket, Lifeline]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Any:
    """Tell pytest-asyncio."""
    assert isinstance(item, pytest.Function)
    return getattr(item.module, "LOOP_FACTORIES", {"asyncio": asyncio.new_event_loop})


@pytest.fixture
def line() -> Iterator[Line]:
    """The launcher's end of a lifeline, and the worker's."""
    ours, theirs = socket.socketpair()
    lifeline = Lifeline(theirs.detach())
    yield ours, lifeline
    lifeline.close()
    ours.close()
