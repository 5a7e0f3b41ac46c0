"""An app that is imported but can't start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from asgi_ipc import ipc


@asynccontextmanager
async def lifespan(app: Starlette | None) -> AsyncIterator[None]:
    async with ipc.lifespan(app):
        if app is not None:
            raise RuntimeError("broken on purpose while starting")
        yield


app = Starlette(lifespan=lifespan)
