"""An app whose requests last until another request ends them, or block its worker.

Law: `/held` has begun its response, `/late` has not; `/release` ends both, in
that worker.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_ipc import ipc

released = asyncio.Event()


async def pid(request: Request) -> JSONResponse:
    return JSONResponse(os.getpid())


async def held(request: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        yield f"{os.getpid()}\n"
        await released.wait()
        yield "end\n"

    return StreamingResponse(lines())


async def late(request: Request) -> JSONResponse:
    await released.wait()
    return JSONResponse(os.getpid())


async def release(request: Request) -> JSONResponse:
    released.set()
    return JSONResponse(os.getpid())


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


async def stubborn(socket: WebSocket) -> None:
    await socket.accept()
    await released.wait()


async def block(request: Request) -> JSONResponse:
    time.sleep(float(request.query_params["s"]))  # noqa: ASYNC251  # the fault
    return JSONResponse(os.getpid())


@ipc.receive("long")
async def long(data: Any) -> None:
    await asyncio.Event().wait()


async def send_long(request: Request) -> JSONResponse:
    await ipc.send(ipc.pid, "long")
    return JSONResponse(os.getpid())


app = Starlette(
    routes=[
        Route("/", pid),
        # A client may write any characters into a path.
        Route("/held{rest:path}", held),
        Route("/late", late),
        Route("/release", release),
        Route("/block", block),
        Route("/long", send_long),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/stubborn", stubborn),
    ],
    lifespan=ipc.lifespan,
)
