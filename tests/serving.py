"""Serving: a real `asgi-ipc serve` (or uvicorn, or another program) as a child of a test or a row.

Law: a test waits for a line of the server's output, an answer, or the end of
a process, each with a deadline that only bounds failure. The process itself
is the test kit's (`asgi_ipc.testing.child`); none is left behind.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import psutil

from asgi_ipc.testing.child import LOOK_S, Child, children

# Generous: a shared machine with two cores may be busy with something else.
DEADLINE_S = 45.0

# Other tests run at the same time, and each makes connections.
PORTS = range(10_000, 32_768)

# The installed package is what is tested; the test apps and the demo are found beside it.
ROOT = Path(__file__).parent.parent


def free_port() -> int:
    """Return a free port. No connection is given it before it is used: those get 32768 and up."""
    while True:
        # Not the random numbers that hypothesis makes the same in each process.
        port = secrets.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    """Return whether a server accepts connections there: uvicorn reports its start some moments before."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def binds(port: int) -> bool:
    """Whether the next server could listen there at once: nobody does any more."""
    with socket.socket() as again, suppress(OSError):
        # As uvicorn binds.
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
        again.listen()
        return True
    return False


def is_tracker(pid: int) -> bool:
    """Whether that process is a resource tracker of `multiprocessing`."""
    with suppress(psutil.NoSuchProcess):
        return any("resource_tracker import main" in word for word in psutil.Process(pid).cmdline())
    return False


async def eventually(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for something in another process that sends no event."""
    try:
        async with asyncio.timeout(deadline_s):
            # The one place that polls: neither the kernel's tables nor a file has an event to wait for.
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise AssertionError(what) from None


# What the launcher says.
STARTED = "Application startup complete"
RESTARTED = "All workers have been restarted"


class Ends:
    """When each of some processes has ended, on the machine's monotonic clock."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._fds: dict[int, int] = {}
        self._at: dict[int, asyncio.Future[float]] = {}
        # Opened before anything happens to them: a descriptor names one process for ever, a pid may be
        # reused.
        for pid in pids:
            self._at[pid] = self._loop.create_future()
            try:
                fd = self._fds[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                self._at[pid].set_result(time.monotonic())
                continue
            self._loop.add_reader(fd, partial(self._note, pid))

    @property
    def at(self) -> dict[int, float]:
        """By pid, for those that have ended."""
        return {pid: future.result() for pid, future in self._at.items() if future.done()}

    async def all(self, *, but: Collection[int] = (), timeout_s: float = DEADLINE_S) -> list[int]:
        """Wait for all of them but some; the pids of those that still run at the deadline."""
        awaited = {pid: future for pid, future in self._at.items() if pid not in but}
        await asyncio.wait(awaited.values(), timeout=timeout_s)
        return sorted(awaited.keys() - self.at.keys())

    async def last(self, *, but: Collection[int] = ()) -> float:
        """Wait for all of them but some; when the last has ended, infinity if one still runs."""
        running = await self.all(but=but)
        return float("inf") if running else max(at for pid, at in self.at.items() if pid not in but)

    def close(self) -> None:
        """Watch no more."""
        for fd in self._fds.values():
            self._loop.remove_reader(fd)
            os.close(fd)

    def _note(self, pid: int) -> None:
        # Once: the descriptor of a process that has ended stays readable.
        self._loop.remove_reader(self._fds[pid])
        self._at[pid].set_result(time.monotonic())


@contextmanager
def watching(pids: Iterable[int]) -> Iterator[Ends]:
    """Watch these processes, which run now, for their ends."""
    ends = Ends(pids)
    try:
        yield ends
    finally:
        ends.close()


class Server:
    """A server process and what it has said so far."""

    def __init__(self, child: Child, port: int) -> None:
        self._child = child
        self.pid = child.pid
        self.port = port
        # How long it may take to say or do something.
        self.deadline_s = DEADLINE_S
        # The whole lines, and where the next one begins in the output.
        self._lines: list[str] = []
        self._place = 0
        # By pattern: the line up to which it was searched, and the lines that matched.
        self._found: dict[str, tuple[int, list[str]]] = {}

    @property
    def lines(self) -> list[str]:
        """Return the output so far."""
        new, end, _ = self._child.read(self._place).rpartition(b"\n")
        if end:
            self._place += len(new) + 1
            self._lines += new.decode(errors="replace").split("\n")
        return self._lines

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def found(self, pattern: str) -> list[str]:
        """The lines that match so far."""
        lines = self.lines
        start, found = self._found.get(pattern, (0, []))
        found += [line for line in lines[start:] if re.search(pattern, line)]
        self._found[pattern] = (len(lines), found)
        return found

    def count(self, pattern: str) -> int:
        """How many lines match so far."""
        return len(self.found(pattern))

    async def said(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until that many lines match; those lines."""
        await self._comes(lambda: self.count(pattern) >= count, f"{count} x {pattern!r} not in")
        return list(self.found(pattern))

    async def started(self, workers: int) -> list[int]:
        """Wait until that many workers have started; their pids."""
        await self.said(STARTED, workers)
        return self.workers()

    def workers(self) -> list[int]:
        """Return the pids of the server's workers: its children without the resource tracker."""
        return [pid for pid in children(self.pid) if not is_tracker(pid)]

    def ever_started(self) -> list[int]:
        """Return the pids of all workers so far, in the order of their starts."""
        return [int(line.split("[")[1].rstrip("]")) for line in self.found("Started server process")]

    async def restart(self) -> list[int]:
        """SIGHUP, and wait until all workers are replaced and the old ones have gone; the pids now."""
        old = {*self.workers()}
        done = self.count(RESTARTED)
        self.signal(signal.SIGHUP)
        await self.said(RESTARTED, done + 1)
        await self._comes(lambda: not old & {*self.workers()}, "the old ones have not gone")
        return self.workers()

    async def more(self, workers: int) -> None:
        """SIGTTIN, and wait for the word that there are to be so many: equal signals that wait become one."""
        self.signal(signal.SIGTTIN)
        await self.said(f"Increasing the number of workers to {workers}")

    async def fewer(self, workers: int) -> None:
        """SIGTTOU, and wait for the word that there are to be so many."""
        self.signal(signal.SIGTTOU)
        await self.said(f"Decreasing the number of workers to {workers}")

    async def kill(self, pid: int) -> list[int]:
        """Kill that worker, and wait until another one has taken its place; the pids now."""
        started = self.count(STARTED)
        os.kill(pid, signal.SIGKILL)
        await self.said(STARTED, started + 1)
        await self._comes(lambda: pid not in self.workers(), "it has not gone")
        return self.workers()

    async def get(self, path: str) -> httpx.Response:
        """One request on a connection of its own."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=DEADLINE_S) as client:
            return await client.get(path)

    def signal(self, number: int) -> None:
        self._child.signal(number)

    async def ended(self) -> int:
        """Wait until the process and all that it has started have ended; its exit status."""
        await self._comes(
            lambda: self._child.status is not None and not self._child.is_there(), "still running"
        )
        assert self._child.status is not None
        return self._child.status

    async def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def _comes(self, condition: Callable[[], bool], otherwise: str) -> None:
        try:
            await eventually(condition, otherwise, self.deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.text}") from None


@asynccontextmanager
async def running(
    command: Sequence[str], *, port: int = 0, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> AsyncIterator[Server]:
    """Run a program. If it still runs at the end, it is stopped, and must end with 0.

    What is left of it, and of what it has started, is killed; `asgi-ipc serve` stops when this process ends
    without coming to that, too.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})}
    child = Child(command, env=env, cwd=cwd)
    server = Server(child, port)
    try:
        yield server
        if child.status is None:
            status = await server.stop()
            # A SIGKILL of the test's own may be on its way still.
            assert status in (0, -signal.SIGKILL), f"status {status}:\n{server.text}"
    finally:
        child.close()


