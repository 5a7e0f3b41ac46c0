"""An app with a response that does not end and a WebSocket that stays open.

Law: a request ends when the server ends it. Beside these, every ordinary request sends a message to all, so
that a worker out of reach shows at once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_ipc import ipc

heard = 0


@ipc.receive("note")
def note(data: Any) -> None:
    global heard
    heard += 1


async def stream(request: Request) -> StreamingResponse:
    """Send this worker's pid and its number of messages, again and again."""

    async def lines() -> AsyncIterator[str]:
        while True:
            yield f"{os.getpid()} {heard}\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(lines())


async def converse(socket: WebSocket) -> None:
    """Send the same on each request of the client."""
    await socket.accept()
    async for _ in socket.iter_text():
        await socket.send_text(f"{os.getpid()} {heard}")


async def who(request: Request) -> JSONResponse:
    """Return this worker's pid if a message to all was accepted for all; an error otherwise."""
    members = {worker.pid for worker in ipc.workers}
    took = await ipc.broadcast("note")
    missed = sorted(members - set(took))
    return JSONResponse({"pid": os.getpid(), "missed": missed}, status_code=500 if missed else 200)


app = Starlette(
    routes=[Route("/stream", stream), Route("/who", who), WebSocketRoute("/converse", converse)],
    lifespan=ipc.lifespan,
)
