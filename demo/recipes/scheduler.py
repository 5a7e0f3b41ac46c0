"""A scheduler that runs once, however many workers there are.

    asgi-ipc serve demo.recipes.scheduler:app --workers 4

Guaranteed: each period has one tick in the whole server at most, and two ticks never run at the same time:
the task runs in one worker, and another worker takes over only after it has ended. The new leader asks the
others for the last tick, so it repeats none.

If a tick is due while there is no leader (for less than a second when the leader was killed), it runs late,
as soon as there is one. The same holds for a tick that was due while the last one was still running. Of
several such ticks only the latest runs.

Not guaranteed: the end of a tick. A tick that is cut short, because its worker is killed or restarted, is not
repeated; neither is a tick that raises. If you prefer a tick twice to a lost tick, broadcast after `job`
instead of before it. A leader that stands still holds up all ticks until --worker-hang-timeout replaces it. A
new server begins with the next period, and knows nothing of the last.
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

# The number of the last tick that has begun in any worker, as far as this one knows; 0: none.
last_tick = 0


@ipc.receive("scheduler.began")
def began(tick: int) -> None:
    """Run in every worker, since any of them may lead next."""
    global last_tick
    last_tick = max(last_tick, tick)


@ipc.receive("scheduler.last")
def tell(_: object) -> int:
    """Tell the new leader the last tick."""
    return last_tick


@ipc.leader_task
async def schedule() -> None:
    """Run in the leader, from its appointment to its end."""
    answers = await ipc.gather("scheduler.last", timeout=1.0)
    # Periods follow the wall clock, so they are the same for every worker.
    began(max(answers.values(), default=0) or int(time.time() // PERIOD_S))
    while True:
        tick = int(time.time() // PERIOD_S)
        if tick > last_tick:
            began(tick)
            await ipc.broadcast("scheduler.began", tick, include_self=False, timeout=1.0)
            await job(tick)
        await asyncio.sleep((max(tick, last_tick) + 1) * PERIOD_S - time.time())


async def job(tick: int) -> None:
    """Do the work of one period."""
    logger.info("tick %d in worker %d", tick, ipc.pid)


async def show(request: Request) -> JSONResponse:
    """Show the leader and the last tick."""
    return JSONResponse({"leader": ipc.leader, "last_tick": last_tick})


app = Starlette(lifespan=ipc.lifespan, routes=[Route("/", show)])