@asynccontextmanager
async def started(
    *command: str,
    port: int = 0,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    under: Sequence[str] = (),
) -> AsyncIterator[Server]:
    """Run a Python command as a server.

    `under`: a command that executes what follows it, under a limit or as somebody else.
    """
    async with running([*under, sys.executable, *command], port=port, env=env, cwd=cwd) as server:
        yield server


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


@asynccontextmanager
async def serving_by(
    by: str,
    app: str,
    *options: str,
    workers: int = 2,
    env: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
) -> AsyncIterator[Server]:
    """Serve an app by `asgi-ipc serve` or `uvicorn --workers`; wait until its workers have started."""
    if by == "asgi-ipc":
        context = serving(app, *options, workers=workers, env=env, under=under)
    else:
        port = free_port()
        command = ["-m", "uvicorn", app, "--port", str(port), "--workers", str(workers), *options]
        context = started(*command, port=port, env=env, under=under)
    async with context as server:
        await server.said("Application startup complete", workers)
        await eventually(lambda: listens(server.port), "it listens")
        yield server


def run_python(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a Python command to its end; its status and what it has said."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


class Helper:
    """A program that answers each line of its input with a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, line: str = "") -> str:
        """Its next line, behind that one if there is any."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if line:
            self._process.stdin.write(f"{line}\n".encode())
        return (await self._process.stdout.readline()).decode()


@asynccontextmanager
async def helping(*command: str, under: Sequence[str] = ()) -> AsyncIterator[Helper]:
    """Run a Python command that ends by itself, with status 0, when its input does."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *under, sys.executable, *command, stdin=pipe, stdout=pipe, cwd=ROOT
    )
    assert process.stdin is not None
    try:
        yield Helper(process)
        process.stdin.close()
        async with asyncio.timeout(DEADLINE_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
