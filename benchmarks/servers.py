"""Servers: started as a user starts them, stopped as systemd stops them.

Law: what is measured runs in processes of its own. A server that does not
stop with status 0, or that logs a warning, is a failure. Every wait has an
end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asgi_ipc.testing.child import Child
from benchmarks.judgement import BenchmarkError

ROOT: Final = Path(__file__).parents[1]
HOST: Final = "127.0.0.1"

STOP_TIMEOUT_S: Final = 30.0

OURS: Final = ("asgi_ipc.cli", "serve")
UVICORN: Final = ("uvicorn",)


@dataclass(frozen=True, slots=True)
class Build:
    """One build of this package.

    Attributes:
        subject: its name in the tables.
        python: the interpreter.
        folder: where its servers start: `benchmarks`, and the package unless the interpreter has it.
        engine: "native", "pure", or "" for a build that does not say.
    """

    subject: str
    python: str
    folder: Path
    engine: str = ""


@asynccontextmanager
async def serving(
    build: Build,
    command: tuple[str, ...],
    app: str,
    loop: str,
    workers: int,
    port: int,
    environment: Mapping[str, str],
) -> AsyncIterator[None]:
    """A server of that app, with so many workers on that event loop, from its start to its end."""
    options = ["--workers", str(workers), "--host", HOST, "--port", str(port), "--loop", loop]
    options += ["--no-access-log", "--log-level", "warning"]
    child = Child(
        [build.python, "-m", *command, app, *options], env={**os.environ, **environment}, cwd=build.folder
    )
    try:
        yield
        status = await stop(child)
    finally:
        child.close()
        if child.output:
            print(child.output, file=sys.stderr, end="")
    if status != 0:
        raise BenchmarkError(f"the server stopped with status {status}, not 0")
    if child.output:
        raise BenchmarkError("the server logged warnings, see above")


async def stop(child: Child) -> int:
    """SIGTERM; the exit status."""
    child.signal(signal.SIGTERM)
    try:
        return await asyncio.to_thread(child.wait, STOP_TIMEOUT_S)
    except TimeoutError:
        raise BenchmarkError(f"the server did not stop within {STOP_TIMEOUT_S:g} s") from None


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
