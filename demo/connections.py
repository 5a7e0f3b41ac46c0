"""The connections: every request has one of its own.

Law: this file only sets the header. A browser keeps connections open and sends the next request through them
to the same worker, even if that worker stands still. A healthy worker accepts a new connection.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class OneRequestEach:
    """ASGI middleware: close the connection of an HTTP request after its response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, closing)
