"""Alone: is this process one of several that don't know each other?

Law: looks, warns once, changes nothing. Without the launcher every worker of
`uvicorn --workers 4` or gunicorn is a fleet of one, which is rarely meant.
"""

from __future__ import annotations

import multiprocessing
import sys

from asgi_ipc import multiprocess
from asgi_ipc.loggers import LastingLogger

# Where there is no launcher nobody gives our own logger a format. Both servers give this one their own.
logger = LastingLogger("uvicorn.error")

_ADVICE = (
    "started by %s with several workers: each is alone, and messages do not reach the others. "
    "To join them, run: asgi-ipc serve APP --workers N"
)


def warn_if_alone() -> None:
    """Log one warning if this is one of several worker processes without a launcher."""
    supervisor = _supervisor()
    if supervisor is not None:
        logger.warning(_ADVICE, supervisor)


def _supervisor() -> str | None:
    if "gunicorn.arbiter" in sys.modules:
        return "gunicorn"
    if multiprocessing.parent_process() is None:
        return None
    # uvicorn and hypercorn start their workers with their Config as an
    # argument; one warning is enough for all of them.
    workers = getattr(multiprocess.keyword_arguments().get("config"), "workers", 1)
    name = multiprocessing.current_process().name
    if isinstance(workers, int) and workers > 1 and name.endswith("-1"):
        return "uvicorn"
    return None
