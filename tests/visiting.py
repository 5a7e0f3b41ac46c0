"""Visiting: a recipe in a real server, and connections to chosen workers of it.

Law: a connection stays with the worker that has accepted it, and a client can't choose that worker; so
connections are opened until each worker has one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from websockets.asyncio.client import ClientConnection, connect

from tests.serving import DEADLINE_S, Server, serving

# Making one takes longer than a request, and none of these connections uses it.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

# So many connections are opened at once: one at a time, the quickest worker might get all of them.
_AT_ONCE = 6


@asynccontextmanager
async def recipe(name: str, *options: str, workers: int = 3, **env: str) -> AsyncIterator[Server]:
    """Serve a recipe, with all of its workers started."""
    options = ("--timeout-keep-alive", "60", *options)
    async with serving(
        "tests.apps.recipe:app", *options, workers=workers, env={"RECIPE": name, **env}
    ) as server:
        await server.started(workers)
        yield server


def client(server: Server, address: str = "127.0.0.1") -> httpx.AsyncClient:
    """One connection, from that local address."""
    transport = httpx.AsyncHTTPTransport(
        verify=_NO_TLS, limits=httpx.Limits(max_connections=1), local_address=address
    )
    return httpx.AsyncClient(
        transport=transport, base_url=f"http://127.0.0.1:{server.port}", timeout=DEADLINE_S
    )


def worker_of(response: httpx.Response) -> int:
    """The pid of the worker that gave this answer."""
    return int(response.headers["x-worker"])


@asynccontextmanager
async def visits(
    server: Server, pids: Collection[int], address: str = "127.0.0.1"
) -> AsyncIterator[dict[int, httpx.AsyncClient]]:
    """A connection to each of these workers, from that local address."""
    found: dict[int, httpx.AsyncClient] = {}
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(DEADLINE_S):
            while not found.keys() >= set(pids):
                new = [await stack.enter_async_context(client(server, address)) for _ in range(_AT_ONCE)]
                # No recipe has this path.
                answers = await asyncio.gather(*(each.get("/who") for each in new))
                found |= {worker_of(answer): each for answer, each in zip(answers, new, strict=True)}
        yield {pid: found[pid] for pid in pids}


@asynccontextmanager
async def sockets(
    server: Server, path: str, pids: Collection[int]
) -> AsyncIterator[dict[int, ClientConnection]]:
    """A WebSocket to each of these workers."""
    found: dict[int, ClientConnection] = {}
    address = f"ws://127.0.0.1:{server.port}{path}"
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(DEADLINE_S):
            while not found.keys() >= set(pids):
                opening = (stack.enter_async_context(connect(address)) for _ in range(_AT_ONCE))
                for each in await asyncio.gather(*opening):
                    assert each.response is not None
                    pid = int(each.response.headers["x-worker"])
                    if pid in found:
                        await each.close()
                    else:
                        found[pid] = each
        yield {pid: found[pid] for pid in pids}
