"""The worker process: a uvicorn.Server with a lifeline.

Law: signals, descriptors and the handover first, the app after. Only the
launcher counts signals: SIGINT does nothing here, SIGTERM and the launcher's
word are one and the same stop, however often they come.
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
from uvicorn.importer import ImportFromStringError, import_from_string
from uvicorn.lifespan.on import LifespanOn

from asgi_ipc import multiprocess
from asgi_ipc.fleet import descriptor_budget
from asgi_ipc.fleet.membership import WORKER, Worker
from asgi_ipc.fleet.words import Failed, Kin, Ready, Retiring
from asgi_ipc.logs import server_logger as logger
from asgi_ipc.worker import assignment, descriptors, helper
from asgi_ipc.worker.assignment import Assignment
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.http.connections import Connections
from asgi_ipc.worker.http.shutdown import Leaving
from asgi_ipc.worker.ipc import ipc
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.runtime import exiting, signals
from asgi_ipc.worker.wrapping import Wrapped

# How often uvicorn's main loop turns.
TICKS_A_SECOND: Final = 10

# The three ways into the fleet, for an app that has found none.
_HINT: Final = (
    "The app has not entered ipc.lifespan%s, so this worker gets no messages. Give it to the app: "
    "from asgi_ipc import ipc; Starlette(lifespan=ipc.lifespan) or FastAPI(lifespan=ipc.lifespan); "
    "or enter it in your own lifespan: async with ipc.lifespan(app): yield; "
    "or, for any other ASGI app: app = ipc.wrap(app), or asgi-ipc serve --wrap"
)


class _CapturedErrors(logging.Filter):
    """Keeps what uvicorn says of a failed start for the launcher, which says it once for all workers."""

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


class WorkerServer(uvicorn.Server):
    """uvicorn's server, which tells the launcher how it is and stops in the launcher's order."""

    def __init__(
        self, config: uvicorn.Config, here: Assignment, listeners: list[socket.socket], wraps: bool = False
    ) -> None:
        super().__init__(config)
        self._here = here
        self._wraps = wraps
        self._loading = True
        self._connections = Connections(config, self.server_state)
        self._listeners = listeners
        descriptors.register(self)
        here.lifeline.is_serving = self._is_serving
        signal.signal(signal.SIGTERM, self._terminate)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Import the app, start it, serve until told to stop, stop it."""
        self._here.attach(self._stop)
        with self.telling_failure():
            self.config.load()
            self._loading = False
        if self._wraps:
            self._wrap()
        try:
            await self._serve(sockets)
        finally:
            # Also if the app could not start.
            await self._here.left()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals have been arranged at the very start."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app and listen; then tell the launcher."""
        with self.telling_failure():
            await super().startup(sockets)
        if not self._here.was_joined:
            logger.warning(_HINT, " (--lifespan off)" if self.config.lifespan == "off" else "")
        elif self._here.has_left:
            logger.warning(
                "The app has left ipc.lifespan before it was ready, so this worker gets no messages. "
                "Does it know no lifespan? ipc.wrap(app), or asgi-ipc serve --wrap, is for such apps"
            )
        self._here.lifeline.send(Ready())

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn, but a worker that has served enough is replaced before it stops."""
        if counter % TICKS_A_SECOND == 0:
            self._connections.look()
        leaving = await super().on_tick(counter)
        if leaving and not self.should_exit:
            # Asked once: from here on there is no limit, only the launcher's word.
            self.limit_max_requests = None
            self._here.lifeline.send(Retiring())
            return not self._here.lifeline.is_open
        return leaving

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting; let those who may be about to ask do so; then finish as uvicorn does."""
        for server in self.servers:
            server.close()
        # By now for whichever reason it stops: SIGTERM does not pass the assignment.
        self._here.stop_streams()
        leaving = Leaving(self.config, self._connections, self._here)
        beside = [asyncio.create_task(leaving.tell_waits()), asyncio.create_task(leaving.cancel_deserted())]
        try:
            await leaving.linger()
            await super().shutdown(sockets)
            # Accepted messages are delivered before this process ends, even if the app says that it is done.
            await self._here.left()
        finally:
            for task in beside:
                task.cancel()

    def _wrap(self) -> None:
        """Put an app that enters the lifespan around what is served, whatever kind of app that is."""
        self.config.loaded_app = Wrapped(self.config.loaded_app, ipc.lifespan, self.config.lifespan)
        self.config.lifespan_class = LifespanOn

    def abandon(self) -> None:
        """In a forked child: it serves nothing, so it keeps no port busy and answers SIGTERM itself."""
        for listener in self._listeners:
            # Detached first: uvloop counts itself as a user of the socket, and close() waits for it.
            with contextlib.suppress(OSError):  # closed already: this worker was stopping
                os.close(listener.detach())
        if signal.getsignal(signal.SIGTERM) == self._terminate:  # the app has set none of its own
            signals.reset(signal.SIGTERM)

    def _is_serving(self) -> bool:
        """Whether a client still has a connection. Asked on the guard's thread."""
        return bool(self.server_state.connections)

    def _stop(self) -> None:
        if not self._here.lifeline.is_open and not self.should_exit:
            logger.warning("The launcher is gone; worker [%d] stops.", os.getpid())
        self.should_exit = True

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        # First: an exception that is raised into a finalizer is lost, and told of.
        self.should_exit = True
        self._here.signalled()
        if self._loading:
            # Nothing has begun that would have to be ended. Once: what this unwinds is not to be
            # interrupted again.
            self._loading = False
            sys.unraisablehook = _tell_all_but_exits
            raise SystemExit(0)

    @contextlib.contextmanager
    def telling_failure(self) -> Iterator[None]:
        """What keeps the app from starting goes to the launcher, with at most one traceback."""
        captured = _CapturedErrors()
        logger.awake().addFilter(captured)
        try:
            yield
        except SystemExit as error:
            self._loading = False
            if error.code:
                self._fail("\n".join(captured.texts) or f"The app called exit({error.code!r}).")
            raise
        except Exception:  # noqa: BLE001  # the app's own
            self._loading = False
            self._fail("\n".join([*captured.texts, traceback.format_exc().rstrip()]))
            raise SystemExit(STARTUP_FAILURE) from None
        finally:
            logger.awake().removeFilter(captured)

    def _fail(self, reason: str) -> None:
        if f"[Errno {errno.EMFILE}]" in reason:
            reason += (
                f"\n{descriptor_budget.no_descriptor_here(resource.getrlimit(resource.RLIMIT_NOFILE)[0])}."
            )
        # The path of a file that is no UTF-8, in a traceback.
        self._here.lifeline.send(Failed(reason.encode(errors="backslashreplace").decode()))


