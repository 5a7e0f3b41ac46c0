"""The assignment: what the launcher gave this process, until a lifespan takes it.

Law: one per worker process, made by `worker/main.py` before the app is imported; `current` is None in a
process that no launcher started.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Final

from asgi_ipc.errors import LifespanError, SecondIPCError, WrongLoopError
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.fleet.words import Beat
from asgi_ipc.logs import server_logger as logger
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.dispatch.registry import Registry
from asgi_ipc.worker.endpoint import Endpoint
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.runtime.heartbeat import Heartbeat

# An app whose shutdown is complete leaves `ipc.lifespan` in the next turns of the loop, or never.
RETURN_GRACE_S: Final = 0.5


class Assignment:
    """This process's lifeline, pipe, arena and name, and the endpoint that takes them.

    Attributes:
        endpoint: None until an `ipc.lifespan` is entered in this process.
    """

    def __init__(
        self,
        lifeline: Lifeline,
        pipe: Descriptor,
        arena: Descriptor,
        me: Worker,
        settings: Settings,
        on_beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.lifeline = lifeline
        self._on_beat = on_beat
        self.me = me
        self.settings = settings
        self._pipe = pipe
        self._arena = arena
        self.endpoint: Endpoint | None = None
        self._owner: object = None
        self._leave: Callable[[Endpoint], Awaitable[None]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heartbeat: Heartbeat | None = None

    def attach(self, on_stop: Callable[[], None]) -> None:
        """Listen to the launcher on the running loop, and beat. `on_stop`: it says stop, or has gone."""

        def stop() -> None:
            on_stop()
            self.stop_streams()

        self._loop = asyncio.get_running_loop()
        self.lifeline.attach(stop)
        self._heartbeat = Heartbeat(self._beat, period_s=self.settings.beat_s)

    def open(
        self, registry: Registry, owner: object, leave: Callable[[Endpoint], Awaitable[None]]
    ) -> Endpoint:
        """The endpoint of this process, which has one life. `leave` ends it."""
        if self._loop is not asyncio.get_running_loop():
            raise WrongLoopError("ipc.lifespan is entered on another event loop than the server's")
        if self.endpoint is not None and owner is not self._owner:
            raise SecondIPCError
        if self.endpoint is not None:
            raise LifespanError(
                "this worker process has left the fleet: ipc.lifespan was entered and has ended; "
                "a process joins once"
            )
        self._owner, self._leave = owner, leave
        self.endpoint = Endpoint(
            self.me,
            self.settings,
            registry,
            owner,
            self.lifeline,
            self._pipe,
            self._arena,
            self._heartbeat,
        )
        return self.endpoint

    async def left(self) -> None:
        """Wait until the endpoint has left, if there was one; it takes at most the drain timeout.

        An app may have ended without leaving the lifespan: then this leaves for it.
        """
        endpoint = self.endpoint
        if endpoint is None:
            return
        try:
            async with asyncio.timeout(RETURN_GRACE_S):
                await endpoint.departing.wait()
        except TimeoutError:
            logger.warning(
                "The app of worker [%d] has ended inside of ipc.lifespan; leaving it.", os.getpid()
            )
            assert self._leave is not None
            await self._leave(endpoint)
        await endpoint.departed.wait()

    def close(self) -> None:
        """Hang up, stop beating, and close the descriptors that no endpoint has closed."""
        if self._heartbeat is not None:
            self._heartbeat.close()
        self.lifeline.close()
        self._pipe.close()
        self._arena.close()

    def stop_streams(self) -> None:
        """This worker stops: end the streams that must not delay that."""
        if self.endpoint is not None:
            self.endpoint.topics.stop()

    def _beat(self) -> None:
        self._on_beat()
        self.lifeline.send(Beat())


current: Assignment | None = None
