"""The demo's app, asked in this process: a fleet of one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from asgi_ipc import ipc
from demo import app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        ipc.lifespan(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
    ):
        yield client
