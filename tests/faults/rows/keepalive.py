"""Kept connections: clients that keep them, some behind a proxy, while workers are replaced.

Law: no request fails of a client that pauses for less than half of the server's keep-alive time, or of a
proxy that closes idle connections sooner than the server. A client that pauses longer races with any HTTP/1.1
server; its requests may fail as often as against uvicorn without a restart.
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.faults.keeping import (
    FULL_LOAD,
    Client,
    Pause,
    Tally,
    by_aiohttp,
    by_httpx,
    by_wrk,
    nginx,
    raw,
)
from tests.faults.trial import NotHereError, Trial, everywhere, row
from tests.serving import Server, eventually, free_port, listens, serving, started

WORKERS: Final = 4
APP: Final = "tests.apps.plain:app"

# `--timeout-keep-alive`: shorter than the 5 s of uvicorn, for more restarts in the same time.
KEPT_S: Final = 2

# The longest pause, a fifth of a second from half of that: clients share two cores with the servers.
SHORT_PAUSE: Final = Pause(0.0, KEPT_S / 2 - 0.2)

# nginx closes an idle connection long before its server does.
NGINX_KEPT_S: Final = KEPT_S / 2

# Around the moment in which the server closes.
LONG_PAUSE: Final = Pause(KEPT_S - 0.1, KEPT_S + 0.1)

# Requests that a full run on uvloop is to see, at least.
LEAST_REQUESTS: Final = 200_000

# uvicorn's lines about a replaced worker, and about a restart that is cut short.
GONE: Final = "Finished server process"
GIVEN_UP: Final = "aborting the restart"

OPTIONS: Final = ("--no-access-log", "--timeout-keep-alive", str(KEPT_S))


@dataclass(frozen=True, slots=True)
class Kind:
    """So many clients of one kind."""

    name: str
    client: Client
    pause: Pause
    count: int

    def __str__(self) -> str:
        return f"{self.name}, {self.count} x, {self.pause}"


Serve = Callable[[Trial], AbstractAsyncContextManager[Server]]


@row(
    fault="kept connections",
    how="SIGHUP under clients that keep their connections (wrk, httpx, aiohttp, bare sockets), at full load "
    "and with pauses, directly and through nginx without retries",
    counts="restarts",
    full=everywhere(20),
    short=1,
)
async def keepalive(trial: Trial) -> None:
    """Run all kinds of clients at once, with so many restarts; then the clients that pause too long."""
    ours, missing = await _restart_under(trial, _ours, Server.restart)
    for what in sorted(missing):
        trial.say("not here", what)
    for kind, tally in ours.items():
        tally.check(trial, f"failed requests, {kind}")
    asked = sum(tally.asked for tally in ours.values())
    trial.say("requests", f"{asked:,} in {trial.count} restarts")
    if not trial.full:
        return
    if trial.count >= 20:
        trial.least("requests", asked, LEAST_REQUESTS)
    theirs, _ = await _restart_under(trial, _uvicorn, _restart_uvicorn)
    for kind, tally in theirs.items():
        trial.say(f"beside it, uvicorn --workers {WORKERS}, {kind}", tally)
    await _too_long(trial)


# --- servers


@asynccontextmanager
async def _ours(trial: Trial) -> AsyncIterator[Server]:
    async with serving(APP, *trial.variant.options, *OPTIONS, workers=WORKERS) as server:
        await server.said(f"All {WORKERS} workers are ready")
        yield server
        trial.ended(await server.stop())
        unclean = server.found("died|drain timeout|not stopped in time|giving the restart up|Traceback")
        trial.none("unclean", unclean)


@asynccontextmanager
async def _uvicorn(trial: Trial) -> AsyncIterator[Server]:
    port = free_port()
    # The loop option; uvicorn does not know the options behind it.
    loop = trial.variant.options[:2]
    command = ["-m", "uvicorn", APP, "--port", str(port), "--workers", str(WORKERS), *loop, *OPTIONS]
    async with started(*command, port=port) as server:
        await server.started(WORKERS)
        await eventually(lambda: listens(port), "somebody listens")
        yield server
        server.signal(signal.SIGTERM)
        await server.ended()


async def _restart_uvicorn(server: Server) -> None:
    """Restart uvicorn; on a busy machine it may give a restart up, since a worker has 5 s to be ready."""
    done = server.count(GONE) + WORKERS, server.count(GIVEN_UP) + 1
    server.signal(signal.SIGHUP)
    await eventually(
        lambda: server.count(GONE) >= done[0] or server.count(GIVEN_UP) >= done[1], "a restart is over"
    )


# --- clients


def _kinds(trial: Trial, *, is_direct: bool) -> Iterator[Kind]:
    """Many that pause, and some at full load: what all cores can do is shared with the servers."""
    wrk = partial(by_wrk, folder=trial.folder)
    many = 200 if trial.full else 40
    yield Kind("bare sockets", raw, SHORT_PAUSE, many)
    yield Kind("bare sockets", raw, FULL_LOAD, 2)
    yield Kind("wrk", wrk, SHORT_PAUSE, 50)
    yield Kind("wrk", wrk, FULL_LOAD, 4)
    if is_direct:
        yield Kind("httpx", by_httpx, SHORT_PAUSE, 20)
        yield Kind("httpx", by_httpx, FULL_LOAD, 1)
        yield Kind("aiohttp", by_aiohttp, SHORT_PAUSE, 20)
        yield Kind("aiohttp", by_aiohttp, FULL_LOAD, 1)


@asynccontextmanager
async def _asking(clients: dict[str, tuple[Kind, int]], missing: set[str]) -> AsyncIterator[dict[str, Tally]]:
    """Have all these clients ask at these ports meanwhile; their results. What is not here is `missing`."""
    done = asyncio.Event()
    tallies = {name: Tally() for name in clients}
    tasks = [
        asyncio.create_task(kind.client(port, kind.pause, kind.count, done, tallies[name]))
        for name, (kind, port) in clients.items()
    ]
    try:
        yield tallies
    finally:
        done.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, NotHereError):
            missing.add(str(result))
        elif result is not None:
            raise result


async def _restart_under(
    trial: Trial, serve: Serve, restart: Callable[[Server], Awaitable[object]]
) -> tuple[dict[str, Tally], set[str]]:
    """Restart so often under all kinds of clients; return the results of each kind, and the missing ones."""
    missing: set[str] = set()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(trial))
        clients = {str(kind): (kind, server.port) for kind in _kinds(trial, is_direct=True)}
        try:
            behind = nginx(server.port, NGINX_KEPT_S, trial.folder / f"nginx-{server.port}")
            port = await stack.enter_async_context(behind)
            clients |= {f"{kind} through nginx": (kind, port) for kind in _kinds(trial, is_direct=False)}
        except NotHereError as reason:
            missing.add(str(reason))
        async with _asking(clients, missing) as tallies:
            for _ in range(trial.count):
                await restart(server)
    return {name: tally for name, tally in tallies.items() if tally.asked}, missing


async def _too_long(trial: Trial) -> None:
    """Run clients that pause too long at both servers during the restarts of ours."""
    kinds = [
        Kind("bare sockets", raw, LONG_PAUSE, 100),
        Kind("httpx", by_httpx, LONG_PAUSE, 30),
        Kind("aiohttp", by_aiohttp, LONG_PAUSE, 30),
    ]
    async with _ours(trial) as ours, _uvicorn(trial) as theirs:
        clients = {
            f"{kind}{whose}": (kind, server.port)
            for kind in kinds
            for whose, server in (("", ours), (", uvicorn", theirs))
        }
        async with _asking(clients, set()) as tallies:
            for _ in range(trial.count):
                await ours.restart()
    for kind in kinds:
        tally, other = tallies[str(kind)], tallies[f"{kind}, uvicorn"]
        if tally.asked:
            # Both race, so the counts have the spread of counts: three times its square root.
            most = other.share * tally.asked + 3 * math.sqrt(max(len(other.failed), 1))
            trial.check(
                f"failed requests, {kind}, no more than against uvicorn without a restart",
                f"{tally}; uvicorn {other}",
                len(tally.failed) <= most,
            )
