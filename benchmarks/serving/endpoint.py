"""A small endpoint, and the word that a worker is ready.

Law: nothing that plain uvicorn's workers would not need either.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

# A folder in which each worker leaves a file with its pid as the name and the time of the system-wide
# monotonic clock, in ns, at which its start-up was done.
READY_VARIABLE: Final = "ASGI_IPC_BENCHMARK_READY"


async def hello(request: Request) -> PlainTextResponse:
    """GET: a few bytes."""
    return PlainTextResponse("hello")


@asynccontextmanager
async def ready(app: object) -> AsyncIterator[None]:
    """The innermost lifespan: behind it the worker serves."""
    folder, name = Path(os.environ[READY_VARIABLE]), str(os.getpid())
    part = folder / f".{name}"
    part.write_text(str(time.monotonic_ns()))
    part.rename(folder / name)
    yield


routes: Final = [Route("/", hello)]
