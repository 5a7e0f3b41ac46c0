"""An app as users write them: handlers on the module-level `ipc`, a route, a lifespan of its own.

Law: nothing in it knows that it is tested.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import Worker, ipc

# Messages: (receiver, sender, data).
heard: list[tuple[int, int | None, str]] = []
# Departures: (the worker that saw it, the worker that has gone, the reason).
gone: list[tuple[int, int, str]] = []
tasks: set[asyncio.Task[None]] = set()
lifespans = 0


@ipc.receive("say")
async def say(text: str) -> None:
    heard.append((ipc.pid, ipc.sender, text))
    await ipc.reply("heard", text)


@ipc.receive("heard")
def was_heard(text: str) -> None:
    heard.append((ipc.pid, ipc.sender, f"heard {text}"))


@ipc.receive("who")
def who(data: object) -> list[int | None]:
    return [ipc.pid, ipc.slot, ipc.sender, len(ipc.workers)]


@ipc.receive("later")
async def later(text: str) -> None:
    async def from_a_task() -> None:
        await asyncio.sleep(0)
        await ipc.reply("heard", f"{text} in a task of {ipc.pid}")

    task = asyncio.create_task(from_a_task())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    await asyncio.to_thread(lambda: ipc.reply_nowait("heard", f"{text} in a thread of {ipc.pid}"))


@ipc.receive("everybody")
async def everybody(data: object) -> list[int]:
    return sorted(await ipc.gather("who"))


@ipc.receive("learn")
def learn(name: str) -> None:
    ipc.receive(name, lambda data: f"{name} at {ipc.pid}")


@ipc.receive("alone", ordered=True)
async def alone(data: int) -> int:
    await asyncio.sleep(0)
    return data


@ipc.on_leave
def left(worker: Worker, reason: str, lost: int) -> None:
    gone.append((ipc.pid, worker.pid, reason))


async def post(request: Request) -> JSONResponse:
    told = await ipc.broadcast("say", request.path_params["text"])
    return JSONResponse({"pid": ipc.pid, "told": told})


def count(request: Request) -> JSONResponse:
    # In a thread.
    ipc.broadcast_nowait("say", "from a thread")
    return JSONResponse({"pid": ipc.pid, "sent": ipc.stats().sent})


def place(request: Request) -> JSONResponse:
    return JSONResponse({"cwd": os.getcwd(), "said": os.environ.get("CHAT_SAYS")})


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    global lifespans
    async with ipc.lifespan(app):
        lifespans += 1
        yield


app = Starlette(
    routes=[Route("/post/{text}", post), Route("/count", count), Route("/place", place)], lifespan=lifespan
)
