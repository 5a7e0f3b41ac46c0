"""An app that dies soon after its start, in one slot, or takes long to start, in all.

Law: it notes what happens as it happens, the moment of its death last of all.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import Worker, ipc
from asgi_ipc.worker import assignment
from tests.faults.ledger import Notes

# The slot that dies, and how long after its start; no worker dies unless this is set.
DYING_SLOT: Final = int(os.environ.get("CRASHING_SLOT", "-1"))
DIES_AFTER_S: Final = 0.1
EXIT_STATUS: Final = 9

# The start-up time of every worker. Even slots block their event loops meanwhile.
START_S: Final = float(os.environ.get("CRASHING_START_S", "0"))

assert assignment.current is not None
me: Final = assignment.current.me
notes: Final = Notes(Path(os.environ["CRASHING_FOLDER"]), me.generation)
notes.write("start", slot=me.slot)


@ipc.on_join
def joined(worker: Worker) -> None:
    notes.write("told_join", of=worker.generation, slot=worker.slot)


@ipc.on_leave
def left(worker: Worker, reason: str, lost: int) -> None:
    notes.write("told_leave", of=worker.generation, slot=worker.slot, reason=reason)


def die() -> None:
    notes.write("dies", slot=me.slot)
    os._exit(EXIT_STATUS)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    # The long start is what this app is for.
    if me.slot % 2:
        await asyncio.sleep(START_S)
    else:
        time.sleep(START_S)  # noqa: ASYNC251
    async with ipc.lifespan(app):
        notes.write("joined", slot=me.slot)
        if me.slot == DYING_SLOT:
            asyncio.get_running_loop().call_later(DIES_AFTER_S, die)
        yield


async def who(request: Request) -> JSONResponse:
    return JSONResponse(me.slot)


app = Starlette(routes=[Route("/who", who)], lifespan=lifespan)
