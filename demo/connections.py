"""The connections: every request has one of its own.

Law: nothing but the header that says so. A browser keeps connections open and sends what comes next through
them, so to the same worker again, even if that one stands still by then: it has accepted them already. A new
one is accepted by a worker that is well.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class OneRequestEach:
    """ASGI middleware: the connection of an HTTP request is closed behind its response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, closing)
