"""Services: the servers that some peers need, each started for one fleet.

Law: on a Unix socket or the loopback interface, in a folder that goes with
it, ended by pid. Limits that would drop messages of a quick sender are off,
or it would not be a peer at its best.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asgi_ipc.testing.child import LOOK_S, Child
from benchmarks.judgement import BenchmarkError
from benchmarks.peers import program
from benchmarks.servers import HOST, free_port, stop

START_TIMEOUT_S: Final = 10.0

NATS_CONFIGURATION: Final = """\
listen: "{host}:{port}"
max_pending: 2GB
write_deadline: "60s"
"""


@dataclass(frozen=True, slots=True)
class Place:
    """The address of a server."""

    path: str
    port: int


@asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[Place]:
    """redis-server that stores nothing."""
    place = Place(str(folder / "redis"), free_port())
    options = ["--port", str(place.port), "--bind", HOST, "--unixsocket", place.path, "--dir", str(folder)]
    options += ["--save", "", "--appendonly", "no", "--client-output-buffer-limit", "pubsub 0 0 0"]
    async with _running("redis-server", options, place.port):
        yield place


@asynccontextmanager
async def nats(folder: Path) -> AsyncIterator[Place]:
    """nats-server; it has no Unix sockets."""
    place = Place("", free_port())
    configuration = folder / "nats.conf"
    configuration.write_text(NATS_CONFIGURATION.format(host=HOST, port=place.port))
    async with _running("nats-server", ["--config", str(configuration)], place.port):
        yield place


@asynccontextmanager
async def _running(name: str, options: list[str], port: int) -> AsyncIterator[None]:
    path = program(name)
    assert path is not None
    server = Child([path, *options], env=os.environ, cwd=Path.cwd())
    try:
        await _listening(server, name, port)
        yield
        if server.status is not None:
            raise BenchmarkError(f"{name} ended with status {server.status}")
        await stop(server)
    finally:
        server.close()


async def _listening(server: Child, name: str, port: int) -> None:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while server.status is None:
                try:
                    _, writer = await asyncio.open_connection(HOST, port)
                except ConnectionRefusedError:
                    await asyncio.sleep(LOOK_S)
                else:
                    writer.close()
                    return
    except TimeoutError:
        raise BenchmarkError(f"{name} does not listen after {START_TIMEOUT_S:g} s") from None
    raise BenchmarkError(f"{name} ended with status {server.status}: {server.output.strip()}")
