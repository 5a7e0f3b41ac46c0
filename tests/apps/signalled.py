"""An app that starts children, and shows what they do with signals.

Law: what is shown is the kernel's word (proc(5)), or the status with which a child has ended.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from multiprocessing.synchronize import Event
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.processes import masks

# No test takes so long; a child that has been forgotten leaves nothing behind.
AT_LAST_S: Final = 120

SLEEP: Final = shutil.which("sleep") or "/bin/sleep"

if os.environ.get("SIGNALLED_IMPORT"):
    # In one write: another worker says the same.
    os.write(1, b"the app is being imported\n")
    until = time.monotonic() + AT_LAST_S
    while time.monotonic() < until:
        time.sleep(0.01)


def wait() -> None:
    """Wait for a signal: pause(2) would miss one that comes just before it."""
    while True:
        time.sleep(0.01)


def fork() -> int:
    """Fork a child that only waits; return its pid after it has had its turn."""
    ready, has_run = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(AT_LAST_S)
            os.write(has_run, b"x")
            wait()
        except KeyboardInterrupt:
            # As Python does at the end of a program.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        os._exit(0)
    os.read(ready, 1)
    for fd in (ready, has_run):
        os.close(fd)
    return child


def pause(has_run: Event) -> None:
    """A child of multiprocessing that only waits."""
    signal.alarm(AT_LAST_S)
    has_run.set()
    wait()


def start(how: str) -> int:
    """A child that only waits."""
    match how:
        case "popen":
            return subprocess.Popen([SLEEP, str(AT_LAST_S)]).pid
        case "posix_spawn":
            return os.posix_spawn(SLEEP, [SLEEP, str(AT_LAST_S)], os.environ)
        case "fork":
            return fork()
        case _:
            context = multiprocessing.get_context("fork")
            has_run = context.Event()
            process = context.Process(target=pause, args=(has_run,))
            process.start()
            has_run.wait()
            assert process.pid is not None
            return process.pid


async def child(request: Request) -> JSONResponse:
    """Start a child, read its signals, and send it one; return those signals and its status."""
    how, number = request.path_params["how"], request.path_params["number"]
    pid = await asyncio.to_thread(start, how) if "thread" in request.query_params else start(how)
    seen = masks(pid)
    os.kill(pid, number)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    return JSONResponse({**seen, "status": os.waitstatus_to_exitcode(status)})


async def program(request: Request) -> JSONResponse:
    """Run a program by the event loop; return its status."""
    process = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
    return JSONResponse(await process.wait())


async def who(request: Request) -> JSONResponse:
    """The worker."""
    return JSONResponse(os.getpid())


app = Starlette(
    routes=[Route("/", who), Route("/program", program), Route("/child/{how}/{number:int}", child)]
)
