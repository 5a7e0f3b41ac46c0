"""The bridge's process, as a helper runs it.

Law: a transport's library is imported here and nowhere else, when it is known which.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec

from asgi_ipc.bridge.bridge import Bridge
from asgi_ipc.bridge.transport import Transport
from asgi_ipc.cluster.envelope import EPOCH_BYTES
from asgi_ipc.cluster.settings import NATS_SCHEMES, ClusterSettings
from asgi_ipc.worker.ipc import ipc


def transport_of(settings: ClusterSettings, node: str) -> Transport:
    """Return the transport for a broker's URL. Raises ImportError if its library is not installed."""
    if settings.urls[0].partition("://")[0] in NATS_SCHEMES:
        from asgi_ipc.bridge.nats import Nats

        return Nats(settings, node)
    from asgi_ipc.bridge.redis import Redis

    return Redis(settings, node)


async def main(stop: asyncio.Event, config: Any) -> None:
    """Serve as the bridge until `stop` is set."""
    settings = msgspec.convert(config, ClusterSettings)
    endpoint = ipc._own.endpoint
    transport = transport_of(settings, endpoint.me.node)
    name = endpoint.settings.node_name
    await Bridge(endpoint, transport, settings, name, os.urandom(EPOCH_BYTES)).run(stop)
