"""The app of both servers: a stream of broadcasts, which the other one acknowledges, and questions.

Law: only public names of `asgi_ipc`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import Worker, ipc

# What may be on its way: more would fill outboxes, and what does not fit is dropped.
WINDOW_BYTES: Final = 8 * 1024 * 1024
ACKNOWLEDGED_BYTES: Final = 512 * 1024


class Stream:
    """What this worker has sent and the other has acknowledged, or has taken from the other."""

    def __init__(self) -> None:
        self.acknowledged_bytes = 0
        self.taken_bytes = 0
        self.unacknowledged_bytes = 0
        self.progress = asyncio.Event()


stream = Stream()
gaps: list[int | None] = []


@ipc.receive("stream")
def take(data: bytes) -> None:
    stream.taken_bytes += len(data)
    stream.unacknowledged_bytes += len(data)
    if stream.unacknowledged_bytes >= ACKNOWLEDGED_BYTES:
        ipc.reply_nowait("taken", stream.taken_bytes)
        stream.unacknowledged_bytes = 0


@ipc.receive("taken")
def taken(size_bytes: int) -> None:
    stream.acknowledged_bytes = size_bytes
    stream.progress.set()


@ipc.receive("echo")
def echo(data: Any) -> Any:
    return data


@ipc.receive("begin")
def begin(data: Any) -> None:
    stream.__init__()  # type: ignore[misc]


ipc.cluster.on_gap(lambda node, lost: gaps.append(lost))


def _other() -> Worker:
    return next(worker for worker in ipc.cluster.workers if worker.node != ipc.worker.node)


async def send(request: Request) -> JSONResponse:
    """Broadcast so many messages of a size; the seconds until all are acknowledged."""
    count, size_bytes = int(request.query_params["count"]), int(request.query_params["size"])
    await ipc.cluster.request(_other(), "echo", 0)
    await ipc.cluster.send(_other(), "begin")
    begin(None)
    data = bytes(size_bytes)
    total_bytes = count * size_bytes // ACKNOWLEDGED_BYTES * ACKNOWLEDGED_BYTES
    started_s = time.monotonic()
    for number in range(count):
        while number * size_bytes - stream.acknowledged_bytes > WINDOW_BYTES:
            stream.progress.clear()
            await stream.progress.wait()
        await ipc.broadcast("stream", data, include_self=False)
    while stream.acknowledged_bytes < total_bytes:
        stream.progress.clear()
        await stream.progress.wait()
    return JSONResponse(time.monotonic() - started_s)


async def ask(request: Request) -> JSONResponse:
    """Ask a worker of the other server so many times; how long each took, in seconds."""
    other = _other()
    times_s = []
    for _ in range(int(request.query_params["count"])):
        started_s = time.perf_counter()
        await ipc.cluster.request(other, "echo", b"question")
        times_s.append(time.perf_counter() - started_s)
    return JSONResponse(times_s)


async def counters(request: Request) -> JSONResponse:
    """The bridge's counters, and whether both servers know each other."""
    return JSONResponse({**ipc.stats().cluster, "workers": len(ipc.cluster.workers), "gaps": len(gaps)})


app = Starlette(
    routes=[Route("/send", send), Route("/ask", ask), Route("/counters", counters)], lifespan=ipc.lifespan
)
