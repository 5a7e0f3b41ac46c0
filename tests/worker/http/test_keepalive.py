"""Kept connections at a worker that leaves, seen from bare sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvicorn
from uvicorn.main import main as uvicorn_command

from asgi_ipc.testing.child import is_running
from tests.faults.keeping import Pause, Tally, raw
from tests.serving import DEADLINE_S, RESTARTED, ROOT, Server, eventually, serving, serving_by

APP = "tests.apps.kept:app"

# So long that whatever ends before is ended by something else.
LONG_S = "60"

# An idle connection whose time is over, on a machine that is busy: nothing else would ever end it.
SLACK_S = 10.0

# What is closed at once: within some 0.1 s, but on a busy machine, and long before `LONG_S`.
AT_ONCE_S = 15.0

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


class Kept:
    """A connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = ""

    async def begin(self, path: str, *headers: str) -> None:
        """Send a request."""
        lines = [f"GET {path} HTTP/1.1", "Host: test", *headers, "", ""]
        self.writer.write("\r\n".join(lines).encode())

    async def heard_head(self) -> str:
        async with asyncio.timeout(DEADLINE_S):
            self.head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        return self.head

    async def heard(self) -> int:
        """The pid in an answer."""
        head = await self.heard_head()
        assert head.startswith("http/1.1 200"), head
        length = int(head.partition("content-length: ")[2].split()[0])
        async with asyncio.timeout(DEADLINE_S):
            return int(await self.reader.readexactly(length))

    async def ask(self, path: str = "/") -> int:
        """One request and its answer, the worker's pid."""
        await self.begin(path)
        return await self.heard()

    @property
    def says_close(self) -> bool:
        """Whether the last response has announced the end of the connection."""
        return "connection: close\r\n" in self.head

    async def end(self) -> float:
        """Wait for the server's end of file, which is no reset, and nothing before it; when it came."""
        async with asyncio.timeout(DEADLINE_S):
            assert await self.reader.read() == b""
        return time.monotonic()

    async def until_leaving(self, pid: int) -> None:
        """Ask until the worker leaves and says so; that one request has been answered, too."""
        while not self.says_close:
            assert await self.ask() == pid
        await self.end()

    async def restart(self, server: Server, old: int) -> None:
        """Restart the server, and ask until its worker leaves."""
        server.signal(signal.SIGHUP)
        await self.until_leaving(old)


@asynccontextmanager
async def kept(server: Server, count: int) -> AsyncIterator[list[Kept]]:
    """So many connections, which have asked nothing yet."""
    async with AsyncExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = Kept(*await asyncio.open_connection("127.0.0.1", server.port))
            stack.callback(connection.writer.close)
            connections.append(connection)
        yield connections


@asynccontextmanager
async def one_worker(*options: str) -> AsyncIterator[tuple[Server, int]]:
    async with serving(APP, *options, workers=1) as server:
        await server.said("The worker is ready")
        (pid,) = server.workers()
        yield server, pid


# --- with a successor


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_kept_connection_is_answered_and_told_to_close_before_it_is_closed(
    http: str, loop: str
) -> None:
    options = ("--http", http, "--loop", loop, "--timeout-keep-alive", LONG_S)
    async with one_worker(*options) as (server, old), kept(server, 5) as connections:
        busy, idle, stream, late, silent = connections
        assert {await busy.ask(), await idle.ask()} == {old}
        await stream.begin("/held")
        assert "close" not in await stream.heard_head()
        await late.begin("/late")
        await busy.restart(server, old)
        # One that was idle when it began to leave, one whose first request comes now, and one whose
        # response had not begun.
        assert await idle.ask("/release") == await silent.ask() == await late.heard() == old
        assert all(each.says_close for each in (idle, silent, late))
        await asyncio.gather(idle.end(), silent.end(), late.end())
        # One whose response had begun can't be told before the next.
        assert b"end" in await stream.reader.readuntil(b"0\r\n\r\n")
        assert await stream.ask() == old
        assert stream.says_close
        await stream.end()
        await server.said(RESTARTED)
        assert not is_running(old)
        async with kept(server, 1) as (new,):
            assert await new.ask() == server.workers()[0] != old
            assert not new.says_close


