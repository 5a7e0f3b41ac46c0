"""The routes: a request becomes one verb of ipc, an error becomes a status with its reason.

Law: this file decides nothing about permission (guard), memory (journal), the live stream (live) or the room
(chat).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

from asgi_ipc import (
    DeliveryError,
    MessageTooLargeError,
    NotRunningError,
    UnknownWorkerError,
    ipc,
)
from demo.chat import chat, remembering
from demo.connections import OneRequestEach
from demo.guard import OwnHostOnly, OwnPageOnly
from demo.live import live
from demo.page import index, static
from demo.talk import received

# A pid has at most 7 digits on Linux, so a longer number is no pid. int() refuses more than 4300 digits with
# an error of its own.
MAX_PID_DIGITS: Final = 10

# Longer than a healthy worker takes, and no longer than a person waits.
UPTIME_TIMEOUT_S: Final = 2.0


# The address of the demo, for the greeting in the terminal; `make demo` sets it.
URL_VARIABLE: Final = "DEMO_URL"

GREETING: Final = """
  Open   {url}/   and then try:

    curl {url}/workers
    curl {url}/uptime
    curl {url}/broadcast/hello
    curl {url}/send/{pid}/hello
"""


async def send(request: Request) -> JSONResponse:
    """Say hello to one worker."""
    pid = _pid(request.path_params["pid"])
    await ipc.send(pid, "hello", request.path_params["data"])
    return JSONResponse({"from": ipc.pid, "to": pid})


async def broadcast(request: Request) -> JSONResponse:
    """Say hello to all workers, including this one."""
    took = await ipc.broadcast("hello", request.path_params["data"])
    return JSONResponse({"from": ipc.pid, "to": took})


async def workers(request: Request) -> JSONResponse:
    """Show the worker that answers, and all members."""
    members = [{"pid": w.pid, "slot": w.slot, "generation": w.generation} for w in ipc.workers]
    return JSONResponse({"pid": ipc.pid, "workers": members})


async def uptime(request: Request) -> JSONResponse:
    """Show how long each worker has been running, and why some did not answer."""
    answers = await ipc.gather("uptime", timeout=UPTIME_TIMEOUT_S)
    errors = {pid: f"{type(error).__name__}: {error}" for pid, error in answers.errors.items()}
    return JSONResponse({"from": ipc.pid, "uptime": answers, "errors": errors})


async def log(request: Request) -> JSONResponse:
    """Show what the answering worker received lately, oldest first."""
    entries = [
        {"name": entry.name, "from": entry.sender, "data": entry.text, "at": entry.at_s}
        for entry in received.entries
    ]
    return JSONResponse({"pid": ipc.pid, "log": entries})


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Take part in the fleet, and remember the chat meanwhile."""
    async with ipc.lifespan(app), remembering():
        url = os.environ.get(URL_VARIABLE)
        # Once for the server (it listens already), not once for each worker.
        if url and await ipc.claim("greeting"):
            print(GREETING.format(url=url, pid=ipc.pid), flush=True)  # noqa: T201  # for the terminal
        yield


def _pid(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_PID_DIGITS):
        raise HTTPException(404, f"no worker {text[:40]!r} is here: a pid is a number; see /workers")
    return int(text)


async def _refuse_message(request: Request, error: Exception) -> JSONResponse:
    match error:
        case UnknownWorkerError():
            status = 404
        case MessageTooLargeError():
            status = 413
        case DeliveryError() | NotRunningError():
            status = 503
        case _:
            raise error
    return JSONResponse({"error": str(error)}, status)


async def _refuse_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


# Requests to these routes make the workers act, or open a stream.
_OWN_PAGE_ONLY: Final = [Middleware(OwnPageOnly)]
_ACTING: Final = ["GET", "POST"]

app = Starlette(
    lifespan=lifespan,
    middleware=[Middleware(OneRequestEach), Middleware(OwnHostOnly)],
    routes=[
        Route("/", index),
        Route("/static/{name}", static),
        Route("/send/{pid}/{data:path}", send, methods=_ACTING, middleware=_OWN_PAGE_ONLY),
        Route("/broadcast/{data:path}", broadcast, methods=_ACTING, middleware=_OWN_PAGE_ONLY),
        Route("/uptime", uptime, methods=_ACTING, middleware=_OWN_PAGE_ONLY),
        Route("/workers", workers),
        Route("/log", log),
        WebSocketRoute("/live", live, middleware=_OWN_PAGE_ONLY),
        WebSocketRoute("/chat", chat, middleware=_OWN_PAGE_ONLY),
    ],
    exception_handlers={
        DeliveryError: _refuse_message,
        MessageTooLargeError: _refuse_message,
        NotRunningError: _refuse_message,
        HTTPException: _refuse_request,
    },
)
# A redirect to /send/1/ would answer a request without data, and a foreign page would get it before the guard
# sees the request.
app.router.redirect_slashes = False
