"""Redis or Valkey, by streams: one for each node, one for all.

Law: a node reads each stream from the last entry that it has read, so a connection that breaks costs nothing
that the server still has. Streams have a bound and a time to live; nothing of a node that is gone stays for
long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from asgi_ipc.bridge.transport import Transport, TransportError
from asgi_ipc.cluster.settings import token

CONNECT_TIMEOUT_S: Final = 2.0

# An answer that takes longer never comes.
ANSWER_TIMEOUT_S: Final = 10.0

# How long one read waits. A link that is dead without a word is found out by the answer that does not come.
BLOCK_MS: Final = 2000

# Entries that a node has not read yet; the oldest go first. Each has up to 64 KiB, or one larger message.
MAX_ENTRIES: Final = 10_000

# A stream lives so long after the last entry.
TIME_TO_LIVE_S: Final = 600

READ_ENTRIES: Final = 256

_FIELD: Final = b"e"


class Redis(Transport):
    """Two connections to a Redis server: one that reads, and waits, and one that writes."""

    # Redis takes 512 MiB; less at a time lets others have their turn.
    envelope_bytes = 1024 * 1024

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # One slot, if this is a cluster of Redis servers.
        prefix = f"asgi-ipc:{{{token(self.settings.name)}}}"
        self._all = f"{prefix}:all"
        self._to = f"{prefix}:to:"
        self._last: dict[str, bytes | str] = {}
        self._reader: Client | None = None
        self._writer: Client | None = None

    async def connect(self) -> None:
        self._reader = self._client(BLOCK_MS / 1000 + ANSWER_TIMEOUT_S)
        self._writer = self._client(ANSWER_TIMEOUT_S)
        mine = self._to + self.node
        try:
            await self._writer.ping()
            if not self._last:
                # From now on: what is there was for nobody, or for an earlier life.
                for stream in (mine, self._all):
                    newest = await self._reader.xrevrange(stream, count=1)
                    self._last[stream] = newest[0][0] if newest else "0-0"
        except (RedisError, OSError, TimeoutError) as error:
            await self.close()
            raise TransportError(self.settings.without_secrets(str(error) or type(error).__name__)) from None

    def _client(self, timeout_s: float) -> Client:
        settings = self.settings
        options: dict[str, Any] = {}
        if settings.urls[0].startswith("rediss://") and settings.ca_file is not None:
            options["ssl_ca_certs"] = settings.ca_file
        return Client.from_url(
            settings.urls[0],
            single_connection_client=True,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=timeout_s,
            # A client that tries again hides that something was lost.
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[],
            **options,
        )

    async def publish(self, envelopes: Sequence[tuple[str | None, bytes]]) -> None:
        writer = self._writer
        if writer is None:
            raise TransportError("the connection was closed")
        pipeline = writer.pipeline(transaction=False)
        streams = set()
        for to, envelope in envelopes:
            stream = self._all if to is None else self._to + to
            streams.add(stream)
            pipeline.xadd(stream, {_FIELD: envelope}, maxlen=MAX_ENTRIES, approximate=True)
        for stream in streams:
            pipeline.expire(stream, TIME_TO_LIVE_S)
        try:
            await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise TransportError(str(error) or type(error).__name__) from None

    async def receive(self) -> Sequence[bytes]:
        reader = self._reader
        if reader is None:
            raise TransportError("the connection was closed")
        while True:
            try:
                found = await reader.xread(self._last, count=READ_ENTRIES, block=BLOCK_MS)
            except (RedisError, OSError, TimeoutError) as error:
                raise TransportError(str(error) or type(error).__name__) from None
            arrived: list[bytes] = []
            for stream, entries in found:
                for number, fields in entries:
                    arrived.append(fields.get(_FIELD, b""))
                    self._last[stream.decode()] = number
            if arrived:
                return arrived

    async def close(self) -> None:
        for client in (self._reader, self._writer):
            if client is not None:
                with suppress(RedisError, OSError, TimeoutError, asyncio.CancelledError):
                    await client.aclose()
        self._reader = self._writer = None
