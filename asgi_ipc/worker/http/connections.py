"""Connections: uvicorn's, of every kind, and the requests that are open on them.

Law: what there is to know of the insides of uvicorn's protocols is known here
and nowhere else. A request costs nothing here while its worker serves; only
once a second it is seen which are open.

A WebSocket is of the class that is configured; an HTTP/1 connection has a
`cycle`, the request that came last, and HTTP/2 `cycles`, those that are open.
What has neither has said nothing yet.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from time import monotonic
from typing import Any, Final, NamedTuple, TypeAlias

import uvicorn
from uvicorn.server import ServerState

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

Task: TypeAlias = "asyncio.Task[None]"

# The client shall not ask again on this connection (RFC 9112, 9.6).
_CLOSE: Final = (b"connection", b"close")

# GOAWAY with the highest number: no new streams, and all that have come are answered (RFC 9113, 6.8).
_LAST_STREAM: Final = 2**31 - 1


class Request(NamedTuple):
    """One open request, or one WebSocket, whether its client is still there or not.

    Attributes:
        task: runs the app for it.
        since: when it was first seen, on the machine's monotonic clock; at most a second after it came.
    """

    task: Task
    since: float

    def __str__(self) -> str:
        # uvicorn's task runs a method of what has the scope, whichever protocol it is.
        coroutine = self.task.get_coro()
        known = inspect.getcoroutinelocals(coroutine) if inspect.iscoroutine(coroutine) else {}
        scope = getattr(known.get("self"), "scope", None)
        if not scope:
            return "a request"
        kind = "WebSocket" if scope["type"] == "websocket" else scope["method"]
        return f"{kind} {scope['path']}"


class Connections:
    """The connections of one server."""

    def __init__(self, config: uvicorn.Config, state: ServerState) -> None:
        self._config = config
        self._state = state
        self._since: dict[Task, float] = {}
        # The app for connections that are to end, and those that know.
        self._closing_app: Any = None
        self._closing: set[Any] = set()

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._state.connections))

    def __len__(self) -> int:
        return len(self._state.connections)

    # --- open requests

    def look(self) -> None:
        """See which requests are open now."""
        tasks, now = self._state.tasks, monotonic()
        # In the order in which they were seen.
        self._since = {task: since for task, since in self._since.items() if task in tasks}
        for task in tasks:
            self._since.setdefault(task, now)

    @property
    def requests(self) -> list[Request]:
        """Those that were open at the last look, the oldest first."""
        return [Request(*each) for each in self._since.items()]

    # --- kinds

    def is_websocket(self, connection: Any) -> bool:
        """Whether it is one, or about to become one."""
        kind = self._config.ws_protocol_class
        return kind is not None and isinstance(connection, kind)

    def is_http2(self, connection: Any) -> bool:
        """Whether it has many streams."""
        return hasattr(connection, "cycles")

    def is_silent(self, connection: Any) -> bool:
        """Whether it has had no request yet."""
        has_asked = getattr(connection, "cycle", None) is not None or self.is_http2(connection)
        return not has_asked and not self.is_websocket(connection)

    def is_idle(self, connection: Any) -> bool:
        """Of HTTP/1 and HTTP/2: whether no request is open on it."""
        if self.is_http2(connection):
            return not connection.cycles
        return self.is_silent(connection) or bool(connection.cycle.response_complete)

    # --- the end

    def close_after_responses(self) -> None:
        """Let each response that starts from now on say that its connection ends with it, and end it.

        To be called again for connections that have become such since. It is not done by uvicorn's default
        headers for all, which stand in the handshakes of WebSockets, too.
        """
        if self._closing_app is None:
            self._closing_app = self._config.loaded_app = _closing(self._config.loaded_app)
        for connection in self:
            if connection not in self._closing:
                self._closing.add(connection)
                self._close_after_response(connection)

    def _close_after_response(self, connection: Any) -> None:
        if self.is_websocket(connection):
            return
        if self.is_http2(connection):
            connection.conn.close(0, _LAST_STREAM)
            connection.flush()
        elif hasattr(connection, "app"):
            connection.app = self._closing_app
            if not self.is_idle(connection) and not connection.cycle.response_started:
                connection.cycle.default_headers = [*connection.cycle.default_headers, _CLOSE]

    def forget(self, connection: Any) -> None:
        """It has been told to end and needs no more attention; uvicorn would tell it again."""
        self._state.connections.discard(connection)


def _closing(app: Any) -> Any:
    """An ASGI app whose HTTP responses say so. HTTP/2 has no such header, and uvicorn takes it away there."""

    async def closing(scope: MutableMapping[str, Any], receive: Any, send: Send) -> Any:
        async def send_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [each for each in message.get("headers", ()) if each[0].lower() != _CLOSE[0]]
                message = {**message, "headers": [*kept, _CLOSE]}
            await send(message)

        return await app(scope, receive, send_close)

    return closing
