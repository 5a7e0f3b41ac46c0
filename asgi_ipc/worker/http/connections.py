"""Connections: uvicorn's connections of every kind, and the requests that are open on them.

Law: the only file that knows the insides of uvicorn's protocols. A request
costs nothing while its worker serves: the open ones are looked up once a
second.

A WebSocket is of the configured class. An HTTP/1 connection has a `cycle`, its
last request; an HTTP/2 connection has `cycles`, the open ones. A connection
with neither has had no request yet.
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

# Tells the client to send no other request on this connection (RFC 9112, 9.6).
_CLOSE: Final = (b"connection", b"close")

# GOAWAY with the highest number: no new streams; the server answers the streams that came (RFC 9113, 6.8).
_LAST_STREAM: Final = 2**31 - 1


class Request(NamedTuple):
    """One open request or WebSocket; its client may be gone.

    Attributes:
        task: runs the app for it.
        since: when it was first seen, on the machine's monotonic clock; at most a second after it came.
    """

    task: Task
    since: float

    def __str__(self) -> str:
        # With every protocol, uvicorn's task runs a method of the object that has the scope.
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
        # The app for connections that are to end, and the connections that have it.
        self._closing_app: Any = None
        self._closing: set[Any] = set()

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._state.connections))

    def __len__(self) -> int:
        return len(self._state.connections)

    # --- open requests

    def look(self) -> None:
        """Look up which requests are open now."""
        tasks, now = self._state.tasks, monotonic()
        # Kept in the order in which they were first seen.
        self._since = {task: since for task, since in self._since.items() if task in tasks}
        for task in tasks:
            self._since.setdefault(task, now)

    @property
    def requests(self) -> list[Request]:
        """The requests that were open at the last look, the oldest first."""
        return [Request(*each) for each in self._since.items()]

    # --- kinds

    def is_websocket(self, connection: Any) -> bool:
        """Return whether it is a WebSocket, or is about to become one."""
        kind = self._config.ws_protocol_class
        return kind is not None and isinstance(connection, kind)

    def is_http2(self, connection: Any) -> bool:
        """Return whether it speaks HTTP/2."""
        return hasattr(connection, "cycles")

    def is_silent(self, connection: Any) -> bool:
        """Return whether it has had no request yet."""
        has_asked = getattr(connection, "cycle", None) is not None or self.is_http2(connection)
        return not has_asked and not self.is_websocket(connection)

    def is_idle(self, connection: Any) -> bool:
        """Return whether no request is open on this HTTP connection."""
        if self.is_http2(connection):
            return not connection.cycles
        return self.is_silent(connection) or bool(connection.cycle.response_complete)

    # --- the end

    def close_after_responses(self) -> None:
        """Let each response that starts from now on say `Connection: close`, and close its connection.

        Call it again for connections that came since. uvicorn's default headers are no way to do this: they
        stand in the handshakes of WebSockets, too.
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
        """Hide a connection from uvicorn, which would tell it a second time to end."""
        self._state.connections.discard(connection)


def _closing(app: Any) -> Any:
    """Wrap an app to add `Connection: close` to its responses. uvicorn removes it from HTTP/2's."""

    async def closing(scope: MutableMapping[str, Any], receive: Any, send: Send) -> Any:
        async def send_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [each for each in message.get("headers", ()) if each[0].lower() != _CLOSE[0]]
                message = {**message, "headers": [*kept, _CLOSE]}
            await send(message)

        return await app(scope, receive, send_close)

    return closing
