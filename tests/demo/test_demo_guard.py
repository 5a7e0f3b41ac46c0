"""The demo's guard: which names are ours, and which pages may ask."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from demo import app
from demo.guard import Host, is_own, parse_host

OWN = "http://127.0.0.1:8000"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
@pytest.mark.parametrize("path", ["/send/1/hi", "/broadcast/hi", "/uptime"])
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
