"""The chat: one room for the pages of all workers, by one topic.

    page to worker    {"id", "name", "hue", "text"}
    worker to page    {"kind": "lines", "through": pid, "slot", "lines": [...]}

The first word holds the earlier lines; a word without lines says that the worker is well.

Law: with a cluster the room is that of all hosts. Every worker remembers the lines, with or without a page,
so a page may come back to any worker. A newcomer asks the others before it serves a page. The room decides
what counts as a line, and how many are kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from starlette.websockets import WebSocket

from asgi_ipc import IPCError, Subscription, Worker, ipc
from demo.room import Conversation, Line, Pace, Said, read
from demo.sockets import BEAT_S, RefusedError, hear, opened

ROOM: Final = "room:lobby"

# A healthy member answers within milliseconds; a newcomer serves no page meanwhile.
HISTORY_TIMEOUT_S: Final = 1.0

conversation: Final = Conversation()

# One event for each open page, set when there are new lines.
_news: Final[set[asyncio.Event]] = set()


@asynccontextmanager
async def remembering() -> AsyncIterator[None]:
    """Remember the lines, inside `ipc.lifespan`: first those that the others know, then all new ones."""
    async with ipc.subscribe(ROOM) as lines:
        # New lines arrive from here on, so none is lost between this and the others' histories.
        histories = await ipc.gather("conversation", timeout=HISTORY_TIMEOUT_S, include_self=False)
        for history in histories.values():
            for line in history:
                _remember(line)
        keeping = asyncio.create_task(_keep(lines))
        try:
            yield
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping


@ipc.receive("conversation")
def history(_: object) -> list[Line]:
    """Tell a newcomer the earlier lines."""
    return conversation.since(0)


@ipc.cluster.on_worker_join
async def met(worker: Worker) -> None:
    """Learn what was said on another host before it was in sight, or while the network was cut."""
    if worker.node == ipc.worker.node:
        return
    try:
        lines = await ipc.cluster.request(worker, "conversation", timeout=HISTORY_TIMEOUT_S)
    except IPCError:
        # It has gone again, or stands still. Each of its host was asked.
        return
    for line in lines:
        _remember(line)


async def _keep(lines: Subscription) -> None:
    async for line in lines:
        _remember(line.data)


def _remember(line: Line) -> None:
    if conversation.add(line):
        for news in _news:
            news.set()


async def chat(websocket: WebSocket) -> None:
    """Send one page the lines, and publish its own, until it goes or this worker stops."""
    async with opened(websocket) as tasks:
        tasks.create_task(_listen(websocket))
        await _tell(websocket)


async def _tell(websocket: WebSocket) -> None:
    news = asyncio.Event()
    told = 0
    _news.add(news)
    try:
        while True:
            news.clear()
            # A page that reads slowly gets several lines at once, and at worst only those still remembered.
            lines, told = conversation.since(told), conversation.count
            await websocket.send_json({"kind": "lines", "through": ipc.pid, "slot": ipc.slot, "lines": lines})
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await news.wait()
    finally:
        _news.discard(news)


async def _listen(websocket: WebSocket) -> None:
    pace = Pace()
    while True:
        said = read(await hear(websocket))
        if said is None:
            raise RefusedError
        await _say(said)
        await asyncio.sleep(pace.wait_s(time.monotonic()))


async def _say(said: Said) -> None:
    if said.id in conversation:
        # The page sent it through another worker, and went before it got the line back.
        return
    line = Line(
        id=said.id,
        name=said.name,
        hue=said.hue,
        text=said.text,
        at_us=conversation.stamp(time.time_ns() // 1000),
        pid=ipc.pid,
        slot=ipc.slot,
    )
    await ipc.publish(ROOM, dict(line))
    # At once: a newcomer may ask before the publication arrives here.
    _remember(line)
