"""Serving: a real `asgi-ipc serve` as a child of a test.

Law: a test waits for a line of the server's output, or for its end, with a
deadline that only bounds failure. The process itself is `child.py`'s.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from asgi_ipc.entry import NEEDS_UNIX
from asgi_ipc.errors import LauncherError
from asgi_ipc.testing.child import HAS_PROC, LOOK_S, Child, children, is_running

# Generous: a machine that runs tests is busy, and the app may have much to import.
START_TIMEOUT_S: Final = 30.0

# The drain timeout of `serve`, its margin, and a busy machine.
STOP_TIMEOUT_S: Final = 30.0

_PLACE: Final = r"Uvicorn running on (https?://\S+:(\d+))"
_STARTED: Final = r"Started server process \[(\d+)\]"
_READY: Final = r"Application startup complete"
_RESTARTED: Final = r"All workers have been restarted"
_GIVEN_UP: Final = r"giving the restart up|serves on until another try"


class ServeError(LauncherError):
    """A server in a test did not start, print a line or stop as expected, in time or at all.

    Attributes:
        reason: the event that did not happen.
        output: the server's output up to that moment.
    """

    def __init__(self, reason: str, output: str) -> None:
        super().__init__(reason, output)
        self.reason = reason
        self.output = output

    def __str__(self) -> str:
        return f"{self.reason}. The server's output:\n{self.output or '(nothing)'}"


class Server:
    """An `asgi-ipc serve` that is ready. `serve` and the fixture `asgi_ipc_serve` make it.

    Attributes:
        pid: of the launcher, which takes the signals.
        url: its address, without a slash at the end: `http://127.0.0.1:PORT`.
        port: the port alone.
    """

    def __init__(self, command: list[str], workers: int, env: Mapping[str, str], cwd: Path) -> None:
        self._workers = workers
        self._child = Child(command, env=env, cwd=cwd)
        self.pid = self._child.pid
        self.url = ""
        self.port = 0

    @property
    def output(self) -> str:
        """The output of the server and its workers so far."""
        return self._child.output

    @property
    def workers(self) -> tuple[int, ...]:
        """The pids of the present worker processes, in the order of their start."""
        if self.status is not None:
            return ()
        ever = [int(pid) for pid in re.findall(_STARTED, self.output)]
        # Without /proc every running process counts: pids are reused late.
        there = children(self.pid) if HAS_PROC else list(filter(is_running, ever))
        return tuple(pid for pid in ever if pid in there)

    @property
    def status(self) -> int | None:
        """The exit status of the server, negative if a signal has ended it; None while it runs."""
        return self._child.status

    def wait_for(self, pattern: str, count: int = 1, *, timeout: float = START_TIMEOUT_S) -> list[str]:
        """Wait until `count` lines of the output match a regular expression; return all matching lines.

        Raises ServeError after `timeout` seconds, or when the server has ended without these lines.
        """
        deadline = time.monotonic() + timeout
        while True:
            # Read the status first: output from before the end counts.
            has_ended = self.status is not None
            found = [line for line in self.output.splitlines() if re.search(pattern, line)]
            if len(found) >= count:
                return found
            wanted = repr(pattern) if count == 1 else f"{count} x {pattern!r}"
            if has_ended:
                raise ServeError(f"it has ended with {self.status} without saying {wanted}", self.output)
            if time.monotonic() > deadline:
                raise ServeError(f"it has not said {wanted} within {timeout:g} s", self.output)
            time.sleep(LOOK_S)

    def restart(self, *, timeout: float = START_TIMEOUT_S) -> tuple[int, ...]:
        """Send SIGHUP, and wait until every old worker has gone; return the pids of the new ones.

        An open request, or a kept idle connection (`--timeout-keep-alive`), keeps an old worker there. Raises
        ServeError after `timeout` seconds, or when the server gives the restart up.
        """
        either = f"{_RESTARTED}|{_GIVEN_UP}"
        said = len(re.findall(either, self.output))
        self._child.signal(signal.SIGHUP)
        if not re.search(_RESTARTED, self.wait_for(either, said + 1, timeout=timeout)[said]):
            raise ServeError("it has given the restart up", self.output)
        return self.workers

    def stop(self, *, timeout: float = STOP_TIMEOUT_S) -> int:
        """Send SIGTERM, and wait for the end; return the exit status, also of a server that has ended before.

        Raises ServeError after `timeout` seconds; the server and its workers are killed then.
        """
        self._child.signal(signal.SIGTERM)
        try:
            return self._child.wait(timeout)
        except TimeoutError:
            self._child.kill()
            raise ServeError(f"it has not stopped within {timeout:g} s", self.output) from None

    def close(self) -> None:
        """Kill the processes that are left; `output` stays."""
        try:
            self._child.close()
        except TimeoutError:
            raise ServeError("its workers can't be killed", self.output) from None

    def _started(self, timeout: float) -> None:
        """Wait until all workers are ready. The port has been open since the line that names it."""
        (line, *_) = self.wait_for(_PLACE, timeout=timeout)
        place = re.search(_PLACE, line)
        assert place is not None
        self.url, self.port = place[1], int(place[2])
        self.wait_for(_READY, self._workers, timeout=timeout)


@contextmanager
def serve(
    app: str,
    *options: str,
    workers: int = 2,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = START_TIMEOUT_S,
) -> Iterator[Server]:
    """Run `asgi-ipc serve app` on a free port of 127.0.0.1; it is ready inside, and stopped at the end.

    The server can import the same modules as the caller: its PYTHONPATH is the present `sys.path`. At the end
    it gets SIGTERM and, after some time, is killed; no process of its session is left.

    Args:
        app: the place of the app, as "module:attribute".
        options: more options of `asgi-ipc serve`, as on the command line: "--drain-timeout", "2". Its
            output shows when it is ready, so `--log-level` can't be above `info`.
        workers: the number of workers.
        env: environment variables beside those of this process.
        cwd: its working directory; None: this process's.
        timeout: seconds until all workers must be ready.

    Raises:
        ServeError: it could not start, or was not ready in time; with its whole output.
    """
    if sys.platform == "win32":
        raise LauncherError(NEEDS_UNIX)
    here = Path.cwd()
    command = [sys.executable, "-m", "asgi_ipc", "serve", app]
    command += ["--host", "127.0.0.1", "--port", "0", "--workers", str(workers), "--log-level", "info"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(here / entry) for entry in sys.path),
        "PYTHONUNBUFFERED": "1",
        **(env or {}),
    }
    server = Server([*command, *options], workers, environment, here if cwd is None else Path(cwd))
    try:
        server._started(timeout)
        try:
            yield server
        except BaseException:
            # The error of the test must not be replaced by one of the stop.
            with suppress(ServeError):
                server.stop()
            raise
        server.stop()
    finally:
        server.close()


class Serve(Protocol):
    """The fixture `asgi_ipc_serve`: like `serve`, but stopped at the end of the test."""

    def __call__(
        self,
        app: str,
        *options: str,
        workers: int = 2,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        timeout: float = START_TIMEOUT_S,
    ) -> Server:
        """Like `serve`; the default directory is pytest's root."""
