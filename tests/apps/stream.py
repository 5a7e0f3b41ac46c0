"""An app with a response that does not end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from asgi_ipc import ipc


async def stream(request: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        while True:
            yield f"{os.getpid()}\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(lines())


app = Starlette(routes=[Route("/stream", stream)], lifespan=ipc.lifespan)
