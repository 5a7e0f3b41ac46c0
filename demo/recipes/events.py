"""Server-sent events: every browser that follows a topic gets the publications of all workers.

    asgi-ipc serve demo.recipes.events:app --workers 4

Guaranteed: a stream ends as soon as its worker begins to stop, so it holds up no restart, and the browser's
EventSource connects again by itself, to another worker. From its `open` event on it gets every publication,
in order for each worker that publishes. A browser that reads too slowly loses the oldest of more than
MAX_BEHIND events, and a `missed` event says how many. The server notices a vanished browser at a heartbeat.

Not guaranteed: publications from the time in which a browser connects again. Let the page fetch the present
state at each `open`; it gets every later change. A client that is connected but reads nothing at all, with
every buffer on the way full, holds up a stop like any response: set --timeout-graceful-shutdown.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from asgi_ipc import InvalidNameError, Subscription, ipc

# The delay before a browser connects again, and the pause between signs of life in a quiet stream: proxies
# end a stream that is silent for a minute.
RETRY_MS: Final = 1000
HEARTBEAT_S: float = 15.0

# A browser may be so many events behind; an event may have so many bytes.
MAX_BEHIND: Final = 100
MAX_BYTES: Final = 64 * 1024

# The second header is for nginx, which would buffer the events.
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def follow(request: Request) -> Response:
    """Answer GET with the stream."""
    topic = f"events:{request.path_params['topic']}"
    messages = ipc.subscribe(topic, until_stop=True, overflow="drop_oldest", max_messages=MAX_BEHIND)
    return StreamingResponse(stream(messages), media_type="text/event-stream", headers=HEADERS)


async def stream(subscription: Subscription) -> AsyncIterator[str]:
    """Run until the browser goes, or this worker begins to stop."""
    async with subscription as messages:
        yield f"retry: {RETRY_MS}\n\n"
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    message = await anext(messages, None)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            if message is None:
                return
            if message.missed:
                yield event(str(message.missed), kind="missed")
            yield event(message.data)


def event(data: str, kind: str = "message") -> str:
    """Return one event. Its data may have several lines, with any line ends."""
    lines = re.split(r"\r\n|\r|\n", data)
    return f"event: {kind}\n" + "".join(f"data: {line}\n" for line in lines) + "\n"


async def publish(request: Request) -> Response:
    """Publish an event (POST); the answer lists the workers with followers of the topic."""
    body = await request.body()
    if len(body) > MAX_BYTES:
        return PlainTextResponse(f"an event has at most {MAX_BYTES} bytes", 413)
    told = await ipc.publish(f"events:{request.path_params['topic']}", body.decode(errors="replace"))
    return JSONResponse({"told": told})


async def no_topic(request: Request, error: Exception) -> Response:
    """Refuse a topic whose name is too long, or has control characters."""
    return PlainTextResponse(str(error), 400)


app = Starlette(
    lifespan=ipc.lifespan,
    routes=[Route("/events/{topic}", follow), Route("/events/{topic}", publish, methods=["POST"])],
    exception_handlers={InvalidNameError: no_topic},
)
