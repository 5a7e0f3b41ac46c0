"""This package as a subject: the app that its workers run, and the server around it."""

from __future__ import annotations

import functools

from benchmarks.conductor import Subject
from benchmarks.ours.server import serving

NAME = "asgi-ipc"


def subject(loop: str) -> Subject:
    """Workers of `asgi-ipc serve` on that event loop."""
    return Subject(NAME, loop, functools.partial(serving, loop))
