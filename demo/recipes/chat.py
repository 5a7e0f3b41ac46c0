"""Chat: rooms over WebSockets for the browsers of all workers.

    asgi-ipc serve demo.recipes.chat:app --workers 4

Guaranteed: once its WebSocket is open, a browser gets every message in its room, and those of one browser in
the order of sending. A browser that reads too slowly holds up no other: it loses the oldest of more than
MAX_BEHIND messages, and the next one says how many. When a worker stops, uvicorn closes its WebSockets with
1012: the page connects again, and reaches another one.

Not guaranteed: one order for all browsers (two messages at the same time may arrive in either order), and
messages from before a browser came, or from the time in which it connected again: keep a history with your
other data. A worker that stands still gets up to 32 MiB of messages when it goes on; beyond that its browsers
miss messages and do not learn how many. A client that is connected but reads nothing at all, with every
buffer on the way full, holds up a stop: set --timeout-graceful-shutdown.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated, Final

from fastapi import FastAPI, Path, WebSocket, WebSocketDisconnect

from asgi_ipc import Subscription, ipc

# A browser may be so many messages behind; a message may have so many characters.
MAX_BEHIND: Final = 100
MAX_CHARS: Final = 4000

# RFC 6455: binary data where text is expected; a message that is too long.
UNSUPPORTED: Final = 1003
TOO_LONG: Final = 1009

app = FastAPI(lifespan=ipc.lifespan)


@app.websocket("/rooms/{room}")
async def chat(websocket: WebSocket, room: Annotated[str, Path(pattern=r"^[\w-]{1,50}$")]) -> None:
    """Run until the browser goes, or this worker stops."""
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
    """Publish this browser's messages; return the close code, 0 if the WebSocket is closed already."""
    while (event := await websocket.receive())["type"] != "websocket.disconnect":
        text = event.get("text")
        if text is None:
            return UNSUPPORTED
        if len(text) > MAX_CHARS:
            return TOO_LONG
        await ipc.publish(topic, text)
    return 0


async def tell(websocket: WebSocket, messages: Subscription) -> None:
    """Send this browser the messages of its room, including its own."""
    # If the browser goes in the middle of a send, hear() sees it too, and ends both.
    with suppress(WebSocketDisconnect, RuntimeError):
        async for message in messages:
            await websocket.send_json({"text": message.data, "missed": message.missed})
