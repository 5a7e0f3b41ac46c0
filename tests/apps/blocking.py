"""An app with `def` routes, which run in threads and ask all workers."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from fastapi import FastAPI

from asgi_ipc import ipc

app = FastAPI(lifespan=ipc.lifespan)


@ipc.receive("who")
def who(data: object) -> int:
    return os.getpid()


@ipc.receive("slowly")
async def slowly(data: object) -> int:
    os.write(1, b"asked\n")
    await asyncio.sleep(0.7)
    return os.getpid()


@app.get("/")
def everybody() -> dict[str, Any]:
    return {"answers": list(ipc.blocking.gather("who"))}


@app.get("/slow")
def everybody_slowly() -> dict[str, Any]:
    return {"answers": list(ipc.blocking.gather("slowly"))}
