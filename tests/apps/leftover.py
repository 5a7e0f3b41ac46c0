"""An app that leaves something running in its worker: a thread, a pool, a task, a child, and more.

Law: nothing here ends by itself before a server that waited for it would have failed its test, and
nothing outlives that by long.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import multiprocessing
import os
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi_ipc import Worker, ipc

logger = logging.getLogger("uvicorn.error")

# No test takes so long.
AT_LAST_S: Final = 120.0

# A worker must wait for a thread that runs so long beyond its stop.
BRIEF_S: Final = 0.5

SLEEP: Final = shutil.which("sleep") or "/bin/sleep"

kept: list[Any] = []
stopped = threading.Event()


def forever() -> None:
    """Sleep for practically ever."""
    time.sleep(AT_LAST_S)


def outlast_the_stop() -> None:
    """Go on for a moment after the worker has left."""
    stopped.wait()
    time.sleep(BRIEF_S)
    logger.info("the brief thread of %d has ended", os.getpid())


async def stubborn() -> None:
    """Swallow the cancellation."""
    until = time.monotonic() + AT_LAST_S
    while time.monotonic() < until:
        try:
            await asyncio.sleep(AT_LAST_S)
        except asyncio.CancelledError:
            continue


class Clinging:
    """An object whose finalizer never ends."""

    def __del__(self, wait: Callable[[float], None] = time.sleep, seconds: float = AT_LAST_S) -> None:
        wait(seconds)


def leave_behind(kind: str) -> None:
    """Start one thing of that kind."""
    match kind:
        case "thread":
            threading.Thread(target=forever, name="a-thread").start()
        case "brief":
            threading.Thread(target=outlast_the_stop).start()
        case "to_thread":
            kept.append(asyncio.create_task(asyncio.to_thread(forever)))
        case "thread_pool":
            kept.append(ThreadPoolExecutor(1, "a-pool"))
            kept[-1].submit(forever)
        case "process_pool":
            kept.append(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
            kept[-1].submit(forever)
        case "process":
            kept.append(multiprocessing.get_context("fork").Process(target=forever))
            kept[-1].start()
        case "task":
            kept.append(asyncio.create_task(stubborn(), name="a-task"))
        case "atexit":
            atexit.register(forever)
        case "finalizer":
            kept.append(Clinging())
        case "program":
            kept.append(subprocess.Popen([SLEEP, str(AT_LAST_S)]))
        case "message":
            kept.append(asyncio.create_task(ipc.broadcast("endless")))
        case "late":
            kept.append(asyncio.create_task(ipc.broadcast("late")))


async def leave(request: Request) -> PlainTextResponse:
    """Start one thing of each of those kinds; return the worker's pid."""
    for kind in request.path_params["kinds"].split(","):
        leave_behind(kind)
    return PlainTextResponse(str(os.getpid()))


async def wait(request: Request) -> PlainTextResponse:
    """Take so many seconds for a request."""
    logger.info("a request waits")
    await asyncio.sleep(float(request.path_params["seconds"]))
    return PlainTextResponse("done")


@ipc.receive("endless")
async def endless(data: Any) -> None:
    """A handler that never ends."""
    await asyncio.sleep(AT_LAST_S)


@ipc.receive("late")
async def late(data: Any) -> None:
    """A handler that takes most of the time that a drain without launcher has."""
    await asyncio.sleep(3.0)
    logger.info("the late handler has ended")


@ipc.on_leave
def tell(worker: Worker, reason: str, lost: int) -> None:
    """Note a departure with its reason."""
    logger.info("worker %d is gone: %s", worker.pid, reason)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """As ipc's; with LEFTOVER_SHUTDOWN_S it takes so long to end behind that."""
    async with ipc.lifespan(app):
        yield
    stopped.set()
    await asyncio.sleep(float(os.environ.get("LEFTOVER_SHUTDOWN_S", "0")))


if os.environ.get("LEFTOVER_IMPORT"):
    leave_behind(os.environ["LEFTOVER_IMPORT"])
    raise RuntimeError("it can't be imported")

app = Starlette(
    routes=[Route("/leave/{kinds}", leave), Route("/wait/{seconds}", wait)],
    lifespan=lifespan,
)
