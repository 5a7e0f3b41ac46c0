"""Apps with no lifespan of their own, or an odd one; a wrapper enters `ipc.lifespan` around them.

A broadcast of `/job` runs a job of $JOB_S seconds in every worker; each says when it begins and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import IPC, IPCError, ipc

# uvicorn returns 0.1 s after the app says that its shutdown is complete.
JOB_S = float(os.environ.get("JOB_S", "0.4"))


def say(text: str) -> None:
    # One write: lines of several workers must not mix.
    os.write(1, f"{text} [{os.getpid()}]\n".encode())


@ipc.receive("job")
async def job(data: object) -> None:
    say("job begins")
    await asyncio.sleep(JOB_S)
    say("job ends")


@ipc.on_leave
def left(worker: Any, reason: str, lost: int) -> None:
    say(f"told that {worker.pid} has gone: {reason}, {lost} lost")


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """`/job` broadcasts it; everything else is answered with the number of workers."""
    if scope["type"] != "http":
        raise ValueError(f"can only handle HTTP, not {scope['type']}")
    if scope["path"] == "/job":
        said: Any = list(await ipc.broadcast("job"))
    else:
        said = {"workers": len(ipc.workers), "state": scope.get("state", {}).get("greeting")}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


# --- by hand, as one writes it without ipc.wrap


class ByHand:
    """The wrapper that a user would write for the app of another author."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            async with ipc.lifespan(self):
                await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, send)


async def job_route(request: Request) -> JSONResponse:
    return JSONResponse(await ipc.broadcast("job"))


inner = Starlette(routes=[Route("/job", job_route)])
by_hand = ByHand(inner)
by_hand_in_vain = ByHand(answer)


# --- an app and a router of it that enter it each

router = APIRouter(lifespan=ipc.lifespan)


@router.get("/job")
async def routed_job() -> list[int]:
    return list(await ipc.broadcast("job"))


routed = FastAPI(lifespan=ipc.lifespan)
routed.include_router(router)


# --- lifespans of apps, each in one function


def with_lifespan(speak: Callable[[Any, Any, Any], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (speak if scope["type"] == "lifespan" else answer)(scope, receive, send)

    return app


@with_lifespan
async def whole(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["greeting"] = "hello"
    say("app starts")
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    try:
        await ipc.broadcast("job")
    except IPCError as error:
        say(f"app ends: {type(error).__name__}")
    await send({"type": "lifespan.shutdown.complete"})


@with_lifespan
async def silent(scope: Any, receive: Any, send: Any) -> None:
    """Return at once, like some apps that know nothing of the lifespan."""


@with_lifespan
async def naive(scope: Any, receive: Any, send: Any) -> None:
    """Answers everything as if it were a request."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})


@with_lifespan
async def crashing(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    raise RuntimeError("crashed behind its startup")


@with_lifespan
async def brief(scope: Any, receive: Any, send: Any) -> None:
    """Have no shutdown."""
    await receive()
    await send({"type": "lifespan.startup.complete"})


@with_lifespan
async def failing(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise RuntimeError("no database")


@with_lifespan
async def refusing(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


@with_lifespan
async def member(scope: Any, receive: Any, send: Any) -> None:
    """Enter the lifespan itself."""
    await receive()
    async with ipc.lifespan():
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("app ends")
    say("app has left")
    await send({"type": "lifespan.shutdown.complete"})


kept: list[Any] = []


@with_lifespan
async def staying(scope: Any, receive: Any, send: Any) -> None:
    """Enter the lifespan, and never leave it."""
    await receive()
    kept.append(ipc.lifespan())
    await kept[0].__aenter__()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
    say("app ends")


@with_lifespan
async def impatient(scope: Any, receive: Any, send: Any) -> None:
    """Give the end of the lifespan no time."""
    await receive()
    async with ipc.lifespan():
        await send({"type": "lifespan.startup.complete"})
        await receive()
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.1, task.cancel)


@with_lifespan
async def divided(scope: Any, receive: Any, send: Any) -> None:
    """Have a second IPC."""
    await receive()
    async with ipc.lifespan(), IPC().lifespan():
        await send({"type": "lifespan.startup.complete"})


@with_lifespan
async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
    """Enter the lifespan on an event loop of its own."""
    await receive()

    async def enter() -> None:
        async with ipc.lifespan():
            say("entered elsewhere")

    await asyncio.to_thread(asyncio.run, enter())
    await send({"type": "lifespan.startup.complete"})


def factory() -> Any:
    return answer


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps({"workers": len(ipc.workers), "told": ipc.blocking.broadcast("job")}).encode()]


wrapped_in_code = ipc.wrap(answer)