def check_imports(config: uvicorn.Config) -> None:
    """Have an option's import string that names nothing told of, as any failed start, and exit."""
    for name in ("loop", "http", "ws"):
        value = getattr(config, name)
        if not isinstance(value, str) or ":" not in value:
            continue
        try:
            if not callable(import_from_string(value)):
                raise ImportFromStringError("it can't be called.")
        except (ImportError, ImportFromStringError) as error:
            logger.error("--%s %s: %s", name, value, error)
            raise SystemExit(STARTUP_FAILURE) from error


def _tell_all_but_exits(lost: sys.UnraisableHookArgs) -> None:
    if not isinstance(lost.exc_value, SystemExit):
        sys.__unraisablehook__(lost)


def _be_child(kin: Kin) -> None:
    """As a child of `multiprocessing` begins: in its eyes this is one of the launcher's."""
    for fd in (kin.tracker_fd, kin.sentinel_fd):
        os.set_inheritable(fd, False)
    # Forked children keep the tracker's, but not this one.
    Descriptor(kin.sentinel_fd)
    multiprocess.be_child(kin.given, kin.name, kin.tracker_fd, kin.sentinel_fd)


def main(arguments: list[str]) -> None:
    """Run one worker. The arguments are descriptors: lifeline, pipe, arena or -1, listening sockets."""
    fds = [int(argument) for argument in arguments]
    for fd in fds:
        if fd >= 0:
            os.set_inheritable(fd, False)
    # Nothing of the app has run yet, so nothing has forked.
    lifeline = Lifeline(fds[0])
    pipe, arena, *listeners = map(Descriptor, fds[1:])
    signals.take()
    handover = lifeline.handover()
    sys.path[:] = handover.interpreter.sys_path
    sys.argv[:] = handover.interpreter.argv
    lifeline.guard(handover.settings.beat_s)
    if handover.kin is not None:
        _be_child(handover.kin)
    kind = WORKER if handover.helper is None else handover.helper.kind
    me = Worker(os.getpid(), handover.slot, handover.generation, kind)
    here = assignment.current = Assignment(lifeline, pipe, arena, me, handover.settings)
    try:
        config = uvicorn.Config(**handover.uvicorn)
    except Exception as error:  # noqa: BLE001  # what the options name has changed since the launcher looked
        lifeline.send(Failed(f"{type(error).__name__}: {error}".encode(errors="backslashreplace").decode()))
        raise SystemExit(STARTUP_FAILURE) from None
    with descriptors.changing_hands:
        sockets = [socket.socket(fileno=listener.release()) for listener in listeners]
        server = WorkerServer(config, here, sockets, handover.settings.wrap)
    signals.receive(handover.interpreter.signal_mask, lifeline.wake)
    with server.telling_failure():
        check_imports(config)
        loop_factory = config.get_loop_factory()
    with (
        asyncio.Runner(loop_factory=loop_factory) as runner,
        exiting.bounded(handover.settings.exit_timeout, runner),
    ):
        if handover.helper is None:
            runner.run(server.serve(sockets))
        else:
            runner.run(helper.serve(here, handover.helper.module))
    exiting.tell_children()
