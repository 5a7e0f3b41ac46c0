"""The guard: it answers 4xx to foreign host names and to pages of other sites.

Law: headers in, a refusal out; this file knows no route and no message. Any page can make its browser send
requests, and any name can resolve to 127.0.0.1 (DNS rebinding), so listening on loopback protects from
neither.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

ALLOWED_HOSTS_VARIABLE: Final = "DEMO_ALLOWED_HOSTS"

_OWN_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Host:
    """A name, or an address in its shortest form, and the port if one was given."""

    name: str
    port: int | None


def parse_host(value: str) -> Host | None:
    """Read a Host header, or an item of DEMO_ALLOWED_HOSTS; None if it is neither name nor address."""
    found = _HOST.fullmatch(value.strip().lower())
    if found is None:
        return None
    bracketed, plain, port = found.groups()
    if bracketed is not None and _address(bracketed) is None:
        return None
    name = bracketed or plain
    return Host(_address(name) or name, int(port) if port else None)


def is_own(host: Host, server: tuple[str, int | None] | None, scheme: str, added: frozenset[Host]) -> bool:
    """Tell whether a request for `host` is meant for this server.

    Args:
        server: the address and port that received it, as in the ASGI scope; a Unix socket has no port.
        added: more names; a name without a port is ours with any port.
    """
    asked_port = host.port or _DEFAULT_PORTS[scheme]
    if Host(host.name, None) in added or Host(host.name, asked_port) in added:
        return True
    bound, port = server or ("", None)
    # Compare addresses only: a test client puts any requested name there.
    if host.name not in _OWN_NAMES and host.name != _address(bound):
        return False
    return host.port is None if port is None else asked_port == port


@lru_cache(maxsize=8)
def _added_hosts(variable: str) -> frozenset[Host]:
    return frozenset(filter(None, map(parse_host, variable.split(","))))


def _address(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket for both IP versions shows an IPv4 address in this form.
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


class OwnHostOnly:
    """ASGI middleware: 421 to a foreign Host, 400 to a missing, repeated or malformed one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (refusal := self._refusal(scope)):
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    @staticmethod
    def _refusal(scope: Scope) -> JSONResponse | None:
        values = Headers(scope=scope).getlist("host")
        host = parse_host(values[0]) if len(values) == 1 else None
        if host is None:
            return JSONResponse({"error": "the request needs one Host header: a name and a port"}, 400)
        added = _added_hosts(os.environ.get(ALLOWED_HOSTS_VARIABLE, ""))
        if is_own(host, scope.get("server"), scope.get("scheme", "http"), added):
            return None
        reason = f"{values[0][:80]!r} is not served here; {ALLOWED_HOSTS_VARIABLE} adds names"
        return JSONResponse({"error": reason}, 421)


class OwnPageOnly:
    """ASGI middleware: 403 to a request that a browser sends for a page of another origin.

    `same-site` is refused too: a site is a name without its port, so every other server on this machine
    belongs to our site. Old browsers send no Sec-Fetch-Site, but they send Origin with POST and with
    WebSockets. Clients that are no browsers send neither.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        sites_ok = all(site in ("same-origin", "none") for site in headers.getlist("sec-fetch-site"))
        host = headers.get("host", "").lower()
        origins_ok = all(urlsplit(origin).netloc.lower() == host for origin in headers.getlist("origin"))
        if sites_ok and origins_ok:
            await self._app(scope, receive, send)
            return
        refusal = JSONResponse({"error": "requests that a page of another origin makes are refused"}, 403)
        await refusal(scope, receive, send)
