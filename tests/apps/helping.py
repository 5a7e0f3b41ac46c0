"""What a helper runs: it answers, and says what it has heard when it stops."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from asgi_ipc import ipc

logger = logging.getLogger("uvicorn.error")

_last_words: list[int | None] = []


@ipc.receive("ask")
async def ask(data: Any) -> None:
    await ipc.reply("answer", [data, os.getpid(), [worker.pid for worker in ipc.workers]])


@ipc.receive("last")
def last(data: Any) -> None:
    _last_words.append(ipc.sender)


async def main(stop: asyncio.Event, config: object) -> None:
    await stop.wait()
    logger.info("Helper [%d] has heard %d last words.", os.getpid(), len(_last_words))
