"""An app whose server has a helper, which no option starts: `python -m tests.apps.helped PORT`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import Worker, ipc

KIND = "echo"

answers: asyncio.Queue[Any] = asyncio.Queue()
# Every member that this worker was told of.
news: list[int] = []


@ipc.receive("answer")
def answered(data: Any) -> None:
    answers.put_nowait([*data, ipc.sender])


@ipc.on_join
def joined(worker: Worker) -> None:
    news.append(worker.pid)


@ipc.on_leave
def left(worker: Worker, reason: str, lost: int) -> None:
    news.append(worker.pid)


def helpers() -> list[Worker]:
    return ipc._own.endpoint.outgoing.peers.of_kind(KIND)


async def ask(request: Request) -> JSONResponse:
    """The answer of the helper to a message of this worker's."""
    (helper,) = helpers()
    await ipc.send(helper, "ask", "how are you?")
    return JSONResponse(await answers.get())


async def members(request: Request) -> JSONResponse:
    """The members by pid, who gets a broadcast, and the helpers."""
    return JSONResponse(
        {
            "pid": os.getpid(),
            "workers": [worker.pid for worker in ipc.workers],
            "kinds": [worker.kind for worker in ipc.workers],
            "broadcast": list(await ipc.broadcast("nothing")),
            "leader": ipc.leader,
            "helpers": [worker.pid for worker in helpers()],
            "news": news,
        }
    )


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with ipc.lifespan(app):
        yield
        for helper in helpers():
            await ipc.send(helper, "last")


app = Starlette(routes=[Route("/ask", ask), Route("/members", members)], lifespan=lifespan)


if __name__ == "__main__":
    from asgi_ipc.fleet.words import Helper
    from asgi_ipc.launcher.serve import serve

    given = {"port": int(sys.argv[1]), "worker_hang_timeout": 2.0}
    sys.exit(serve("tests.apps.helped:app", workers=2, options=given, helpers=(Helper(KIND, sys.argv[2]),)))
