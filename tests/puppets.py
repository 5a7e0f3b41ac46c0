"""Puppets: a test's end of `tests/apps/puppet.py`.

Law: one worker, one socket; an error in the worker comes back as its name.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.serving import DEADLINE_S, Server, serving


class RefusedError(Exception):
    """The worker's command raised; `name` is the class of its error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


class Puppets:
    """The workers of one server, each addressed by its pid."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self._folder = folder

    async def call(self, pid: int, command: str, *arguments: Any, **options: Any) -> Any:
        """Make the worker `pid` carry out a command; return its result. Raises RefusedError."""
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_unix_connection(
                self._folder / f"{pid}.sock", limit=64 * 1024 * 1024
            )
            try:
                writer.write(repr((command, arguments, options)).encode() + b"\n")
                answer = await reader.readline()
            finally:
                writer.close()
        if not answer:
            raise ConnectionError(f"worker {pid} has gone")
        status, value = ast.literal_eval(answer.decode())
        if status != "ok":
            raise RefusedError(status, value)
        return value

    async def all(self, pids: Iterable[int], command: str, *arguments: Any) -> list[Any]:
        """Have all of these do something at once; what each returns."""
        return await asyncio.gather(*[self.call(pid, command, *arguments) for pid in pids])


@asynccontextmanager
async def puppets(
    folder: Path,
    *options: str,
    workers: int = 2,
    env: Mapping[str, str] | None = None,
    app: str = "tests.apps.puppet:app",
) -> AsyncIterator[tuple[Puppets, list[int]]]:
    """A started server of puppets, and their pids in the order of their slots."""
    env = {"PUPPET_FOLDER": str(folder), **(env or {})}
    async with serving(app, *options, workers=workers, env=env) as server:
        pids = await server.started(workers)
        strings = Puppets(server, folder)
        everyone = await strings.call(pids[0], "members", workers)
        yield strings, [pid for pid, _, _ in everyone]