async def test_an_idle_connection_lives_as_long_as_without_a_restart() -> None:
    async with one_worker("--timeout-keep-alive", "2") as (server, old), kept(server, 3) as connections:
        busy, idle, silent = connections
        assert await idle.ask() == await busy.ask() == old
        asked_at = time.monotonic()
        await busy.restart(server, old)
        leaving_at = time.monotonic()
        for connection in (idle, silent):
            assert asked_at + 1.9 <= await connection.end() <= leaving_at + 2 + SLACK_S
        await server.said(RESTARTED)
        assert not is_running(old)


async def test_a_worker_that_waits_for_idle_connections_holds_up_no_other_slot_and_no_further_restart() -> (
    None
):
    async with serving(APP, "--timeout-keep-alive", LONG_S, workers=2) as server:
        await server.said("All 2 workers are ready")
        async with kept(server, 20) as connections:
            held = {await connection.ask() for connection in connections}
            for count in (2, 3):
                server.signal(signal.SIGHUP)
                await server.said("All 2 workers are ready", count)
            assert not server.count(RESTARTED)
            assert held <= set(server.workers())
            assert {await connection.ask() for connection in connections} == held
            assert all(connection.says_close for connection in connections)
        # Each of the two is over when the last worker from before it has gone.
        await server.said(RESTARTED, 2)


async def test_whoever_is_scaled_away_or_recycled_lets_its_clients_go_too() -> None:
    async with serving(APP, "--timeout-keep-alive", LONG_S, workers=2) as server:
        await server.said("All 2 workers are ready")
        async with kept(server, 20) as connections:
            pids = [await connection.ask() for connection in connections]
            await server.fewer(1)
            while len({await each.ask() for each in connections if not each.says_close}) > 1:
                pass
            for connection, pid in zip(connections, pids, strict=True):
                if not connection.says_close:
                    assert await connection.ask() == pid
    async with one_worker("--limit-max-requests", "10") as (server, old), kept(server, 1) as (only,):
        await only.until_leaving(old)


async def test_a_websocket_at_a_leaving_worker_has_no_such_header_and_ends_with_1012() -> None:
    async with one_worker("--timeout-keep-alive", LONG_S) as (server, old), kept(server, 2) as (busy, idle):
        assert await idle.ask() == old
        await busy.restart(server, old)
        await idle.begin("/echo", *UPGRADE)
        head = await idle.heard_head()
        assert head.startswith("http/1.1 101")
        assert "connection: upgrade" in head
        assert "close" not in head
        # FIN and the close opcode; then the code.
        frame = await idle.reader.readexactly(4)
        assert frame[0] == 0x88
        assert int.from_bytes(frame[2:4], "big") == 1012


