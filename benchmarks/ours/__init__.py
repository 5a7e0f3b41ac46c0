"""This package as a subject: the app that its workers run, and the server around it."""

from __future__ import annotations

import functools
from contextlib import AbstractAsyncContextManager
from typing import Final

from benchmarks.conductor import Subject
from benchmarks.control import SOCKET_VARIABLE
from benchmarks.servers import OURS, serving

NAME: Final = "asgi-ipc"


def _start(loop: str, workers: int, socket_path: str) -> AbstractAsyncContextManager[None]:
    # Its workers find the conductor by themselves.
    return serving(OURS, "benchmarks.ours.app:app", loop, workers, 0, {SOCKET_VARIABLE: socket_path})


def subject(loop: str) -> Subject:
    """Workers of `asgi-ipc serve` on that event loop."""
    return Subject(NAME, loop, functools.partial(_start, loop))
