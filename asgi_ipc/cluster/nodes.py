"""Nodes: what names one server of a cluster, and what the others know of it.

Law: data. A node is one start of one launcher; its id is random, so it names no other one, ever.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from asgi_ipc.fleet.membership import Worker

# The kind of the process that holds the connection to the broker.
BRIDGE: Final = "bridge"

# In bytes; written as hexadecimal digits.
NODE_ID_BYTES: Final = 8

NodeState: TypeAlias = Literal["here", "connected", "suspect"]
"""This node; one that was heard a moment ago; one that was not heard for some seconds."""


class Node(msgspec.Struct, frozen=True, eq=False):
    """One server of the cluster, as this worker knows it now. Nodes are equal if their ids are.

    Attributes:
        id: 16 hexadecimal digits, new at each start of the server.
        name: for people: `--node-name`, else the host's name. Several nodes may have the same.
        state: `here` for this worker's own node, `connected`, or `suspect` if nothing was heard of it for 3
            seconds.
        workers: the workers there that can be addressed, by slot.
    """

    id: str
    name: str
    state: NodeState
    workers: tuple[Worker, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)
