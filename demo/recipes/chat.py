"""Chat: rooms over WebSockets, whichever worker each browser has reached.

    asgi-ipc serve demo.recipes.chat:app --workers 4

Guaranteed: once its WebSocket is open, a browser hears everything that is said in its room, what one browser
says in that order. One that reads too slowly holds nobody up: it loses the oldest of more than MAX_BEHIND
messages, and the next one says how many. When a worker stops, uvicorn closes its WebSockets with 1012: the
page connects again, and reaches another one.

Not guaranteed: one order for all (two who speak at once may be heard in either), and what was said before a
browser was there, or while it connected again: keep a history where you keep your data. A worker that stands
still hears 32 MiB later when it goes on; beyond that, those in it miss messages and are not told how many.
And a client that is connected but reads nothing at all, with every buffer on the way full, holds up a stop:
set --timeout-graceful-shutdown.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated, Final

from fastapi import FastAPI, Path, WebSocket, WebSocketDisconnect

from asgi_ipc import Subscription, ipc

# How many messages one browser may be behind, and how long each may be.
MAX_BEHIND: Final = 100
MAX_CHARS: Final = 4000

# RFC 6455: binary data where text is expected; a message that is too long.
UNSUPPORTED: Final = 1003
TOO_LONG: Final = 1009

app = FastAPI(lifespan=ipc.lifespan)


@app.websocket("/rooms/{room}")
async def chat(websocket: WebSocket, room: Annotated[str, Path(pattern=r"^[\w-]{1,50}$")]) -> None:
    """Until the browser goes, or this worker stops."""
    topic = f"room:{room}"
    async with ipc.subscribe(topic, overflow="drop_oldest", max_messages=MAX_BEHIND) as messages:
        await websocket.accept()
        # If either fails, the group ends the other one.
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(tell(websocket, messages))
            code = await hear(websocket, topic)
            telling.cancel()
    if code:
        with suppress(WebSocketDisconnect):
            await websocket.close(code)


async def hear(websocket: WebSocket, topic: str) -> int:
    """Publish what this browser says; with which code to close, 0 if it is closed already."""
    while (event := await websocket.receive())["type"] != "websocket.disconnect":
        text = event.get("text")
        if text is None:
            return UNSUPPORTED
        if len(text) > MAX_CHARS:
            return TOO_LONG
        await ipc.publish(topic, text)
    return 0


async def tell(websocket: WebSocket, messages: Subscription) -> None:
    """Send this browser what is said in its room, its own words too."""
    # Closed in the middle of a send: hear() is told as well, and ends both.
    with suppress(WebSocketDisconnect, RuntimeError):
        async for message in messages:
            await websocket.send_json({"text": message.data, "missed": message.missed})
