"""A helper: a process of another kind, with a module of this package in place of the app.

Law: a helper is a member like a worker, and no worker: it has no socket, no leader's tasks, and no place in
`ipc.workers`. Its module registers handlers on `ipc` when it is imported, and has
`async def main(stop: asyncio.Event, config: Any) -> None`, which returns when `stop` is set.
"""

from __future__ import annotations

import asyncio
import signal
import traceback
from importlib import import_module

from asgi_ipc.fleet.words import Failed, Helper, Ready
from asgi_ipc.worker.assignment import Assignment
from asgi_ipc.worker.ipc import ipc


async def serve(here: Assignment, helper: Helper) -> None:
    """Run the helper's module until the launcher stops it or has gone. Exceptions fail the process."""
    stop = asyncio.Event()
    here.attach(stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    try:
        main = import_module(helper.module).main
        async with ipc.lifespan():
            here.lifeline.send(Ready())
            await main(stop, helper.config)
    except Exception:
        reason = traceback.format_exc().rstrip()
        here.lifeline.send(Failed(reason.encode(errors="backslashreplace").decode()))
        raise
