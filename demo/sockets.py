"""The sockets: how a WebSocket to a page begins and ends.

Law: this file knows nothing of the words on a socket. The demo uses WebSockets and not server-sent events,
because uvicorn closes a WebSocket when it stops (code 1012), but waits for a response to end by itself, which
would hold up every rolling restart. A page that is closed connects again and gets what it missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_ipc import IPCError, SubscriptionOverflowError

# The page gets a word this often, so silence means that the worker hangs.
BEAT_S: Final = 2.0

# RFC 6455, registry: the page may come back at once (service restart; try again later).
RESTART: Final = 1012
TRY_AGAIN: Final = 1013
# RFC 6455: the peer has broken the server's rules.
AGAINST_POLICY: Final = 1008


class RefusedError(Exception):
    """A page has sent a word that no page of ours sends."""


@asynccontextmanager
async def opened(websocket: WebSocket) -> AsyncIterator[asyncio.TaskGroup]:
    """Accept the WebSocket, and run the block and the group's tasks until one of them fails.

    One of the tasks must `hear`, in order to notice that the page goes.
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
    """Return the next text from the page and skip bytes. Raises WebSocketDisconnect at its end."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        if (text := message.get("text")) is not None:
            return str(text)


async def _close(websocket: WebSocket, code: int) -> None:
    """Close the WebSocket, unless the page has closed it meanwhile."""
    try:
        await websocket.close(code)
    except (WebSocketDisconnect, RuntimeError):
        return
