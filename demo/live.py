"""The live stream: one WebSocket per page, from whichever worker it reached.

    {"kind": "fleet", "through": pid, "workers": [{"pid", "slot", "generation"}...]}
    {"kind": "message", "generation", "number", "name", "from", "from_slot", "text", "more_chars", "at_s"}

Law: the stream only tells; the page sends by the routes, as everyone does. It
is a WebSocket rather than server-sent events because uvicorn closes WebSockets
when it stops (code 1012), while it waits for a response to end by itself, which
would hold up every rolling restart. The page then connects again and is told
everything it may have missed; (generation, number) tells it what it has.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_ipc import IPCError, Worker, ipc
from demo.talk import ask_all, watchers
from demo.watchers import Watcher

# Workers that come and go are seen without delay, at the cost of comparing two tuples.
POLL_S: Final = 0.25

# The fleet is told again this often, so that silence means a worker that hangs.
BEAT_S: Final = 2.0

# RFC 6455, registry: the page may come back at once (service restart; try again later).
RESTART: Final = 1012
TRY_AGAIN: Final = 1013


async def live(websocket: WebSocket) -> None:
    """Tell one page who is here and what they receive, until it goes or this worker stops."""
    await websocket.accept()
    watcher = watchers.open()
    telling = asyncio.create_task(_tell(websocket, watcher))
    hearing = asyncio.create_task(_until_closed(websocket))
    try:
        await asyncio.wait({telling, hearing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watchers.close(watcher)
        telling.cancel()
        hearing.cancel()
        await asyncio.wait({telling, hearing})
    for task in (telling, hearing):
        if not task.cancelled():
            task.result()


async def _tell(websocket: WebSocket, watcher: Watcher) -> None:
    try:
        await _tell_all(websocket, watcher)
    except WebSocketDisconnect:
        return
    except IPCError:
        await _close(websocket, RESTART)
    else:
        await _close(websocket, TRY_AGAIN)


async def _tell_all(websocket: WebSocket, watcher: Watcher) -> None:
    loop = asyncio.get_running_loop()
    told: tuple[Worker, ...] = ()
    next_beat = 0.0
    await ask_all(watcher)
    while not watcher.overflowed:
        # Before the messages: the page must have a place for what a newcomer received.
        messages = await watcher.take(POLL_S if told else 0.0)
        workers = ipc.workers
        if workers != told or loop.time() >= next_beat:
            members = [{"pid": w.pid, "slot": w.slot, "generation": w.generation} for w in workers]
            await websocket.send_json({"kind": "fleet", "through": ipc.pid, "workers": members})
            told = workers
            next_beat = loop.time() + BEAT_S
        for message in messages:
            await websocket.send_json({"kind": "message", **message})


async def _until_closed(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


async def _close(websocket: WebSocket, code: int) -> None:
    try:
        await websocket.close(code)
    except (WebSocketDisconnect, RuntimeError):
        # It has been closed from the other side meanwhile.
        return
