"""An app that tries every verb on itself, for Starlette and for FastAPI."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import IPCError, ipc

seen: list[list[Any]] = []
news = asyncio.Condition()


async def _note(name: str, data: Any) -> None:
    async with news:
        seen.append([name, ipc.sender == os.getpid(), data])
        news.notify_all()


@ipc.receive("note")
async def note(data: Any) -> None:
    await _note("note", data)


@ipc.receive("ask")
async def ask(data: Any) -> None:
    await _note("ask", data)
    await ipc.reply("note", f"answer to {data}")


async def everything() -> dict[str, Any]:
    """Send, broadcast, reply, sender and two errors, in a fleet of one."""
    global news
    news = asyncio.Condition()
    seen.clear()
    await ipc.send(ipc.pid, "note", "to myself")
    await ipc.send(ipc.workers[0], "ask", "question")
    took = await ipc.broadcast("note", "to all")
    async with news, asyncio.timeout(10):
        await news.wait_for(lambda: len(seen) == 4)
    errors = {}
    for key, verb in (("unknown", ipc.send(1, "note")), ("outside", ipc.reply("note"))):
        try:
            await verb
        except IPCError as error:
            errors[key] = type(error).__name__
    return {
        "workers": len(ipc.workers),
        "slot": ipc.slot,
        "broadcast": len(took),
        "seen": seen,
        **errors,
    }


async def endpoint(request: Request) -> JSONResponse:
    return JSONResponse(await everything())


app = Starlette(routes=[Route("/", endpoint)], lifespan=ipc.lifespan)

fastapi_app = FastAPI(lifespan=ipc.lifespan)


@fastapi_app.get("/")
async def fastapi_endpoint() -> dict[str, Any]:
    return await everything()


@fastapi_app.get("/thread")
def plain_endpoint() -> dict[str, Any]:
    """Runs in a thread: sending without waiting works, and waiting says that it does not."""
    ipc.send_nowait(ipc.pid, "nobody")
    try:
        asyncio.run(ipc.send(ipc.pid, "nobody"))
    except IPCError as error:
        return {"sent": True, "waiting": type(error).__name__}
    return {}
