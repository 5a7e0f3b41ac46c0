"""The station: what the launcher gave this process, for whoever enters the lifespan.

Law: one per worker process, made by `worker/main.py` before the app is
imported; `current` is None in a process that no launcher started.
"""

from __future__ import annotations

from collections.abc import Callable

from asgi_ipc.errors import LauncherError
from asgi_ipc.protocol.lifeline import Beat, Stop, ToWorker
from asgi_ipc.protocol.membership import Worker
from asgi_ipc.worker import descriptors
from asgi_ipc.worker.endpoint import Endpoint, Settings
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.pulse import Pulse
from asgi_ipc.worker.registry import Registry


class Station:
    """This process's lifeline, pipe and name, and the endpoint that has taken them."""

    def __init__(
        self,
        lifeline: Lifeline,
        pipe_fd: int,
        me: Worker,
        settings: Settings,
        arena_fd: int = -1,
        beat_s: float | None = None,
    ) -> None:
        self._beat_s = beat_s
        self.lifeline = lifeline
        self.me = me
        self.settings = settings
        self._pipe_fd = pipe_fd
        self._arena_fd = arena_fd
        self._endpoint: Endpoint | None = None
        self._on_stop: Callable[[], None] | None = None
        self._pulse: Pulse | None = None

    @property
    def was_joined(self) -> bool:
        """Whether an `ipc.lifespan` has been entered in this process."""
        return self._endpoint is not None

    def attach(self, on_stop: Callable[[], None]) -> None:
        """Listen to the launcher on the running loop, and beat; `on_stop` when it says stop, or is gone."""
        self._on_stop = on_stop
        self.lifeline.attach(self._on_word)
        self.lifeline.on_eof(on_stop)
        self._pulse = Pulse(self._beat, self._beat_s)

    def open(self, registry: Registry, owner: object) -> Endpoint:
        """The endpoint of this process, which has one life."""
        if self._endpoint is not None:
            raise LauncherError("this worker process has left the fleet; a new one must be started")
        self._endpoint = Endpoint(
            self.me,
            self.settings,
            registry,
            owner,
            self.lifeline,
            self._pipe_fd,
            self._pulse,
            self._arena_fd,
        )
        return self._endpoint

    def close(self) -> None:
        """Where a process has had several: hang up, beat no more, and close what no endpoint has taken."""
        if self._pulse is not None:
            self._pulse.close()
        self.lifeline.close()
        if self._endpoint is None:
            for fd in (self._pipe_fd, self._arena_fd):
                if fd >= 0:
                    descriptors.close(fd)
            self._pipe_fd = self._arena_fd = -1

    def stop_streams(self) -> None:
        """This worker stops: end what shall not hold that up."""
        if self._endpoint is not None:
            self._endpoint.topics.stop()

    def _beat(self) -> None:
        self.lifeline.turn()
        self.lifeline.send(Beat())

    def _on_word(self, word: ToWorker, write_end: int, arena: int) -> None:
        if isinstance(word, Stop):
            if self._on_stop is not None:
                self._on_stop()
            self.stop_streams()
        elif self._endpoint is not None:
            self._endpoint.on_word(word, write_end, arena)


current: Station | None = None
