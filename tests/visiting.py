"""Visiting: a recipe in a real server, and connections to chosen workers of it.

Law: a connection stays with the worker that has accepted it, and a client can't choose that worker; so
connections are opened until each worker has one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeVar

import httpx
from websockets.asyncio.client import ClientConnection, connect

from tests.serving import DEADLINE_S, Server, serving

Connection = TypeVar("Connection")

# Making one takes longer than a request, and none of these connections uses it.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

# So many connections are opened at once: one at a time, the quickest worker might get all of them.
_AT_ONCE = 6


@asynccontextmanager
async def recipe(name: str, *options: str, workers: int = 3, **env: str) -> AsyncIterator[Server]:
    """Serve a recipe, with all of its workers started, until the block ends; nothing must have gone wrong."""
    options = ("--timeout-keep-alive", "60", *options)
    async with serving(
        "tests.apps.recipe:app", *options, workers=workers, env={"RECIPE": name, **env}
    ) as server:
        await server.started(workers)
        yield server
        assert await server.stop() == 0, server.text
        assert "Traceback" not in server.text


@asynccontextmanager
async def demo(workers: int, *options: str) -> AsyncIterator[Server]:
    """Serve the demo until the block ends; it must then stop with status 0."""
    async with serving("demo:app", *options, workers=workers) as server:
        await server.started(workers)
        yield server
        assert await server.stop() == 0, server.text


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
async def one_each(
    pids: Collection[int], opened: Callable[[], AbstractAsyncContextManager[tuple[int, Connection]]]
) -> AsyncIterator[dict[int, Connection]]:
    """A connection to each of these workers; `opened` gives one, and the pid of its worker."""
    found: dict[int, Connection] = {}

    async def one() -> None:
        async with AsyncExitStack() as own:
            pid, connection = await own.enter_async_context(opened())
            if pid not in found:
                found[pid] = connection
                stack.push_async_exit(own.pop_all())

    async with AsyncExitStack() as stack:
        async with asyncio.timeout(DEADLINE_S):
            while not found.keys() >= set(pids):
                await asyncio.gather(*(one() for _ in range(_AT_ONCE)))
        yield {pid: found[pid] for pid in pids}


def visits(
    server: Server, pids: Collection[int], address: str = "127.0.0.1"
) -> AbstractAsyncContextManager[dict[int, httpx.AsyncClient]]:
    """A connection to each of these workers, from that local address."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[int, httpx.AsyncClient]]:
        async with client(server, address) as new:
            # No recipe has this path.
            yield worker_of(await new.get("/who")), new

    return one_each(pids, opened)


def sockets(
    server: Server, path: str, pids: Collection[int]
) -> AbstractAsyncContextManager[dict[int, ClientConnection]]:
    """A WebSocket to each of these workers."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[int, ClientConnection]]:
        async with connect(f"ws://127.0.0.1:{server.port}{path}") as new:
            assert new.response is not None
            yield int(new.response.headers["x-worker"]), new

    return one_each(pids, opened)
