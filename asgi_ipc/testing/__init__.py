"""The test kit: a fleet in one process, and a real server as a child of a test.

Law: the public names, nothing else. Nothing in the product imports this, and
nothing here but the plugin imports pytest.
"""

from __future__ import annotations

from asgi_ipc.testing.broker import MemoryBroker
from asgi_ipc.testing.clusters import Nodes, cluster
from asgi_ipc.testing.members import Members, fleet
from asgi_ipc.testing.serving import Serve, ServeError, Server, serve

__all__ = [
    "Members",
    "MemoryBroker",
    "Nodes",
    "Serve",
    "ServeError",
    "Server",
    "cluster",
    "fleet",
    "serve",
]
