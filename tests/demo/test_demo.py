"""The demo in a fleet of one: routes, refusals, and the words to a page."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

import demo.page
from asgi_ipc import (
    Gathered,
    MessageTooLargeError,
    NotRunningError,
    RequestTimeoutError,
    SendTimeoutError,
    UnknownWorkerError,
    WorkerGoneError,
    ipc,
)
from demo import app
from demo.journal import MAX_ENTRIES, MAX_TEXT_CHARS, Journal
from demo.live import live
from demo.sockets import TRY_AGAIN
from demo.talk import SEEN

DEADLINE_S = 10.0
FOLDER = Path(demo.page.__file__).parent / "static"
OWN = "http://127.0.0.1:8000"
_serial = itertools.count()


def unique(text: str) -> str:
    """A text that no other test has sent: the journal outlives a test."""
    return f"{text} {next(_serial)} {time.monotonic_ns()}"


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
        for path in ("/workers", "/uptime", "/send/1/hi", "/broadcast/hi"):
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
    scripts = sorted(each.name for each in FOLDER.glob("*.js"))
    texts = [page.text]
    for name in ("page.js", "page.css", "side.css", "icon.svg"):
        assert f"static/{name}" in page.text
    for name in (*scripts, "page.css", "side.css", "icon.svg"):
        file = await client.get(f"/static/{name}")
        assert file.status_code == 200
        texts.append(file.text)
    assert "//" not in page.text.replace("<!doctype html>", "")
    assert not any("https://" in text for text in texts)
    assert not any("innerHTML" in text for text in texts)


# --- the words to a page


def test_a_page_is_told_who_is_here_and_what_they_receive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_ALLOWED_HOSTS", "testserver")
    before, after = unique("before"), unique("after")
    with TestClient(app) as client:
        client.post(f"/broadcast/{before}")
        with client.websocket_connect("/live") as page:
            fleet = page.receive_json()
            me = {"pid": os.getpid(), "slot": 0, "generation": 1}
            assert fleet == {
                "kind": "fleet",
                "through": os.getpid(),
                "launcher": None,
                "leader": os.getpid(),
                "workers": [me],
            }
            client.post(f"/broadcast/{after}")

            def told(text: str) -> dict[str, Any]:
                while True:
                    word: dict[str, Any] = page.receive_json()
                    if word["kind"] == "message" and word["text"] == text:
                        return word

            first, second = told(before), told(after)
            assert (first["from"], first["from_slot"], first["generation"]) == (os.getpid(), 0, 1)
            assert first["number"] < second["number"]


def test_the_journal_is_bounded_and_shows_what_is_no_text_as_python_does() -> None:
    journal = Journal()
    for number in range(MAX_ENTRIES + 1):
        journal.add("hello", 7, 0, b"\x00", float(number))
    assert len(journal.entries) == MAX_ENTRIES
    assert (journal.entries[0].number, journal.entries[0].text) == (2, r"b'\x00'")
    assert len(journal.add("hello", 7, None, "x" * (MAX_TEXT_CHARS + 1), 0.0).text) == MAX_TEXT_CHARS


class SlowPage:
    """A WebSocket whose page reads nothing before a signal."""

    def __init__(self) -> None:
        self.words: list[dict[str, Any]] = []
        self.closed_with: int | None = None
        self.reads = asyncio.Event()

    async def accept(self) -> None:
        pass

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("it never goes by itself")

    async def send_json(self, word: dict[str, Any]) -> None:
        await self.reads.wait()
        self.words.append(word)

    async def close(self, code: int) -> None:
        self.closed_with = code


async def test_a_page_that_is_too_slow_is_told_what_waits_and_asked_to_start_afresh() -> None:
    page = SlowPage()
    async with ipc.lifespan(app), asyncio.timeout(DEADLINE_S):
        telling = asyncio.create_task(live(cast(WebSocket, page)))
        # There is no subscriber before the page.
        while not ipc.publish_nowait(SEEN, {"number": 0}):  # noqa: ASYNC110  # each turn of the loop is the event
            await asyncio.sleep(0)
        for number in range(1, 2000):
            await ipc.publish(SEEN, {"number": number})
        page.reads.set()
        await telling
    assert page.words[0]["kind"] == "fleet"
    numbers = [word["number"] for word in page.words if len(word) == 2]
    assert numbers == list(range(len(numbers)))
    assert 1000 <= len(numbers) < 2000
    assert page.closed_with == TRY_AGAIN


# --- questions


async def test_every_worker_is_asked_for_its_uptime(client: httpx.AsyncClient) -> None:
    first, second = [(await client.get("/uptime")).json() for _ in range(2)]
    assert (first["from"], first["errors"]) == (os.getpid(), {})
    pid = str(os.getpid())
    assert 0 < first["uptime"][pid] < second["uptime"][pid]


async def test_who_does_not_answer_has_its_error_in_its_row(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: Gathered[Any] = Gathered()
    answers[7] = 1.5
    answers.errors[8] = RequestTimeoutError(8, "uptime")

    async def gather(*args: object, **options: object) -> Gathered[Any]:
        return answers

    monkeypatch.setattr(ipc, "gather", gather)
    answer = (await client.get("/uptime")).json()
    assert answer["uptime"] == {"7": 1.5}
    assert answer["errors"] == {"8": f"RequestTimeoutError: {answers.errors[8]}"}
