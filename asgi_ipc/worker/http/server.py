"""The server: uvicorn's, with a lifeline to the launcher.

Law: only the launcher counts signals. SIGINT does nothing here. SIGTERM and
the launcher's word are the same stop, however often they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Generator, Iterator
from types import FrameType
from typing import Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.lifespan.on import LifespanOn

from asgi_ipc.fleet import descriptor_budget
from asgi_ipc.fleet.words import Failed, Ready, Retiring
from asgi_ipc.logs import server_logger as logger
from asgi_ipc.worker import descriptors
from asgi_ipc.worker.assignment import Assignment
from asgi_ipc.worker.http.connections import Connections
from asgi_ipc.worker.http.shutdown import Shutdown
from asgi_ipc.worker.ipc import ipc
from asgi_ipc.worker.runtime import signals
from asgi_ipc.worker.wrapping import Wrapped

# How often uvicorn's main loop turns.
TICKS_A_SECOND: Final = 10

# The three ways into the fleet, for an app that took none.
_HINT: Final = (
    "The app has not entered ipc.lifespan%s, so this worker gets no messages. Give it to the app: "
    "from asgi_ipc import ipc; Starlette(lifespan=ipc.lifespan) or FastAPI(lifespan=ipc.lifespan); "
    "or enter it in your own lifespan: async with ipc.lifespan(app): yield; "
    "or, for any other ASGI app: app = ipc.wrap(app), or asgi-ipc serve --wrap"
)


class WorkerServer(uvicorn.Server):
    """uvicorn's server, which reports to the launcher and stops in the launcher's order."""

    def __init__(
        self,
        config: uvicorn.Config,
        assignment: Assignment,
        listeners: list[socket.socket],
        *,
        wraps: bool,
    ) -> None:
        super().__init__(config)
        self._assignment = assignment
        self._lifeline = assignment.lifeline
        self._wraps = wraps
        self._is_loading = True
        self._connections = Connections(config, self.server_state)
        self._listeners = listeners
        descriptors.register(self)
        signal.signal(signal.SIGTERM, self._terminate)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Import the app, start it, serve until told to stop, stop it."""
        self._assignment.attach(self._stop)
        with self.reporting_failure():
            self.config.load()
            self._is_loading = False
        if self._wraps:
            self._wrap()
        try:
            await self._serve(sockets)
        finally:
            # An app that could not start may have entered the lifespan, too.
            await self._assignment.left()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals as `main` arranged them."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app and listen; then tell the launcher."""
        with self.reporting_failure():
            await super().startup(sockets)
        if self._assignment.endpoint is None:
            logger.warning(_HINT, " (--lifespan off)" if self.config.lifespan == "off" else "")
        elif self._assignment.endpoint.departing.is_set():
            logger.warning(
                "The app has left ipc.lifespan before it was ready, so this worker gets no messages. "
                "Does it know no lifespan? ipc.wrap(app), or asgi-ipc serve --wrap, is for such apps"
            )
        self._lifeline.send(Ready())

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn, but a worker that served its maximum of requests is replaced before it stops."""
        if counter % TICKS_A_SECOND == 0:
            self._connections.look()
        should_exit = await super().on_tick(counter)
        if should_exit and not self.should_exit:
            # The launcher is asked once; then only its word counts.
            self.limit_max_requests = None
            self._lifeline.send(Retiring())
            return not self._lifeline.is_open
        return should_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, wait for requests that may be under way, then finish as uvicorn does."""
        for server in self.servers:
            server.close()
        # SIGTERM does not pass the assignment, so its streams may still run.
        self._assignment.stop_streams()
        shutdown = Shutdown(self.config, self._connections, self._assignment)
        beside = [
            asyncio.create_task(shutdown.report_waits()),
            asyncio.create_task(shutdown.cancel_deserted()),
        ]
        try:
            await shutdown.wait_for_connections()
            await super().shutdown(sockets)
            # Accepted messages are delivered before this process ends, even if the app says that it is done.
            await self._assignment.left()
        finally:
            for task in beside:
                task.cancel()

    def abandon(self) -> None:
        """In a forked child: it serves nothing, so it frees the port and does not catch SIGTERM."""
        for listener in self._listeners:
            # Detached first: uvloop counts itself as a user of the socket, and close() waits for it.
            with contextlib.suppress(OSError):  # closed already: this worker was stopping
                os.close(listener.detach())
        if signal.getsignal(signal.SIGTERM) == self._terminate:  # the app has set none of its own
            signals.reset(signal.SIGTERM)

    def is_serving(self) -> bool:
        """Return whether a client has a connection. From any thread."""
        return bool(self.server_state.connections)

    def _wrap(self) -> None:
        """Put an app that enters the lifespan around what is served, whatever kind of app that is."""
        self.config.loaded_app = Wrapped(self.config.loaded_app, ipc.lifespan, self.config.lifespan)
        self.config.lifespan_class = LifespanOn

    def _stop(self) -> None:
        if not self._lifeline.is_open and not self.should_exit:
            logger.warning("The launcher is gone; worker [%d] stops.", os.getpid())
        self.should_exit = True

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        # Set first: an exception that is raised inside of a finalizer is lost.
        self.should_exit = True
        # The same signal may have been sent to all workers.
        self._lifeline.is_relieved = False
        if self._is_loading:
            # Nothing runs yet that has to be stopped. A second signal does not interrupt this exit.
            self._is_loading = False
            sys.unraisablehook = _report_all_but_exits
            raise SystemExit(0)

    # --- a start that fails

    @contextlib.contextmanager
    def reporting_failure(self) -> Iterator[None]:
        """Send what keeps the app from starting to the launcher, with at most one traceback."""
        captured = _CapturedErrors()
        logger.awake().addFilter(captured)
        try:
            yield
        except SystemExit as error:
            self._is_loading = False
            if error.code:
                self._fail("\n".join(captured.texts) or f"The app called exit({error.code!r}).")
            raise
        except Exception:  # noqa: BLE001  # an app may raise anything
            self._is_loading = False
            self._fail("\n".join([*captured.texts, traceback.format_exc().rstrip()]))
            raise SystemExit(STARTUP_FAILURE) from None
        finally:
            logger.awake().removeFilter(captured)

    def _fail(self, reason: str) -> None:
        if f"[Errno {errno.EMFILE}]" in reason:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            reason += f"\n{descriptor_budget.no_descriptor_here(limit)}."
        # The path of a file, in a traceback, may be no UTF-8.
        self._lifeline.send(Failed(reason.encode(errors="backslashreplace").decode()))


class _CapturedErrors(logging.Filter):
    """Keeps uvicorn's errors of a failed start for the launcher, which logs them once for all workers."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.ERROR:
            return True
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += "".join(traceback.format_exception(record.exc_info[1]))
        self.texts.append(text.rstrip())
        return False


def _report_all_but_exits(lost: sys.UnraisableHookArgs) -> None:
    if not isinstance(lost.exc_value, SystemExit):
        sys.__unraisablehook__(lost)
