"""The pytest plugin: the fixture `asgi_ipc_serve`.

Law: the only file that imports pytest. It is loaded in every test run of
whoever has this package installed, so it imports nothing else of weight.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from asgi_ipc.testing.serving import Serve, Server, serve


@pytest.fixture
def asgi_ipc_serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Start a real `asgi-ipc serve`: `server = asgi_ipc_serve("myapp:app", workers=2)`.

    See `asgi_ipc.testing.serve` for the arguments, and `Server` for what it gives. At the end of the test
    every server is stopped, and what it has said is printed, so that pytest shows it if the test has failed.
    """
    servers: list[Server] = []

    with ExitStack() as stack:

        def start(
            app: str,
            *options: str,
            cwd: str | os.PathLike[str] | None = None,
            **named: Any,
        ) -> Server:
            where = request.config.rootpath if cwd is None else cwd
            server = stack.enter_context(serve(app, *options, cwd=where, **named))
            servers.append(server)
            return server

        try:
            yield start
        finally:
            try:
                stack.close()
            finally:
                for server in servers:
                    print(f"--- {server.url}: the output of asgi-ipc serve\n{server.output}")  # noqa: T201
