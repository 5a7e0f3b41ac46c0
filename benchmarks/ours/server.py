"""The server under measurement: started as a user starts it, stopped as systemd stops it.

Law: what is measured is `asgi-ipc serve`, in processes of its own. A server
that does not stop with status 0, or that logs a warning, is a failure. Every
wait has an end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks.control import SOCKET_VARIABLE
from benchmarks.judgement import BenchmarkError

ROOT: Final = Path(__file__).parents[2]

STOP_TIMEOUT_S: Final = 30.0


@asynccontextmanager
async def serving(loop: str, workers: int, socket_path: str) -> AsyncIterator[None]:
    """`asgi-ipc serve` with so many workers on that event loop; they find the conductor by themselves."""
    command = [sys.executable, "-m", "asgi_ipc.cli", "serve", "benchmarks.ours.app:app"]
    command += ["--workers", str(workers), "--port", "0", "--loop", loop]
    command += ["--no-access-log", "--log-level", "warning"]
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, SOCKET_VARIABLE: socket_path},
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
        # Its workers see the end of their lifelines, and end, too.
        process.kill()
        await process.wait()
        raise BenchmarkError(f"the server did not stop within {STOP_TIMEOUT_S:g} s") from None
