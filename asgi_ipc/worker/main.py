"""The worker process: a uvicorn.Server with a lifeline.

Law: signals, descriptors and the handover first, the app after. Only the
launcher counts signals: SIGINT is ignored here, SIGTERM and the launcher's
word are one and the same stop, however often they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import multiprocessing
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

from asgi_ipc.loggers import LastingLogger
from asgi_ipc.protocol import limits
from asgi_ipc.protocol.lifeline import Failed, Ready, Retiring
from asgi_ipc.protocol.membership import Worker
from asgi_ipc.protocol.texts import restored
from asgi_ipc.worker import descriptors, station
from asgi_ipc.worker.endpoint import Settings
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.station import Station

logger = LastingLogger("uvicorn.error")

# A connection that was accepted and has said nothing yet may be about to: who
# connects first and sends a little later shall get an answer.
LINGER_S: Final = 1.0
_LINGER_STEP_S: Final = 0.01

# Sent to the whole group by terminals; they are the launcher's to answer.
_IGNORED: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)


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

    def __init__(self, config: uvicorn.Config, here: Station, listeners: list[socket.socket]) -> None:
        super().__init__(config)
        self._here = here
        self._loading = True
        self._listeners = listeners
        descriptors.register(self, *(listener.fileno() for listener in listeners))
        signal.signal(signal.SIGTERM, self._terminate)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_IGNORED, signal.SIGTERM})

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Import the app, start it, serve until told to stop, stop it."""
        self._here.attach(self._stop)
        with self.telling_failure():
            self.config.load()
            self._loading = False
        await self._serve(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals have been arranged at the very start."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app and listen; then tell the launcher."""
        with self.telling_failure():
            await super().startup(sockets)
        if not self._here.was_joined:
            logger.warning(
                "The app has not entered ipc.lifespan, so this worker gets no messages. "
                "Add it: from asgi_ipc import ipc; app = Starlette(lifespan=ipc.lifespan), "
                "or FastAPI(lifespan=ipc.lifespan)"
            )
        self._here.lifeline.send(Ready())

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn, but a worker that has served enough is replaced before it stops."""
        leaving = await super().on_tick(counter)
        if leaving and not self.should_exit:
            # Asked once: from here on there is no limit, only the launcher's word.
            self.limit_max_requests = None
            self._here.lifeline.send(Retiring())
            return not self._here.lifeline.is_open
        return leaving

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting; let those who have just connected ask; then finish as uvicorn does."""
        for server in self.servers:
            server.close()
        # By now for whichever reason it stops: SIGTERM does not pass the station.
        self._here.stop_streams()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LINGER_S
        while True:
            # At least once: what was accepted in this turn is a connection only in the next.
            await asyncio.sleep(_LINGER_STEP_S)
            if loop.time() >= deadline or not any(map(_is_silent, self.server_state.connections)):
                break
        await super().shutdown(sockets)

    def abandon(self) -> None:
        """In a forked child: it serves nothing, so it keeps no port busy and answers SIGTERM itself."""
        for listener in self._listeners:
            # Detached first: uvloop counts itself as a user of the socket, and close() waits for it.
            with contextlib.suppress(OSError):  # closed already: this worker was stopping
                os.close(listener.detach())
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _stop(self) -> None:
        if not self._here.lifeline.is_open and not self.should_exit:
            logger.warning("The launcher is gone; worker [%d] stops.", os.getpid())
        self.should_exit = True

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        # First: an exception that is raised into a finalizer is lost, and told of.
        self.should_exit = True
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
            reason += f"\n{limits.no_descriptor_here(resource.getrlimit(resource.RLIMIT_NOFILE)[0])}."
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


def _is_silent(connection: object) -> bool:
    """Whether a connection has had no request yet; what is no HTTP/1 connection has."""
    return getattr(connection, "cycle", connection) is None


def main(arguments: list[str]) -> None:
    """Run one worker. The arguments are descriptors: lifeline, pipe, arena or -1, listening sockets."""
    fds = [int(argument) for argument in arguments]
    given = [fd for fd in fds if fd >= 0]
    for fd in given:
        os.set_inheritable(fd, False)
    # Until each has its owner: the app may fork while it is imported.
    descriptors.hold(*given)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    lifeline = Lifeline(fds[0])
    handover = lifeline.handover()
    sys.path[:] = restored(handover.sys_path)
    sys.argv[:] = restored(handover.argv)
    lifeline.guard()
    # As in uvicorn's own workers: a pool that the app makes starts afresh, instead of as a fork of a
    # running server with all that it holds.
    multiprocessing.set_start_method("spawn", force=True)
    settings = Settings(
        cookie=handover.cookie,
        max_packet_bytes=handover.max_packet_bytes,
        max_message_bytes=handover.max_message_bytes,
        drain_timeout_s=handover.drain_timeout_s,
    )
    me = Worker(os.getpid(), handover.slot, handover.generation)
    station.current = Station(lifeline, fds[1], me, settings, fds[2], handover.beat_s)
    try:
        config = uvicorn.Config(**restored(handover.uvicorn))
    except Exception as error:  # noqa: BLE001  # what the options name has changed since the launcher looked
        lifeline.send(Failed(f"{type(error).__name__}: {error}".encode(errors="backslashreplace").decode()))
        raise SystemExit(STARTUP_FAILURE) from None
    sockets = [socket.socket(fileno=fd) for fd in fds[3:]]
    server = WorkerServer(config, station.current, sockets)
    with server.telling_failure():
        check_imports(config)
        loop_factory = config.get_loop_factory()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(server.serve(sockets))
