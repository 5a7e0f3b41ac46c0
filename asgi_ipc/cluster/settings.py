"""Settings: where the broker is, and what this server is to the cluster.

Law: data. Passwords and the secret stand here and nowhere else, and no text that is made of it shows them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

# For the broker, in the bridge. What does not fit is dropped, and the others are told.
OUTBOX_BYTES: Final = 64 * 1024 * 1024

NATS_SCHEMES: Final = ("nats", "tls")
REDIS_SCHEMES: Final = ("redis", "rediss")

_DEFAULT_PORTS: Final = {"nats": 4222, "tls": 4222, "redis": 6379, "rediss": 6379}


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the bridge is given.

    Attributes:
        urls: of the broker: several servers of one NATS cluster, or one of Redis.
        name: of the cluster: two of different names on one broker don't hear each other.
        ca_file: the certificates that the broker's must be signed by; None: the system's.
        credentials_file: of NATS; None: none.
        secret: seals every envelope; None: whoever can publish at the broker is believed.
        outbox_bytes: what may wait for the broker.
    """

    urls: tuple[str, ...]
    name: str
    ca_file: str | None = None
    credentials_file: str | None = None
    secret: bytes | None = None
    outbox_bytes: int = OUTBOX_BYTES

    def __repr__(self) -> str:
        sealed = "sealed" if self.secret is not None else "not sealed"
        return f"<ClusterSettings {self.name!r} at {', '.join(map(shown, self.urls))}, {sealed}>"

    def without_secrets(self, text: str) -> str:
        """Return a text without the passwords that are in the URLs."""
        for url in self.urls:
            parts = urlsplit(url)
            text = text.replace(url, shown(url))
            for secret in filter(None, (parts.password, unquote(parts.password or ""))):
                text = text.replace(secret, "***")
        return text


def shown(url: str) -> str:
    """Return a URL for a log line, without user and password."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def check_url(url: str) -> str:
    """Return the scheme of a broker's URL. Raises ValueError, whose text has no password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("a URL has a host and a port from 1 to 65535") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"a broker's URL begins with {', '.join(f'{each}://' for each in _DEFAULT_PORTS)}")
    # What follows a "/", "?" or "#" in a password is no part of the access any more, and would be shown.
    if "@" in parts.path + parts.fragment or (
        "@" in parts.query and not parts.query.startswith("credentials=")
    ):
        raise ValueError("special characters of a password are percent-encoded in a URL, as %2F for a slash")
    if not parts.hostname or port == 0:
        raise ValueError(f"{parts.scheme}:// and no host, or no port that there is")
    return parts.scheme


def plain_urls(urls: Sequence[str]) -> list[str]:
    """Return the URLs as a client takes them: without a query, and with a port."""
    plain = []
    for url in urls:
        parts = urlsplit(url)
        netloc = parts.netloc if parts.port else f"{parts.netloc.rstrip(':')}:{_DEFAULT_PORTS[parts.scheme]}"
        plain.append(urlunsplit((parts.scheme, netloc, parts.path, "", "")))
    return plain


def access(urls: Sequence[str]) -> dict[str, str]:
    """Return user and password, or the token, of the first URL that has them, decoded."""
    for parts in map(urlsplit, urls):
        if parts.username is not None and parts.password is not None:
            return {"user": unquote(parts.username), "password": unquote(parts.password)}
        if parts.username is not None:
            return {"token": unquote(parts.username)}
    return {}


def without_access(urls: Sequence[str]) -> list[str]:
    """Return the URLs without user and password."""
    return [urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl() for url in urls]


def token(name: str) -> str:
    """Return a cluster's name as a part of a subject or key: readable, and never that of another name."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:32]
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
