"""Settings: where the broker is, and what this server is to the cluster.

Law: data. Passwords and the secret stand here and nowhere else, and no text that is made of it shows them.
"""

from __future__ import annotations

import hashlib
import re
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
            for secret in (parts.password, parts.username if parts.password is None else None):
                if secret:
                    text = text.replace(secret, "***").replace(unquote(secret), "***")
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
    in_query = "" if parts.query.startswith("credentials=") else parts.query
    if "@" in parts.path + parts.fragment + in_query:
        raise ValueError("special characters of a password are percent-encoded in a URL, as %2F for a slash")
    if not parts.hostname or port == 0:
        raise ValueError(f"{parts.scheme}:// and no host, or no port that there is")
    return parts.scheme


def with_port(url: str) -> str:
    """Return a URL with a port, and without the user, whom a client is given apart."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    netloc = host if parts.port else f"{host.rstrip(':')}:{_DEFAULT_PORTS[parts.scheme]}"
    return urlunsplit((parts.scheme, netloc, parts.path, "", ""))


def token(name: str) -> str:
    """Return a cluster's name as a part of a subject or key: readable, and never that of another name."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:32]
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
