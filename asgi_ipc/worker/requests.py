"""Requests: an ASGI layer around the app that knows which requests are open.

Law: it stands on the way of every request, so it does next to nothing there. It
knows no protocol of uvicorn's; what it says to a client it says in the app's
own response.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[Any]]

# The client shall not ask again on this connection (RFC 9112, 9.6). HTTP/2 has no such header, and
# uvicorn takes it away there.
_CLOSE: Final = (b"connection", b"close")


class Request:
    """One open request, or one WebSocket.

    Attributes:
        scope: what ASGI says of it.
        began: when, on the machine's monotonic clock.
        task: runs the app for it.
    """

    __slots__ = ("_all", "_send", "began", "scope", "task")

    def __init__(self, requests: Requests, scope: Scope, send: Send) -> None:
        self._all = requests
        self._send = send
        self.scope = scope
        self.began = time.monotonic()
        self.task = asyncio.current_task()

    def send(self, message: Message) -> Awaitable[None]:
        """The app's `send`: no coroutine of its own, the awaitable is uvicorn's."""
        if self._all.closing and message["type"] == "http.response.start":
            kept = [each for each in message.get("headers", ()) if bytes(each[0]).lower() != b"connection"]
            message = {**message, "headers": [*kept, _CLOSE]}
        return self._send(message)

    def __str__(self) -> str:
        kind = "WebSocket" if self.scope["type"] == "websocket" else self.scope["method"]
        return f"{kind} {self.scope['path']}"


class Requests:
    """The app, and its open requests.

    Attributes:
        open: those that the app has not returned from.
        closing: whether each response that starts from now on ends its connection, and says so.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self.open: set[Request] = set()
        self.closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """As the app."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        request = Request(self, scope, send)
        self.open.add(request)
        try:
            return await self._app(scope, receive, request.send)
        finally:
            self.open.discard(request)
