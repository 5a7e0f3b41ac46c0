"""Brokers: real servers of NATS and Redis for a test or a row, each on a free port of 127.0.0.1.

Law: a test starts its own broker, waits until it accepts connections, and ends it. One that is not installed
skips the test, or fails it where it is required (needs.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

from _pytest.outcomes import Skipped

from asgi_ipc.bridge.main import transport_of
from asgi_ipc.bridge.transport import Transport
from asgi_ipc.cluster.settings import ClusterSettings
from asgi_ipc.testing.child import Child
from tests.needs import need
from tests.serving import ROOT, eventually, free_port, listens

Kind: TypeAlias = Literal["nats", "redis"]

KINDS: Final[tuple[Kind, ...]] = ("nats", "redis")

CERTIFICATES: Final = ROOT / "tests" / "certificates"
# For localhost, signed by itself.
CERTIFICATE, KEY = CERTIFICATES / "cert.pem", CERTIFICATES / "key.pem"

USER: Final = "ann"
# With what has a meaning in a URL.
PASSWORD: Final = "pa55/w0rd@a:b"


def nats_server() -> str:
    """The path of a nats-server: the wheel's, which is beside this Python, or the system's."""
    beside = shutil.which("nats-server", path=str(Path(sys.executable).parent))
    return beside or need("nats-server")


def redis_server() -> str:
    """The path of a redis-server, or of its twin."""
    return need("redis-server")


def is_here(kind: Kind) -> bool:
    """Whether there is a broker of that kind; not, where one that is required is missing."""
    try:
        _ = nats_server() if kind == "nats" else redis_server()
    except Skipped:
        return False
    return True


class Broker:
    """One server. It can be killed, and started again at the same port; what it had is gone then.

    `is_tls`: with the certificate of the tests; `is_locked`: USER with PASSWORD, and nobody else.
    """

    def __init__(self, kind: Kind, folder: Path, *, is_tls: bool = False, is_locked: bool = False) -> None:
        self.kind = kind
        self.port = free_port()
        self._is_tls = is_tls
        self._is_locked = is_locked
        self._folder = folder
        self._command = self._nats() if kind == "nats" else self._redis()
        self._child: Child | None = None

    def url(self, port: int = 0, user: str = USER, password: str = PASSWORD) -> str:
        """The broker's URL, or that of a proxy in front of it."""
        tls, plain = ("tls", "nats") if self.kind == "nats" else ("rediss", "redis")
        access = f"{user}:{quote(password, safe='')}@" if self._is_locked else ""
        # The certificate's name.
        host = "localhost" if self._is_tls else "127.0.0.1"
        return f"{tls if self._is_tls else plain}://{access}{host}:{port or self.port}"

    def transport(
        self, node: str, *, port: int = 0, url: str = "", name: str = "test", ca_file: Path | None = None
    ) -> Transport:
        """A connection of that node to it, not connected yet."""
        ca = str(ca_file) if ca_file is not None else None
        return transport_of(ClusterSettings(urls=(url or self.url(port),), name=name, ca_file=ca), node)

    async def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        child = self._child = Child(self._command, env=os.environ, cwd=self._folder)
        await eventually(
            lambda: child.status is not None or listens(self.port), f"{self.kind} has not started"
        )
        assert child.status is None, child.read(0).decode(errors="replace")

    async def kill(self) -> None:
        """Kill it, and wait until it has ended."""
        child = self._child
        assert child is not None
        child.signal(signal.SIGKILL)
        await eventually(lambda: child.status is not None, f"{self.kind} has not ended")
        self.close()

    def pause(self) -> None:
        """Stop it in its tracks: connections stay, and nothing is answered."""
        assert self._child is not None
        self._child.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._child is not None
        self._child.signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, if it runs."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _nats(self) -> list[str]:
        lines = [f"listen: 127.0.0.1:{self.port}"]
        if self._is_locked:
            lines.append(f'authorization {{ user: "{USER}", password: "{PASSWORD}" }}')
        if self._is_tls:
            lines.append(f'tls {{ cert_file: "{CERTIFICATE}", key_file: "{KEY}" }}')
        return [nats_server(), "--config", self._config("nats.conf", lines)]

    def _redis(self) -> list[str]:
        # Nothing of it is on a disk.
        lines = ["bind 127.0.0.1", 'save ""', "appendonly no", f"dir {self._folder}"]
        lines += [f"port {0 if self._is_tls else self.port}"]
        if self._is_locked:
            lines += ["user default off", f"user {USER} on >{PASSWORD} ~* &* +@all"]
        if self._is_tls:
            lines += [f"tls-port {self.port}", "tls-auth-clients no"]
            lines += [f"tls-cert-file {CERTIFICATE}", f"tls-key-file {KEY}"]
        return [redis_server(), self._config("redis.conf", lines)]

    def _config(self, name: str, lines: list[str]) -> str:
        path = self._folder / f"{self.port}-{name}"
        path.write_text("\n".join([*lines, ""]))
        return str(path)


@asynccontextmanager
async def broker(
    kind: Kind, folder: Path, *, is_tls: bool = False, is_locked: bool = False, is_started: bool = True
) -> AsyncIterator[Broker]:
    """A broker that runs, and is ended at the end."""
    there = Broker(kind, folder, is_tls=is_tls, is_locked=is_locked)
    try:
        if is_started:
            await there.start()
        yield there
    finally:
        there.close()
