"""The servers that are compared, each from ready to stopped.

Law: the same options for all. A server is ready when every worker has reported the end of its start-up; no
request reaches the workers meanwhile.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.judgement import NS_PER_S, BenchmarkError
from benchmarks.servers import OURS, UVICORN, Build, free_port, serving
from benchmarks.serving.endpoint import READY_VARIABLE

START_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to serve the endpoint."""

    name: str
    build: Build
    command: tuple[str, ...]
    app: str


def plain(build: Build) -> Kind:
    """uvicorn alone, on that build's interpreter."""
    return Kind("uvicorn", build, UVICORN, "benchmarks.serving.plain:app")


def with_ipc(build: Build) -> Kind:
    """That build, with uvicorn in it."""
    return Kind(build.subject, build, OURS, "benchmarks.serving.with_ipc:app")


@dataclass(frozen=True, slots=True)
class Running:
    """A server whose workers are all ready.

    Attributes:
        pids: of the workers.
        ready_s: from the command's start to the last worker's word.
    """

    port: int
    pids: list[int]
    ready_s: float


@asynccontextmanager
async def running(kind: Kind, loop: str, workers: int) -> AsyncIterator[Running]:
    """A server of that kind."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        started_ns = time.monotonic_ns()
        environment = {READY_VARIABLE: folder}
        async with serving(kind.build, kind.command, kind.app, loop, workers, port, environment):
            words = await _all_ready(Path(folder), workers, kind)
            yield Running(port, sorted(words), (max(words.values()) - started_ns) / NS_PER_S)


def _words(folder: Path) -> dict[int, int]:
    return {int(file.name): int(file.read_text()) for file in folder.iterdir() if file.name.isdigit()}


async def _all_ready(folder: Path, workers: int, kind: Kind) -> dict[int, int]:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                if len(words := _words(folder)) == workers:
                    return words
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise BenchmarkError(
            f"{kind.name}: {workers} workers were not ready after {START_TIMEOUT_S:g} s"
        ) from None