async def test_requests_through_a_unix_socket_are_told_as_well(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    async with serving(APP, "--uds", str(path), "--timeout-keep-alive", LONG_S, workers=1) as server:
        await server.said("The worker is ready")
        connection = Kept(*await asyncio.open_unix_connection(path))
        old = await connection.ask()
        await connection.restart(server, old)
        connection.writer.close()


async def test_requests_through_tls_are_told_as_well_and_no_new_connection_is_refused() -> None:
    key, certificate = (ROOT / "tests" / "certificates" / name for name in ("key.pem", "cert.pem"))
    trusting = ssl.create_default_context(cafile=certificate)
    options = ("--ssl-keyfile", str(key), "--ssl-certfile", str(certificate), "--timeout-keep-alive", LONG_S)
    async with one_worker(*options) as (server, old):

        async def connect() -> Kept:
            address = ("localhost", server.port)
            return Kept(*await asyncio.open_connection(*address, ssl=trusting, family=socket.AF_INET))

        connection, idle = await connect(), await connect()
        assert await idle.ask() == old
        server.signal(signal.SIGHUP)
        while not connection.says_close:
            assert await connection.ask() == old
            # Each in the midst of its handshake may be the one that meets the end of the listener.
            new = await connect()
            assert await new.ask() in (old, *server.workers())
            new.writer.close()
        assert await idle.ask() == old
        assert idle.says_close
        connection.writer.close()
        idle.writer.close()


async def test_an_http2_connection_gets_goaway_and_its_streams_are_finished() -> None:
    zttp = pytest.importorskip("zttp")
    if "--http2" not in {name for option in uvicorn_command.params for name in option.opts}:
        pytest.skip(f"uvicorn {uvicorn.__version__} has no HTTP/2")
    options = ("--http", "zttp", "--http2", "--timeout-keep-alive", LONG_S)
    async with one_worker(*options) as (server, old), kept(server, 4) as (busy, idle, multiplexed, quiet):
        assert await idle.ask() == old
        clients = []
        for connection in (multiplexed, quiet):
            client = zttp.Connection(zttp.CLIENT, protocol=zttp.HTTP2)
            client.initiate_connection()
            clients.append(client)
            client.send_request(b"GET", b"/late", b"2", [(b"host", b"test")]).end_message()
            connection.writer.write(client.data_to_send())
        client, _ = clients
        await busy.restart(server, old)
        seen: list[str] = []
        async with asyncio.timeout(DEADLINE_S):
            while "GoAway" not in seen:
                client.receive_data(await multiplexed.reader.read(65536))
                seen += _events(zttp, client)
            # What has crossed with it is answered, too.
            client.send_request(b"GET", b"/", b"2", [(b"host", b"test")]).end_message()
            multiplexed.writer.write(client.data_to_send())
            await idle.ask("/release")
            while data := await multiplexed.reader.read(65536):
                client.receive_data(data)
                seen += _events(zttp, client)
            await quiet.reader.read()
        assert seen.count("EndOfMessage") == 2
        assert seen.count("200") == 2
        await server.said(RESTARTED)


def _events(zttp: ModuleType, client: Any) -> list[str]:
    """What an HTTP/2 client has heard: the kinds of events, and the status of each response."""
    found = []
    while (event := client.next_event()) is not zttp.NEED_DATA:
        found.append(str(event.status_code) if isinstance(event, zttp.Response) else type(event).__name__)
    return found


async def test_no_recycled_worker_fails_a_client_and_one_is_replaced_at_a_time() -> None:
    async with serving(APP, "--limit-max-requests", "50", workers=4) as server:
        await server.said("All 4 workers are ready")
        done, tally = asyncio.Event(), Tally()
        # All reach the limit within the time that one takes to start.
        clients = asyncio.create_task(raw(server.port, Pause(0.0, 0.02), 16, done, tally))
        await server.said("Application startup complete", 4 + 4)
        done.set()
        await clients
        assert not tally.failed
        assert await server.stop() == 0
        started, ready = 0, 0
        for line in server.lines:
            started += "Started server process" in line
            ready += "Application startup complete" in line
            assert ready < 4 or started - ready <= 1, server.text


# --- without


@pytest.mark.parametrize("program", ["asgi-ipc", "uvicorn"])
async def test_a_full_stop_closes_idle_connections_at_once(program: str) -> None:
    async with serving_by(program, APP, "--timeout-keep-alive", LONG_S) as server:
        async with kept(server, 4) as connections:
            for connection in connections:
                await connection.ask()
            stopped_at = time.monotonic()
            server.signal(signal.SIGTERM)
            for connection in connections:
                assert await connection.end() < stopped_at + AT_ONCE_S
        assert await server.ended() == 0
        assert time.monotonic() < stopped_at + AT_ONCE_S


@pytest.mark.parametrize("how", ["a stop", "a second stop", "the launcher's death"])
async def test_what_ends_the_server_ends_a_worker_that_waits_for_idle_connections(how: str) -> None:
    async with one_worker("--timeout-keep-alive", LONG_S) as (server, old), kept(server, 3) as connections:
        busy, idle, stream = connections
        assert await idle.ask() == old
        if how == "a second stop":
            await stream.begin("/held")
            await stream.heard_head()
        await busy.restart(server, old)
        ended_at = time.monotonic()
        if how == "the launcher's death":
            os.kill(server.pid, signal.SIGKILL)
        else:
            server.signal(signal.SIGTERM)
        assert await idle.end() < ended_at + AT_ONCE_S
        if how == "a second stop":
            server.signal(signal.SIGTERM)
        status = await server.ended()
        assert status == {"a stop": 0, "a second stop": 143, "the launcher's death": -9}[how]
        await eventually(lambda: not is_running(old), "the old worker has ended")
        assert time.monotonic() < ended_at + AT_ONCE_S


# --- what it waits for


async def test_an_open_request_that_holds_up_a_stop_is_named_once_with_what_bounds_it() -> None:
    async with one_worker("--timeout-keep-alive", LONG_S) as (server, old), kept(server, 3) as connections:
        busy, stream, idle = connections
        assert await idle.ask() == old
        await stream.begin("/held%1B[31m?secret=1")
        await stream.heard_head()
        await busy.restart(server, old)
        told_at = time.monotonic()
        (line,) = await server.said(rf"Worker \[{old}\] stops, and waits for")
        # Within 5 s; but a machine that is busy may need a little for the rest.
        assert time.monotonic() < told_at + AT_ONCE_S
        assert r"GET /held\x1b[31m, open for " in line
        assert "--timeout-graceful-shutdown would bound that, and is not set" in line
        await idle.ask("/release")
        stream.writer.close()
        await server.said(RESTARTED)
        assert server.count("stops, and waits for") == 1


async def test_a_websocket_that_holds_up_a_full_stop_is_named_with_the_time_that_it_has() -> None:
    async with one_worker("--timeout-graceful-shutdown", "5") as (server, old), kept(server, 1) as (socket,):
        await socket.begin("/stubborn", *UPGRADE)
        await socket.heard_head()
        server.signal(signal.SIGTERM)
        (line,) = await server.said(rf"Worker \[{old}\] stops, and waits for")
        assert "WebSocket /stubborn, open for " in line
        assert "--timeout-graceful-shutdown (5 s) bounds that" in line
        assert await server.ended() == 0


async def test_idle_connections_and_a_drain_that_hold_up_a_stop_are_named_with_what_bounds_them() -> None:
    options = ("--timeout-keep-alive", "7", "--timeout-graceful-shutdown", "9", "--drain-timeout", "8")
    async with one_worker(*options) as (server, old), kept(server, 2) as (busy, idle):
        assert await idle.ask("/long") == old
        await busy.restart(server, old)
        (line,) = await server.said(rf"Worker \[{old}\] stops, and waits for 1 connection")
        assert "--timeout-keep-alive (7 s) bounds that" in line
        # That one was the last.
        await idle.ask()
        (line,) = await server.said(rf"Worker \[{old}\] stops, and waits for messages")
        assert "--drain-timeout (8 s) bounds that" in line


async def test_the_warning_of_a_stall_shows_the_line_of_the_app_that_blocks() -> None:
    async with one_worker() as (server, old), kept(server, 1) as (blocked,):
        await blocked.begin("/block?s=5")
        await server.said(rf"Worker \[{old}\] is stalled.* It stands here:")
        line = server.lines.index(server.found("is stalled")[0])
        await server.said("not of the app")
        first = server.lines[line + 1]
        assert "tests/apps/kept.py:" in first
        assert 'in block: time.sleep(float(request.query_params["s"]))' in first
        await server.said(rf"Worker \[{old}\] responds again")
        assert await blocked.heard() == old
