"""The pytest plugin: the fixture `asgi_ipc_serve`.

Law: the only file that imports pytest. It is loaded in every test run of
whoever has this package installed, so it imports nothing else of weight.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from asgi_ipc.testing.serving import START_TIMEOUT_S, Serve, Server, serve


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
            workers: int = 2,
            env: Mapping[str, str] | None = None,
            cwd: str | os.PathLike[str] | None = None,
            timeout: float = START_TIMEOUT_S,
        ) -> Server:
            where = request.config.rootpath if cwd is None else cwd
            serving = serve(app, *options, workers=workers, env=env, cwd=where, timeout=timeout)
            server = stack.enter_context(serving)
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
