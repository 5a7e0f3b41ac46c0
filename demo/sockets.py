"""The sockets: how a WebSocket to a page begins and ends, whatever is said on it.

Law: what is said is the business of those who open it. A WebSocket rather
than server-sent events, because uvicorn closes it when it stops (code 1012),
while it waits for a response to end by itself, which would hold up every
rolling restart. Whoever is closed connects again and is told what it missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_ipc import IPCError, SubscriptionOverflowError

# The page is told something this often, so that silence means a worker that hangs.
BEAT_S: Final = 2.0

# RFC 6455, registry: the page may come back at once (service restart; try again later).
RESTART: Final = 1012
TRY_AGAIN: Final = 1013
# RFC 6455: what it has sent breaks the rules of the house.
AGAINST_POLICY: Final = 1008


class RefusedError(Exception):
    """A page has sent what no page of ours sends."""


@asynccontextmanager
async def opened(websocket: WebSocket) -> AsyncIterator[asyncio.TaskGroup]:
    """Accept it, and run the tasks that are given to the group and the block until one of them fails.

    One of the tasks must `hear`, so that it is noticed when the page goes.
    """
    await websocket.accept()
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except* WebSocketDisconnect:
        pass
    except* RefusedError:
        await _close(websocket, AGAINST_POLICY)
    except* SubscriptionOverflowError:
        await _close(websocket, TRY_AGAIN)
    except* IPCError:
        await _close(websocket, RESTART)


async def hear(websocket: WebSocket) -> str:
    """The next text from the page; bytes are none. Raises WebSocketDisconnect when it has gone."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        if (text := message.get("text")) is not None:
            return str(text)


async def _close(websocket: WebSocket, code: int) -> None:
    """Close it, unless it has been closed from the other side meanwhile."""
    try:
        await websocket.close(code)
    except (WebSocketDisconnect, RuntimeError):
        return
