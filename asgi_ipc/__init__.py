"""Messages between the worker processes of one ASGI server, without a broker.

Law: the public names, nothing else.
"""

from __future__ import annotations

import sys
from typing import Any

# First: it takes away what is not for the program's own parser.
from asgi_ipc import frozen, places
from asgi_ipc.errors import (
    DeliveryError,
    InvalidDataError,
    InvalidNameError,
    IPCError,
    LauncherError,
    MessageTooLargeError,
    NoHandlerError,
    NotRunningError,
    OutsideHandlerError,
    RemoteError,
    RequestError,
    RequestTimeoutError,
    SendTimeoutError,
    SubscriptionOverflowError,
    UnknownWorkerError,
    WorkerGoneError,
    WouldBlockError,
)
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.worker.features.requests import Gathered
from asgi_ipc.worker.features.subscription import Publication, Subscription
from asgi_ipc.worker.ipc import IPC, ipc
from asgi_ipc.worker.stats import Stats

__all__ = [
    "IPC",
    "DeliveryError",
    "Gathered",
    "IPCError",
    "InvalidDataError",
    "InvalidNameError",
    "LauncherError",
    "MessageTooLargeError",
    "NoHandlerError",
    "NotRunningError",
    "OutsideHandlerError",
    "Publication",
    "RemoteError",
    "RequestError",
    "RequestTimeoutError",
    "SendTimeoutError",
    "Stats",
    "Subscription",
    "SubscriptionOverflowError",
    "UnknownWorkerError",
    "Worker",
    "WorkerGoneError",
    "WouldBlockError",
    "ipc",
    "run",
]

__version__ = "0.1.0"

NEEDS_UNIX = "serving with several workers needs Unix pipes; on Windows an app runs as a fleet of one"


def run(app: str, *, workers: int | None = None, **options: Any) -> None:
    """Serve `app` ("module:attribute") with that many workers, until it is stopped.

    The same as `asgi-ipc serve`, from Python; the calling script's folder is
    where the app is looked for, too, and workers have its `sys.argv`. Blocks;
    must be called on the main thread, with no event loop running, and below
    `if __name__ == "__main__":` where workers import the calling module.

    Args:
        app: where the app is, as "module:attribute". Workers import that module.
        workers: how many; None: $WEB_CONCURRENCY, or 1.
        **options: those of `uvicorn.run`, as far as they are plain data, and
            `drain_timeout`, `exit_timeout`, `worker_hang_timeout` (seconds),
            `max_message_bytes`, `max_packet_bytes`, `pipe_bytes`,
            `uds_mode`, `uds_owner`, `wrap`.

    Raises:
        LauncherError: an option or the place of the call is wrong.
        SystemExit: the server could not start, or was forced to stop; the
            reason has been logged.
    """
    if sys.platform == "win32":
        raise LauncherError(NEEDS_UNIX)
    # In a program of PyInstaller's this may be one of its workers.
    frozen.become_worker()
    places.check(sys._getframe(1).f_globals.get("__name__", "?"))
    # Imported here: workers import this package too, and need none of the launcher.
    from asgi_ipc.launcher.serve import serve

    status = serve(places.importable(app), workers=workers, options=options)
    if status:
        raise SystemExit(status)
