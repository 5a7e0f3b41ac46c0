"""The start of a worker process.

Law: signals, descriptors and the handover first, the app after.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.importer import ImportFromStringError, import_from_string

from asgi_ipc import multiprocess
from asgi_ipc.fleet.membership import WORKER, Worker
from asgi_ipc.fleet.words import Failed, Kin
from asgi_ipc.logs import server_logger as logger
from asgi_ipc.worker import assignment, descriptors, helper
from asgi_ipc.worker.assignment import Assignment
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.http.server import WorkerServer
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.runtime import exiting, signals
from asgi_ipc.worker.runtime.guard import Guard


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
    settings = handover.settings
    sys.path[:] = handover.interpreter.sys_path
    sys.argv[:] = handover.interpreter.argv
    guard = Guard(lifeline, settings.beat_s)
    guard.start()
    if handover.kin is not None:
        _be_child(handover.kin)
    kind = WORKER if handover.helper is None else handover.helper.kind
    me = Worker(os.getpid(), handover.slot, handover.generation, kind, settings.node)
    here = assignment.current = Assignment(lifeline, pipe, arena, me, settings, on_beat=guard.beat)
    try:
        config = uvicorn.Config(**handover.uvicorn)
    except Exception as error:  # noqa: BLE001  # an option may name what has changed since the launcher looked
        lifeline.send(Failed(f"{type(error).__name__}: {error}".encode(errors="backslashreplace").decode()))
        raise SystemExit(STARTUP_FAILURE) from None
    with descriptors.changing_hands:
        sockets = [socket.socket(fileno=listener.release()) for listener in listeners]
        server = WorkerServer(config, here, sockets, wraps=settings.wrap)
    guard.is_serving = server.is_serving
    signals.receive(handover.interpreter.signal_mask, lifeline.wake)
    with server.reporting_failure():
        _check_imports(config)
        loop_factory = config.get_loop_factory()
    with (
        asyncio.Runner(loop_factory=loop_factory) as runner,
        exiting.bounded(settings.exit_timeout, runner),
    ):
        if handover.helper is None:
            runner.run(server.serve(sockets))
        else:
            runner.run(helper.serve(here, handover.helper))
    exiting.tell_children()


def _be_child(kin: Kin) -> None:
    """Become, in the eyes of `multiprocessing`, a child of the launcher."""
    for fd in (kin.tracker_fd, kin.sentinel_fd):
        os.set_inheritable(fd, False)
    # A forked child keeps the tracker's descriptor, but not this one.
    Descriptor(kin.sentinel_fd)
    multiprocess.be_child(kin.given, kin.name, kin.tracker_fd, kin.sentinel_fd)


def _check_imports(config: uvicorn.Config) -> None:
    """Log an option whose import string names nothing, and exit: a failed start like any other."""
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
