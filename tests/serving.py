"""Serving: a real `asgi-ipc serve` (or uvicorn) as a child of a test.

Law: what a test waits for is a line of the server's output, an answer, or
the end of a process, each with a deadline that only bounds failure. Every
process is ended by its pid, and none is left behind.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import httpx

from asgi_ipc.testing.serving import Tie, children

# Generous: a shared machine with two cores may be busy with something else.
DEADLINE_S = 45.0

# Other tests run at the same time, and each makes connections.
PORTS = range(10_000, 32_768)

# The installed package is what is tested; the test apps and the demo are found beside it.
ROOT = Path(__file__).parent.parent


def free_port() -> int:
    """A port that nobody has now. No connection is given it before it is used: those get 32768 and up."""
    while True:
        # Not the random numbers that hypothesis makes the same in each process.
        port = secrets.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    """Whether somebody accepts connections there: uvicorn says that it has started some moments before."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def is_tracker(pid: int) -> bool:
    """Whether that process is a resource tracker of `multiprocessing`."""
    with suppress(OSError):
        return b"resource_tracker import main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for something in another process that no event tells of."""
    async with asyncio.timeout(DEADLINE_S):
        # The one place that polls: the kernel's tables (/proc) have no event to wait for.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert condition(), what


class Server:
    """A server process and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.lines: list[str] = []
        # How long it may take to say or do something.
        self.deadline_s = DEADLINE_S
        # What was looked for: up to which line, and the lines that matched.
        self._found: dict[str, tuple[int, list[str]]] = {}
        self._said = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def found(self, pattern: str) -> list[str]:
        """The lines that match so far."""
        start, found = self._found.get(pattern, (0, []))
        found += [line for line in self.lines[start:] if re.search(pattern, line)]
        self._found[pattern] = (len(self.lines), found)
        return found

    def count(self, pattern: str) -> int:
        """How many lines match so far."""
        return len(self.found(pattern))

    async def said(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until that many lines match; those lines."""
        try:
            async with asyncio.timeout(self.deadline_s), self._said:
                await self._said.wait_for(lambda: self.count(pattern) >= count)
        except TimeoutError:
            raise AssertionError(f"{count} x {pattern!r} not in:\n{self.text}") from None
        return list(self.found(pattern))

    async def started(self, workers: int) -> list[int]:
        """Wait until that many workers have started; their pids."""
        await self.said("Application startup complete", workers)
        return self.workers()

    def workers(self) -> list[int]:
        """The pids of the server's workers: its children, but for a resource tracker."""
        return [pid for pid in children(self.pid) if not is_tracker(pid)]

    async def get(self, path: str) -> httpx.Response:
        """One request on a connection of its own."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=DEADLINE_S) as client:
            return await client.get(path)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    async def ended(self) -> int:
        """Wait until the process has ended and all of its output is read; its exit status."""
        try:
            async with asyncio.timeout(self.deadline_s):
                status = await self.process.wait()
                await self._reading
        except TimeoutError:
            raise AssertionError(f"still running:\n{self.text}") from None
        return status

    async def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            async with self._said:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self._said.notify_all()
        async with self._said:
            self._said.notify_all()


@asynccontextmanager
async def started(
    *command: str,
    port: int = 0,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    under: Sequence[str] = (),
) -> AsyncIterator[Server]:
    """Run a Python command as a server; kill what is left of it at the end.

    `asgi-ipc serve` stops when this process ends without coming to that, too.

    `under`: a command that executes what follows it, under a limit or as somebody else.
    """
    with closing(Tie()) as tie:
        try:
            process = await asyncio.create_subprocess_exec(
                *under,
                sys.executable,
                *(tie.told_to(command) if "serve" in command else command),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})},
                cwd=cwd,
                limit=1024 * 1024,
                start_new_session=True,
                pass_fds=[tie.theirs] if "serve" in command else [],
            )
        finally:
            tie.pass_on()
        server = Server(process, port)
        try:
            yield server
        finally:
            left = [*children(server.pid), server.pid]
            if process.returncode is None:
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            await server.ended()


@asynccontextmanager
async def serving(
    app: str,
    *options: str,
    workers: int = 2,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    under: Sequence[str] = (),
) -> AsyncIterator[Server]:
    """`asgi-ipc serve app` on a free port; does not wait for its workers."""
    port = free_port()
    command = ["-m", "asgi_ipc.cli", "serve", app, "--port", str(port), "--workers", str(workers), *options]
    async with started(*command, port=port, env=env, cwd=cwd, under=under) as server:
        yield server
