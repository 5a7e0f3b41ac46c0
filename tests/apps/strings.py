"""Strings: a test pulls one, and one worker obeys.

Law: one Unix socket for each worker, named after its pid. Every command is one line in, one line out, in
Python literals; an error comes back as its name. The app defines the commands.
"""

from __future__ import annotations

import ast
import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

Commands: TypeAlias = MutableMapping[str, Callable[..., Awaitable[Any]]]


def by_name(*commands: Callable[..., Awaitable[Any]]) -> Commands:
    return {command.__name__: command for command in commands}


# A test may give a worker the largest message to send.
MAX_LINE_BYTES: Final = 64 * 1024 * 1024


@asynccontextmanager
async def obeying(folder: Path, commands: Commands) -> AsyncIterator[None]:
    """Carry out the commands that come through this worker's socket in `folder`."""

    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            command, arguments, options = ast.literal_eval(line.decode())
            try:
                answer = ("ok", await commands[command](*arguments, **options))
            except Exception as error:
                answer = (type(error).__name__, str(error))
            writer.write(repr(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(obey, folder / f"{os.getpid()}.sock", limit=MAX_LINE_BYTES)
    yield
    server.close()
