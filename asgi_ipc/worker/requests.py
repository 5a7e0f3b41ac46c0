"""Requests: an ASGI layer around the app that knows which requests are open.

Law: it stands on the way of every request, so it does next to nothing there. It
knows no protocol of uvicorn's; what it says to a client it says in the app's
own response.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any, Final, NamedTuple, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[Any]]

Task: TypeAlias = "asyncio.Task[Any] | None"

# The client shall not ask again on this connection (RFC 9112, 9.6). HTTP/2 has no such header, and
# uvicorn takes it away there.
_CLOSE: Final = (b"connection", b"close")


class Request(NamedTuple):
    """One open request, or one WebSocket.

    Attributes:
        task: runs the app for it.
        scope: what ASGI says of it.
        began: when, on the machine's monotonic clock.
    """

    task: Task
    scope: Scope
    began: float

    def __str__(self) -> str:
        kind = "WebSocket" if self.scope["type"] == "websocket" else self.scope["method"]
        return f"{kind} {self.scope['path']}"


class Requests:
    """The app, and its open requests.

    Attributes:
        closing: whether each response that starts from now on ends its connection, and says so.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        # By the task that runs the app for it: a tuple costs a third of an object with names.
        self._open: dict[Task, tuple[Scope, float]] = {}
        self.closing = False

    @property
    def open(self) -> list[Request]:
        """Those that the app has not returned from, the oldest first."""
        return [Request(task, *about) for task, about in self._open.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """As the app."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)

        # No coroutine of its own: what the app awaits is uvicorn's.
        def send_or_close(message: Message) -> Awaitable[None]:
            if self.closing and message["type"] == "http.response.start":
                message = _closing(message)
            return send(message)

        task = current_task()
        self._open[task] = scope, monotonic()
        try:
            return await self._app(scope, receive, send_or_close)
        finally:
            del self._open[task]


def _closing(message: Message) -> Message:
    kept = [each for each in message.get("headers", ()) if bytes(each[0]).lower() != b"connection"]
    return {**message, "headers": [*kept, _CLOSE]}
