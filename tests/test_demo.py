"""The demo in a fleet of one: routes, refusals, the guard, and what a page is told."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from asgi_ipc import (
    MessageTooLargeError,
    NotRunningError,
    SendTimeoutError,
    UnknownWorkerError,
    WorkerGoneError,
    ipc,
)
from demo import app
from demo.guard import Host, is_own, parse_host
from demo.journal import MAX_ENTRIES, MAX_TEXT_CHARS, Journal
from demo.watchers import MAX_WAITING, Watcher, Watchers

DEADLINE_S = 10.0
OWN = "http://127.0.0.1:8000"
_serial = itertools.count()


def unique(text: str) -> str:
    """A text that no other test has sent: the journal outlives a test."""
    return f"{text} {next(_serial)} {time.monotonic_ns()}"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with ipc.lifespan(app), httpx.AsyncClient(transport=transport, base_url=OWN) as client:
        yield client


async def logged(client: httpx.AsyncClient, name: str, text: str) -> dict[str, Any]:
    """The entry of /log with that name and text, once it is there."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            answer = (await client.get("/log")).json()
            assert answer["pid"] == os.getpid()
            for entry in answer["log"]:
                if entry["name"] == name and text in entry["data"]:
                    return dict(entry)
            await asyncio.sleep(0)


# --- routes


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_send_says_hello_and_is_answered(client: httpx.AsyncClient, method: str) -> None:
    text = unique("hi")
    answer = await client.request(method, f"/send/{os.getpid()}/{text}")
    assert (answer.status_code, answer.json()) == (200, {"from": os.getpid(), "to": os.getpid()})
    hello = await logged(client, "hello", text)
    assert (hello["from"], hello["data"]) == (os.getpid(), text)
    reply = await logged(client, "reply", text)
    assert (reply["from"], reply["data"]) == (os.getpid(), f"hello to you too. You said {text}")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_broadcast_reaches_the_sender_too(client: httpx.AsyncClient, method: str) -> None:
    text = unique("all")
    answer = await client.request(method, f"/broadcast/{text}")
    assert (answer.status_code, answer.json()) == (200, {"from": os.getpid(), "to": [os.getpid()]})
    await logged(client, "hello", text)


async def test_data_may_have_slashes_and_any_letters(client: httpx.AsyncClient) -> None:
    text = unique("a/b//c?d#é 🙂 %")
    assert (await client.get(f"/broadcast/{quote(text)}")).status_code == 200
    assert (await logged(client, "hello", text))["data"] == text


async def test_workers_tells_who_answers_and_who_is_here(client: httpx.AsyncClient) -> None:
    me = {"pid": os.getpid(), "slot": 0, "generation": 1}
    assert (await client.get("/workers")).json() == {"pid": os.getpid(), "workers": [me]}


@pytest.mark.parametrize("pid", ["1", "-1", "0", "abc", "1_0", "\u0661", "9" * 5000, "12.5"])
async def test_an_unknown_worker_is_404_with_the_reason(client: httpx.AsyncClient, pid: str) -> None:
    answer = await client.post(f"/send/{pid}/hi")
    assert answer.status_code == 404
    assert "no worker" in answer.json()["error"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnknownWorkerError(7), 404),
        (MessageTooLargeError(9, 8), 413),
        (SendTimeoutError(7), 503),
        (WorkerGoneError(7), 503),
        (NotRunningError(), 503),
    ],
)
async def test_every_refusal_has_its_status_and_reason(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    async def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(ipc, "send", fail)
    answer = await client.get("/send/7/hi")
    assert (answer.status_code, answer.json()) == (status, {"error": str(error)})


async def test_outside_the_lifespan_it_is_503() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=OWN) as client:
        for path in ("/workers", "/send/1/hi", "/broadcast/hi"):
            assert (await client.get(path)).status_code == 503


async def test_what_is_not_there_is_404_and_redirects_nowhere(client: httpx.AsyncClient) -> None:
    for path in ("/send", "/send/1", "/broadcast", "/static/", "/static/..%2f__init__.py", "/nothing"):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json"), path
    assert (await client.put("/broadcast/hi")).status_code == 405


