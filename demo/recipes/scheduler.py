"""A scheduler that runs once, however many workers there are.

    asgi-ipc serve demo.recipes.scheduler:app --workers 4

Guaranteed: each period has one tick in the whole server at most, and never do two ticks run at the same time:
the task runs in one worker, and another one takes over only when nothing of it runs any more. That one asks
the others which tick was the last, so it repeats none.

A tick whose time comes while nobody leads (for less than a second when the leader was killed) runs late, as
soon as somebody does; so does one that was due while the last one was still running. Of several the latest
alone is run.

Not guaranteed: that a tick ends. One that is cut short, because its worker is killed or restarted, is not
repeated; neither is one that raises. Who prefers a tick twice to a tick lost broadcasts behind `job` instead
of before it. A leader that stands still holds up all ticks until --worker-hang-timeout replaces it. When the
whole server starts anew it begins with the next period, and knows nothing of the last.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import ipc

logger = logging.getLogger("uvicorn.error")

PERIOD_S: Final = float(os.environ.get("RECIPES_PERIOD", "60"))

# The number of the last tick that has begun anywhere, as far as this worker knows; 0: none.
last_tick = 0


@ipc.receive("scheduler.began")
def began(tick: int) -> None:
    """In every worker: any of them may lead next."""
    global last_tick
    last_tick = max(last_tick, tick)


@ipc.receive("scheduler.last")
def tell(_: object) -> int:
    """To who leads now."""
    return last_tick


@ipc.leader_task
async def schedule() -> None:
    """In one worker of all, from when it leads until it does no more."""
    answers = await ipc.gather("scheduler.last", timeout=1.0)
    # Periods of the clock on the wall, which are the same for every worker.
    began(max(answers.values(), default=0) or int(time.time() // PERIOD_S))
    while True:
        tick = int(time.time() // PERIOD_S)
        if tick > last_tick:
            began(tick)
            await ipc.broadcast("scheduler.began", tick, include_self=False, timeout=1.0)
            await job(tick)
        await asyncio.sleep((max(tick, last_tick) + 1) * PERIOD_S - time.time())


async def job(tick: int) -> None:
    """What is to be done once in each period."""
    logger.info("tick %d in worker %d", tick, ipc.pid)


async def show(request: Request) -> JSONResponse:
    """Who leads, and how far it has come."""
    return JSONResponse({"leader": ipc.leader, "last_tick": last_tick})


app = Starlette(lifespan=ipc.lifespan, routes=[Route("/", show)])
