"""NATS core: one subject for each node, one for all.

Law: nothing is given to a client that is not connected: nats-py would keep it, and lose it after it has
connected again. So it connects once, and the bridge makes the next client. What is for this node comes
through one subscription, since two of them would lose the order.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from asgi_ipc.bridge.transport import MAX_ARRIVED_BYTES, Transport, TransportError
from asgi_ipc.cluster.settings import token, with_port

CONNECT_TIMEOUT_S: Final = 2.0

# A client that says good-bye waits for a link that may be dead, or whose TLS has failed, without any limit.
CLOSE_TIMEOUT_S: Final = 2.0

# A link that is dead without a word is found out by pings: after two of them without an answer.
PING_S: Final = 5
PINGS: Final = 2

# The server has what was given to the client when it answers a ping; no more than this is on its way.
FLUSH_BYTES: Final = 1024 * 1024
FLUSH_TIMEOUT_S: Final = 10


class Nats(Transport):
    """One client of a NATS server."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        prefix = f"asgi-ipc.{token(self.settings.name)}"
        self._all = f"{prefix}.all"
        self._to = f"{prefix}.to."
        self._client: Client | None = None
        self._broken = asyncio.Event()
        self._why = ""
        self._arrived: list[bytes] = []
        self._arrived_bytes = 0
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._unflushed_bytes = 0

    async def connect(self) -> None:
        self._arrived, self._arrived_bytes, self._unflushed_bytes = [], 0, 0
        self._room.set()
        reasons: dict[str, None] = {}
        for url in random.sample(self.settings.urls, len(self.settings.urls)):
            # The last one has closed, and said so.
            self._broken.clear()
            self._why = ""
            try:
                client = await self._connect_to(url)
                break
            except (OSError, nats.errors.Error, TimeoutError, ValueError) as error:
                reasons[self._why or str(error) or type(error).__name__] = None
                await self.close()
        else:
            raise TransportError(self.settings.without_secrets("; ".join(reasons)))
        self._why = "the connection was closed"
        self.envelope_bytes = client.max_payload

    async def _connect_to(self, url: str) -> Client:
        client = self._client = Client()
        await client.connect(
            with_port(url),
            name=f"asgi-ipc {self.node}",
            allow_reconnect=False,
            # Of the first connection. Zero would be for ever; between two tries it is the bridge that waits.
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            no_echo=True,
            connect_timeout=int(CONNECT_TIMEOUT_S),
            ping_interval=PING_S,
            max_outstanding_pings=PINGS,
            tls=self._tls(url),
            user_credentials=self.settings.credentials_file,
            error_cb=self._on_error,
            closed_cb=self._on_closed,
            disconnected_cb=self._on_closed,
            **_user_of(url),
        )
        # One for what is for this node, in order; the greetings to all need none.
        await client.subscribe(self._to + self.node, cb=self._on_message)
        await client.subscribe(self._all, cb=self._on_message)
        # The client's ping overtakes what it still has to send; behind the first answer it has sent that.
        for _ in range(2):
            await client.flush(int(CONNECT_TIMEOUT_S))
        return client

    def _tls(self, url: str) -> ssl.SSLContext | None:
        if self.settings.ca_file is None and not url.startswith("tls://"):
            # The client makes its own if the server asks for it.
            return None
        return ssl.create_default_context(cafile=self.settings.ca_file)

    async def publish(self, envelopes: Sequence[tuple[str | None, bytes]]) -> None:
        client = self._client
        try:
            for to, envelope in envelopes:
                if client is None or self._broken.is_set():
                    raise TransportError(self._why)
                await client.publish(self._all if to is None else self._to + to, envelope)
                self._unflushed_bytes += len(envelope)
                if self._unflushed_bytes >= FLUSH_BYTES:
                    self._unflushed_bytes = 0
                    await client.flush(FLUSH_TIMEOUT_S)
        except (OSError, nats.errors.Error, TimeoutError) as error:
            raise TransportError(str(error) or type(error).__name__) from None

    async def receive(self) -> Sequence[bytes]:
        while not self._arrived:
            if self._broken.is_set():
                raise TransportError(self._why)
            self._something.clear()
            await self._something.wait()
        arrived, self._arrived, self._arrived_bytes = self._arrived, [], 0
        self._room.set()
        return arrived

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(OSError, nats.errors.Error, TimeoutError, asyncio.InvalidStateError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await client.close()

    async def _on_message(self, message: Msg) -> None:
        # While it waits, the client keeps what comes, up to its own bound, and drops the rest.
        while self._arrived_bytes >= MAX_ARRIVED_BYTES:
            self._room.clear()
            await self._room.wait()
        self._arrived.append(message.data)
        self._arrived_bytes += len(message.data)
        self._something.set()

    async def _on_error(self, error: Exception) -> None:
        self._why = str(error) or type(error).__name__

    async def _on_closed(self) -> None:
        self._broken.set()
        self._something.set()
        self._room.set()


def _user_of(url: str) -> dict[str, str]:
    """Return who the URL names: a user with a password, or a token."""
    parts = urlsplit(url)
    if not parts.username:
        return {}
    if parts.password is None:
        return {"token": unquote(parts.username)}
    return {"user": unquote(parts.username), "password": unquote(parts.password)}
