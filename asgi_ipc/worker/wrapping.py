"""Wrapping: an ASGI app that enters the lifespan for the app inside it.

Law: the ASGI specification's words, and no framework's. The app's events pass
through unchanged; an app without a lifespan is spoken for.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, TypeAlias

from asgi_ipc.logs import logger

Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]

# As uvicorn's --lifespan: the app's own lifespan may be missing, must be there, or is not run.
Mode: TypeAlias = Literal["auto", "on", "off"]


class Wrapped:
    """An ASGI app that calls `app`, inside of `lifespan`; see `IPC.wrap`."""

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        lifespan: Callable[[object], AbstractAsyncContextManager[None]],
        mode: Mode = "auto",
    ) -> None:
        if not callable(app):
            raise TypeError(f"an ASGI app can be called, and {type(app).__name__} can't")
        self.app = app
        self._lifespan = lifespan
        self._mode = mode

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan."""
        if scope["type"] == "lifespan":
            await _Life(self._lifespan(self), receive, send).run(self.app, scope, self._mode)
        else:
            await self.app(scope, receive, send)


class _Life:
    """One lifespan: passes events between the server and the app."""

    def __init__(self, membership: AbstractAsyncContextManager[None], receive: Receive, send: Send) -> None:
        self._membership = membership
        self._receive = receive
        self._send = send
        self._is_member = False
        # The server's events so far.
        self._told_to_start = self._told_to_stop = False
        # The app's events so far: startup complete, startup failed, or one that is not of a lifespan.
        self._is_complete = self._has_failed = self._is_confused = False

    async def run(self, app: Callable[..., Awaitable[None]], scope: Event, mode: Mode) -> None:
        """Run the app's lifespan, and complete what is missing of it."""
        try:
            if mode != "off":
                await self._run_app(app, scope, mode)
            if self._has_failed:
                return
            if not self._is_complete:
                while not self._told_to_start:
                    await self._receive_for_app()
                await self._send_for_app({"type": "lifespan.startup.complete"})
            if not self._told_to_stop:
                while (await self._receive_for_app())["type"] != "lifespan.shutdown":
                    pass
                await self._send({"type": "lifespan.shutdown.complete"})
        finally:
            await self._leave()

    async def _run_app(self, app: Callable[..., Awaitable[None]], scope: Event, mode: Mode) -> None:
        """Run the app's part until it ends; return if the rest has to be done for it."""
        try:
            await app(scope, self._receive_for_app, self._send_for_app)
        except Exception:
            if self._is_member:
                # uvicorn serves on, and logs nothing.
                logger.exception("the app's lifespan has ended before the server")
            elif self._is_complete or self._has_failed or mode == "on":
                raise
            elif self._told_to_start and not self._is_confused:
                # The app knows lifespans, so its startup failed.
                await self._fail()
                raise

    async def _receive_for_app(self) -> Event:
        event = await self._receive()
        if event["type"] == "lifespan.startup":
            self._told_to_start = True
        elif event["type"] == "lifespan.shutdown":
            self._told_to_stop = True
            # Left before the app's own shutdown: the last handlers still find what the app set up.
            await self._leave()
        return event

    async def _send_for_app(self, event: Event) -> None:
        kind = event["type"]
        if not kind.startswith("lifespan."):
            self._is_confused = True
            raise RuntimeError(f"{kind!r} is no answer to a lifespan event")
        if kind == "lifespan.startup.complete":
            try:
                await self._membership.__aenter__()
            except Exception:
                await self._fail()
                raise
            self._is_member = self._is_complete = True
        elif kind == "lifespan.startup.failed":
            if self._has_failed:
                return
            self._has_failed = True
        await self._send(event)

    async def _fail(self) -> None:
        """Tell the server that the startup failed, with the traceback of the current exception."""
        self._has_failed = True
        await self._send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})

    async def _leave(self) -> None:
        if self._is_member:
            self._is_member = False
            await self._membership.__aexit__(None, None, None)
