"""An app that is imported but can't start."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from asgi_ipc import ipc


@asynccontextmanager
async def lifespan(app: Starlette | None) -> AsyncIterator[None]:
    async with ipc.lifespan(app):
        if app is not None:
            raise RuntimeError(os.environ.get("BROKEN_BECAUSE", "broken on purpose while starting"))
        yield


app = Starlette(lifespan=lifespan)
