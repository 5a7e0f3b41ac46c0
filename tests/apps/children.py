"""Children: the code that runs in the processes of a worker's pools.

Law: this module imports nothing of asgi_ipc, and importing it does nothing: a pool that starts afresh imports
this module and no other of the app.
"""

from __future__ import annotations

import threading

meeting: threading.Barrier


def begin(barrier: threading.Barrier) -> None:
    """First thing in each process of a pool."""
    global meeting
    meeting = barrier


def meet() -> None:
    """Wait for the others, so that each process of the pool runs one of these, and for who asked for it."""
    meeting.wait()
