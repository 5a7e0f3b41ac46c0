"""The server under measurement: started as a user starts it, stopped as systemd stops it.

Law: what is measured is `asgi-ipc serve`, in processes of its own. A server
that does not stop with status 0, or that logs a warning, is a failure. Every
wait has an end.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

ROOT: Final = Path(__file__).parent.parent

# 21 workers import Starlette on two cores; a loaded machine takes its time.
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0

# A run ends itself before that (benchmarks.app.RUN_TIMEOUT_S).
REQUEST_TIMEOUT_S: Final = 60.0

POLL_S: Final = 0.05


class BenchmarkError(Exception):
    """The command fails with this: what was expected, and what was seen."""


class Server:
    """A running server: `order` makes one of its workers send."""

    def __init__(self, process: subprocess.Popen[bytes], client: httpx.Client) -> None:
        self._process = process
        self._client = client

    def order(self, **values: object) -> dict[str, Any]:
        """Have the answering worker run this; what happened. Raises BenchmarkError for any other answer."""
        try:
            response = self._client.post("/run", json=values)
        except httpx.HTTPError as error:
            raise BenchmarkError(f"the server did not answer: {error!r}") from error
        if response.status_code != httpx.codes.OK:
            raise BenchmarkError(f"the server answered {response.status_code}: {response.text[:500]}")
        answer: dict[str, Any] = response.json()
        return answer

    def wait_for(self, workers: int) -> None:
        """Wait until the answering worker knows so many members."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BenchmarkError(f"the server ended while starting, status {self._process.returncode}")
            try:
                if len(self._client.get("/workers").json()) == workers:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(POLL_S)
        raise BenchmarkError(f"{workers} workers were not there after {START_TIMEOUT_S:g} s")


@contextmanager
def serving(workers: int, loop: str) -> Iterator[Server]:
    """`asgi-ipc serve` with so many workers on that event loop, from ready to stopped."""
    port = _free_port()
    command = [sys.executable, "-m", "asgi_ipc.cli", "serve", "benchmarks.app:app"]
    command += ["--workers", str(workers), "--port", str(port), "--loop", loop]
    command += ["--no-access-log", "--log-level", "warning"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", timeout=REQUEST_TIMEOUT_S, trust_env=False
            ) as client:
                server = Server(process, client)
                server.wait_for(workers)
                yield server
            status = _stop(process)
            if status != 0:
                raise BenchmarkError(f"the server stopped with status {status}, not 0")
        finally:
            if process.poll() is None:
                _stop(process)
            log.seek(0)
            said = log.read().decode(errors="replace")
            if said:
                print(said, file=sys.stderr, end="")
        if said:
            raise BenchmarkError("the server logged warnings, see above")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # Its workers see the end of their lifelines, and end, too.
        process.kill()
        process.wait()
        raise BenchmarkError(f"the server did not stop within {STOP_TIMEOUT_S:g} s") from None