async def test_the_page_may_reach_nothing_but_this_server(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    texts = [page.text]
    for name in ("page.js", "page.css", "icon.svg"):
        assert f"static/{name}" in page.text
        texts.append((await client.get(f"/static/{name}")).text)
    assert "//" not in page.text.replace("<!doctype html>", "")
    assert not any("https://" in text for text in texts)
    assert "innerHTML" not in texts[1]


# --- the guard


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
@pytest.mark.parametrize("path", ["/send/1/hi", "/broadcast/hi"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_what_a_foreign_page_sends_is_refused(
    client: httpx.AsyncClient, method: str, path: str, site: str
) -> None:
    answer = await client.request(method, path, headers={"Sec-Fetch-Site": site})
    assert answer.status_code == 403


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_what_the_own_page_or_the_user_sends_is_served(client: httpx.AsyncClient, site: str) -> None:
    headers = {"Sec-Fetch-Site": site, "Origin": OWN}
    assert (await client.post("/broadcast/hi", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://127.0.0.1:3000", "http://127.0.0.1"]
)
async def test_a_foreign_origin_is_refused_where_the_browser_is_old(
    client: httpx.AsyncClient, origin: str
) -> None:
    assert (await client.post("/broadcast/hi", headers={"Origin": origin})).status_code == 403


async def test_a_link_from_elsewhere_to_the_page_works(client: httpx.AsyncClient) -> None:
    assert (await client.get("/", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 200


@pytest.mark.parametrize("path", ["/", "/workers", "/log", "/send/1/hi", "/broadcast/hi", "/nothing"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1:1", "127.0.0.1", "[::2]:8000"]
)
async def test_a_foreign_host_is_refused_on_every_path(
    client: httpx.AsyncClient, path: str, host: str
) -> None:
    assert (await client.get(path, headers={"Host": host})).status_code == 421


@pytest.mark.parametrize("host", ["", "a b", "127.0.0.1:", "u@127.0.0.1:8000", "[::1]x", "::1", "[:::]:1"])
async def test_a_host_that_is_none_is_refused(client: httpx.AsyncClient, host: str) -> None:
    assert (await client.get("/workers", headers={"Host": host})).status_code == 400


@pytest.mark.parametrize("hosts", [[], [b"127.0.0.1:8000", b"evil.example"]])
async def test_one_host_header_is_needed(client: httpx.AsyncClient, hosts: list[bytes]) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/workers",
        "query_string": b"",
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "headers": [(b"host", host) for host in hosts],
    }
    await app(scope, receive, send)
    assert sent[0]["status"] == 400


async def test_allowed_hosts_adds_names(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def status(host: str) -> int:
        return (await client.get("/workers", headers={"Host": host})).status_code

    assert await status("testserver") == 421
    monkeypatch.setenv("DEMO_ALLOWED_HOSTS", "testserver, Demo.Example:9000, [::7]:80,")
    for host in ("testserver", "testserver:1234", "demo.example:9000", "[0::7]", "localhost:8000"):
        assert await status(host) == 200, host
    for host in ("demo.example", "demo.example:8000", "[::7]:8000", "x.testserver"):
        assert await status(host) == 421, host


TCP = ("127.0.0.1", 8000)


@pytest.mark.parametrize(
    ("host", "server", "scheme", "own"),
    [
        ("localhost:8000", TCP, "http", True),
        ("LOCALHOST:8000", TCP, "ws", True),
        ("[::1]:8000", TCP, "http", True),
        ("[0:0:0:0:0:0:0:1]:8000", TCP, "http", True),
        ("localhost", TCP, "http", False),
        ("localhost", ("127.0.0.1", 80), "http", True),
        ("localhost", ("127.0.0.1", 443), "wss", True),
        ("localhost", ("127.0.0.1", 443), "http", False),
        ("192.0.2.7:8000", TCP, "http", False),
        ("192.0.2.7:8000", ("192.0.2.7", 8000), "http", True),
        ("192.0.2.7:8000", ("::ffff:192.0.2.7", 8000), "http", True),
        ("[2001:db8::1]:8000", ("2001:db8:0::1", 8000), "http", True),
        ("evil.example:8000", ("evil.example", 8000), "http", False),
        ("localhost", ("/run/demo.sock", None), "http", True),
        ("localhost:8000", ("/run/demo.sock", None), "http", False),
        ("localhost", None, "http", True),
        ("evil.example", None, "http", False),
    ],
)
def test_own_is_the_bound_address_or_loopback_with_the_port(
    host: str, server: tuple[str, int | None] | None, scheme: str, own: bool
) -> None:
    parsed = parse_host(host)
    assert parsed is not None
    assert is_own(parsed, server, scheme, frozenset()) is own


def test_a_host_is_a_name_or_an_address_and_a_port() -> None:
    assert parse_host("Name.Example:80") == Host("name.example", 80)
    assert parse_host("[0::1]") == Host("::1", None)
    assert parse_host("[name]:80") is None


# --- what a page is told


def test_a_page_is_told_who_is_here_and_what_they_receive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_ALLOWED_HOSTS", "testserver")
    before, after = unique("before"), unique("after")
    with TestClient(app) as client:
        client.post(f"/broadcast/{before}")
        with client.websocket_connect("/live") as page:
            fleet = page.receive_json()
            me = {"pid": os.getpid(), "slot": 0, "generation": 1}
            assert fleet == {"kind": "fleet", "through": os.getpid(), "workers": [me]}
            client.post(f"/broadcast/{after}")

            def told(text: str) -> dict[str, Any]:
                while True:
                    word: dict[str, Any] = page.receive_json()
                    if word["kind"] == "message" and word["text"] == text:
                        return word

            first, second = told(before), told(after)
            assert (first["from"], first["from_slot"], first["generation"]) == (os.getpid(), 0, 1)
            assert first["number"] < second["number"]


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}])
def test_a_foreign_page_is_told_nothing(monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]) -> None:
    monkeypatch.setenv("DEMO_ALLOWED_HOSTS", "testserver")
    with (
        TestClient(app) as client,
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/live", headers=headers),
    ):
        pass


def test_the_journal_is_bounded_and_shows_what_is_no_text_as_python_does() -> None:
    journal = Journal()
    for number in range(MAX_ENTRIES + 1):
        journal.add("hello", 7, 0, b"\x00", float(number))
    assert len(journal.entries) == MAX_ENTRIES
    assert (journal.entries[0].number, journal.entries[0].text) == (2, r"b'\x00'")
    assert len(journal.add("hello", 7, None, "x" * (MAX_TEXT_CHARS + 1), 0.0).text) == MAX_TEXT_CHARS


async def test_a_watcher_takes_all_that_waits_and_says_when_it_was_too_slow() -> None:
    watcher = Watcher(1)
    assert await watcher.take(0.0) == []
    for number in range(MAX_WAITING):
        watcher.put({"number": number})
    full = watcher.overflowed
    watcher.put({})
    assert (full, watcher.overflowed) == (False, True)
    assert [message["number"] for message in await watcher.take(DEADLINE_S)] == list(range(MAX_WAITING))


def _tell_one(watchers: Watchers, watcher: Watcher) -> None:
    watchers.tell(watcher.token, {"n": 1})


def _tell_all(watchers: Watchers, watcher: Watcher) -> None:
    watchers.tell_all({"n": 1})


@pytest.mark.parametrize("tell", [_tell_one, _tell_all])
async def test_who_has_closed_is_told_nothing(tell: Callable[[Watchers, Watcher], None]) -> None:
    watchers = Watchers()
    staying, leaving = watchers.open(), watchers.open()
    watchers.close(leaving)
    tell(watchers, leaving)
    tell(watchers, staying)
    assert await leaving.take(0.0) == []
    assert {"n": 1} in await staying.take(DEADLINE_S)
