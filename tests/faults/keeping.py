"""Keeping: clients that keep their connections, and count failures on them.

Law: a client does only what its library does by itself; it repeats no request, and checks no connection
before a request. wrk and nginx are programs with their default settings, with retries off.
"""

from __future__ import annotations

import asyncio
import importlib.util
import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx

from tests.faults.trial import NotHereError, Trial
from tests.serving import DEADLINE_S, Server, eventually, free_port, listens, running

REQUEST: Final = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


@dataclass(slots=True)
class Tally:
    """The results of one kind of client."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def asked(self) -> int:
        return self.answered + len(self.failed)

    @property
    def share(self) -> float:
        """Of the failed ones among all."""
        return len(self.failed) / max(self.asked, 1)

    def check(self, trial: Trial, what: str) -> None:
        """No request has failed."""
        trial.check(what, self, self.answered > 0 and not self.failed)

    def __str__(self) -> str:
        kinds = "; ".join(f"{count} x {what}" for what, count in Counter(self.failed).most_common(3))
        return f"{len(self.failed):,} of {self.asked:,}" + (f" ({kinds})" if kinds else "")


@dataclass(frozen=True, slots=True)
class Pause:
    """How long a client does nothing between an answer and its next request, in seconds."""

    least_s: float
    most_s: float

    def next_s(self) -> float:
        return random.uniform(self.least_s, self.most_s)

    def __str__(self) -> str:
        return f"pauses of {self.least_s:g} to {self.most_s:g} s" if self.most_s else "full load"


FULL_LOAD: Final = Pause(0.0, 0.0)

Client: TypeAlias = Callable[[int, Pause, int, asyncio.Event, Tally], Coroutine[Any, Any, None]]
Single: TypeAlias = Callable[[int, Pause, asyncio.Event, Tally], Coroutine[Any, Any, None]]


def crowd(single: Single) -> Client:
    """So many of a client, each with a connection of its own."""

    async def many(port: int, pause: Pause, count: int, done: asyncio.Event, tally: Tally) -> None:
        await asyncio.gather(*(single(port, pause, done, tally) for _ in range(count)))

    return many


async def _repeat(
    ask: Callable[[], Coroutine[Any, Any, int]],
    errors: type[Exception] | tuple[type[Exception], ...],
    pause: Pause,
    done: asyncio.Event,
    tally: Tally,
) -> None:
    """Make requests until all is done; `ask` returns a status, or raises one of `errors`."""
    while not done.is_set():
        try:
            status = await ask()
        except errors as error:
            tally.failed.append(repr(error))
        else:
            if status == 200:
                tally.answered += 1
            else:
                tally.failed.append(f"status {status}")
        if pause.most_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause.next_s()):
                    await done.wait()
        else:
            await asyncio.sleep(0)


@crowd
async def raw(port: int, pause: Pause, done: asyncio.Event, tally: Tally) -> None:
    """A bare socket: it takes a connection for alive until a read or write says otherwise."""
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask() -> int:
        nonlocal streams
        ends = True
        try:
            async with asyncio.timeout(DEADLINE_S):
                reader, writer = streams = streams or await asyncio.open_connection("127.0.0.1", port)
                writer.write(REQUEST)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                (length,) = re.findall(rb"content-length: (\d+)", head)
                await reader.readexactly(int(length))
            ends = b"connection: close" in head
            return int(head.split()[1])
        finally:
            if ends and streams is not None:
                streams[1].close()
                streams = None

    await _repeat(ask, (OSError, EOFError), pause, done, tally)
    if streams is not None:
        streams[1].close()


@crowd
async def by_httpx(port: int, pause: Pause, done: asyncio.Event, tally: Tally) -> None:
    """httpx."""
    async with httpx.AsyncClient(timeout=DEADLINE_S, verify=False, trust_env=False) as client:

        async def ask() -> int:
            return (await client.get(f"http://127.0.0.1:{port}/")).status_code

        await _repeat(ask, httpx.HTTPError, pause, done, tally)


@crowd
async def by_aiohttp(port: int, pause: Pause, done: asyncio.Event, tally: Tally) -> None:
    """aiohttp."""
    if importlib.util.find_spec("aiohttp") is None:
        raise NotHereError("aiohttp is not installed (pip install aiohttp)")
    import aiohttp

    async with aiohttp.ClientSession() as client:

        async def ask() -> int:
            async with client.get(f"http://127.0.0.1:{port}/") as answer:
                await answer.read()
                return answer.status

        await _repeat(ask, (aiohttp.ClientError, TimeoutError), pause, done, tally)


@asynccontextmanager
async def asking(server: Server, tally: Tally, *pauses_s: float) -> AsyncIterator[None]:
    """Clients that ask meanwhile, with a connection for each request, so long after they have connected."""
    done = asyncio.Event()

    async def ask(pause_s: float) -> int:
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            with closing(writer):
                await asyncio.sleep(pause_s)  # this is what the client does: it connects first
                writer.write(b"GET /who HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                return int(answer.split()[1]) if answer else 0

    async with asyncio.TaskGroup() as clients:
        for pause_s in pauses_s:
            clients.create_task(_repeat(partial(ask, pause_s), OSError, FULL_LOAD, done, tally))
        try:
            yield
        finally:
            done.set()


async def by_wrk(
    port: int, pause: Pause, count: int, done: asyncio.Event, tally: Tally, folder: Path
) -> None:
    """wrk with so many connections."""
    program = shutil.which("wrk")
    if program is None:
        raise NotHereError("wrk is not installed (Debian: apt-get install wrk)")
    # Its own 2 s count a client that was not run for so long on a busy machine.
    patience = ("--timeout", f"{DEADLINE_S:g}s")
    command = [program, "-t1", f"-c{count}", "-d1h", *patience, f"http://127.0.0.1:{port}/"]
    if pause.most_s:
        script = folder / "pause.lua"
        least_ms, most_ms = round(pause.least_s * 1000), round(pause.most_s * 1000)
        script.write_text(f"function delay() return math.random({least_ms}, {most_ms}) end\n")
        command += ["-s", str(script)]
    async with running(command) as wrk:
        await done.wait()
        wrk.signal(signal.SIGINT)
        await wrk.ended()
    (asked,) = re.findall(r"(\d+) requests in", wrk.text)
    tally.answered += int(asked)
    for what, times in re.findall(r"(connect|read|write|timeout|3xx responses:) (\d+)", wrk.text):
        tally.failed += [f"{what} error" if what in ("connect", "read", "write") else what] * int(times)


@asynccontextmanager
async def nginx(upstream_port: int, keepalive_s: float, folder: Path) -> AsyncIterator[int]:
    """nginx in front of a port, with kept connections to it and without retries; its own port."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        raise NotHereError("nginx is not installed (Debian: apt-get install nginx-light)")
    port = free_port()
    folder.mkdir()  # noqa: ASYNC240  # a moment
    (folder / "nginx.conf").write_text(
        "daemon off; master_process off; pid nginx.pid; error_log error.log;\n"
        "events { worker_connections 512; }\n"
        "http { access_log off;\n"
        + "".join(
            f"{kind}_temp_path {kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f"upstream app {{ server 127.0.0.1:{upstream_port}; keepalive 64;\n"
        f"keepalive_timeout {round(keepalive_s * 1000)}ms; keepalive_requests 1000000; }}\n"
        f"server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000; location / {{\n"
        "proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection '';\n"
        "proxy_next_upstream off; } } }\n"
    )
    async with running([program, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]):
        await eventually(lambda: listens(port), "nginx listens")
        yield port
