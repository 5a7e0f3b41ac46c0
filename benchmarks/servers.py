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
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks.judgement import BenchmarkError

ROOT: Final = Path(__file__).parents[1]
HOST: Final = "127.0.0.1"

STOP_TIMEOUT_S: Final = 30.0

OURS: Final = ("asgi_ipc.cli", "serve")
UVICORN: Final = ("uvicorn",)


@asynccontextmanager
async def serving(
    command: tuple[str, ...], app: str, loop: str, workers: int, port: int, environment: Mapping[str, str]
) -> AsyncIterator[None]:
    """A server of that app, with so many workers on that event loop, from its start to its end."""
    options = ["--workers", str(workers), "--host", HOST, "--port", str(port), "--loop", loop]
    options += ["--no-access-log", "--log-level", "warning"]
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *command,
            app,
            *options,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
        )
        try:
            yield
            status = await _stop(process)
        finally:
            if process.returncode is None:
                await _stop(process)
            log.seek(0)
            said = log.read().decode(errors="replace")
            if said:
                print(said, file=sys.stderr, end="")
        if status != 0:
            raise BenchmarkError(f"the server stopped with status {status}, not 0")
        if said:
            raise BenchmarkError("the server logged warnings, see above")


async def _stop(process: asyncio.subprocess.Process) -> int:
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            return await process.wait()
    except TimeoutError:
        # Our workers see the end of their lifelines, and end, too.
        process.kill()
        await process.wait()
        raise BenchmarkError(f"the server did not stop within {STOP_TIMEOUT_S:g} s") from None


def free_port() -> int:
    """One that nobody has just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
