"""The chat: one room for all pages, whichever workers they reached, by one topic.

    page to worker    {"id", "name", "hue", "text"}
    worker to page    {"kind": "lines", "through": pid, "slot", "lines": [...]}

The first word holds what was said before; a word without lines says that the worker is well.

Law: every worker remembers what is said, whether or not it has a page, so it does not matter which one a
page comes back to. A newcomer asks the others before it serves anybody. What counts as a line, and how many
are kept, is the room's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from starlette.websockets import WebSocket

from asgi_ipc import Subscription, ipc
from demo.room import Conversation, Line, Pace, Said, read
from demo.sockets import BEAT_S, RefusedError, hear, opened

ROOM: Final = "room:lobby"

# A member that is well answers within milliseconds; a newcomer serves nobody meanwhile.
HISTORY_TIMEOUT_S: Final = 1.0

conversation: Final = Conversation()

# One for each open page: set when there is something new.
_news: Final[set[asyncio.Event]] = set()


@asynccontextmanager
async def remembering() -> AsyncIterator[None]:
    """Remember what is said, inside `ipc.lifespan`: first what the others know, then all that comes."""
    async with ipc.subscribe(ROOM) as lines:
        # From here on everything new arrives, so nothing falls between this and what the others tell.
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
    """A newcomer asks what was said before it came."""
    return conversation.since(0)


async def _keep(lines: Subscription) -> None:
    async for line in lines:
        _remember(line.data)


def _remember(line: Line) -> None:
    if conversation.add(line):
        for news in _news:
            news.set()


async def chat(websocket: WebSocket) -> None:
    """Tell one page what is said, and say what it says, until it goes or this worker stops."""
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
            # A page that reads slowly is told several at once, and at worst what is still remembered.
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
        # It was said through another worker, and the page had gone before it could be told.
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
    # At once, for a newcomer may ask before it comes round.
    _remember(line)
