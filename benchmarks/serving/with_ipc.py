"""The same endpoint in the workers of `asgi-ipc serve`, and a way to make them talk meanwhile.

Law: only public names of `asgi_ipc`. Without an order for a load, the package is idle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import ipc
from benchmarks.ours.load import Load
from benchmarks.serving.endpoint import ready, routes

# For all workers to stop, and to have all that was sent.
STOP_TIMEOUT_S = 10.0


class State:
    """This worker's part of the load, and the answers of all to the worker that was asked for it."""

    load: Load
    task: asyncio.Task[None] | None = None
    answers: asyncio.Queue[dict[str, Any]]


@ipc.receive("load")
async def load(per_s: int) -> None:
    """Begin to send so many messages a second to the next worker; or, with 0, end and say what came."""
    if per_s:
        State.load.open()
        slots = [worker.slot for worker in ipc.workers]
        neighbour = ipc.workers[(slots.index(ipc.slot) + 1) % len(slots)]
        State.task = asyncio.create_task(State.load.send(neighbour.pid, per_s))
    elif State.task is not None:
        State.load.end()
        await State.task
        await State.load.done.wait()
    await ipc.reply("answer", {"sent": State.load.sent, "troubles": State.load.troubles})


@ipc.receive("answer")
def answer(facts: dict[str, Any]) -> None:
    """One worker has begun, or ended."""
    State.answers.put_nowait(facts)


async def set_load(request: Request) -> JSONResponse:
    """GET /load/N: messages a second of each worker to the next one. Says what each has sent so far."""
    State.answers = asyncio.Queue()
    asked = await ipc.broadcast("load", request.path_params["per_s"])
    async with asyncio.timeout(STOP_TIMEOUT_S):
        return JSONResponse([await State.answers.get() for _ in asked])


@asynccontextmanager
async def lifespan(app: object) -> AsyncIterator[None]:
    """Be a worker; it is ready when it has joined."""
    async with ipc.lifespan(app):
        State.load = Load()
        async with ready(app):
            yield


app = Starlette(routes=[*routes, Route("/load/{per_s:int}", set_load)], lifespan=lifespan)
