"""Arenas: the shared memory of this worker, and of the others that it reads.

Law: `wire/arena.py` decides about the use of blocks. Here memory is mapped, receipts are passed on, and
memory without a use goes back to the kernel.
"""

from __future__ import annotations

from asgi_ipc.wire.arena import NOTHING_COPIED, Arena
from asgi_ipc.wire.reassembler import Reassembler
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.transport.mapping import Mapping, map_arena
from asgi_ipc.worker.transport.outgoing import Outgoing
from asgi_ipc.worker.transport.peer import Peer


class Arenas:
    """Maps this worker's own arena, and those of its peers as they arrive."""

    def __init__(self, own: Descriptor, pid: int, outgoing: Outgoing, reassembler: Reassembler) -> None:
        self._outgoing = outgoing
        self._reassembler = reassembler
        self._own = map_arena(own, writable=True, whose=pid)
        # By generation.
        self._others: dict[int, Mapping] = {}
        if self._own.memory:
            outgoing.lend(Arena(self._own.memory))

    def attach(self, peer: Peer, arena: Descriptor) -> None:
        """Map that peer's arena, and tell it so."""
        generation = peer.worker.generation
        mapping = self._others[generation] = map_arena(arena, writable=False, whose=peer.worker.pid)
        if mapping.memory:
            self._reassembler.attach(generation, mapping.memory)
            self._outgoing.acknowledge(generation, NOTHING_COPIED)

    def settle(self) -> None:
        """Acknowledge what was copied from the others' arenas; take their receipts for this one's."""
        reassembler, outgoing = self._reassembler, self._outgoing
        reassembler.note_read()
        while reassembler.fetched:
            outgoing.acknowledge(*reassembler.fetched.popitem())
        copied, reassembler.copied = reassembler.copied, []
        for receiver, serial in copied:
            outgoing.copied(receiver, serial)

    def tidy(self) -> None:
        """Once a second: acknowledge the rest, and give back memory that the arena does not need."""
        self._reassembler.pay()
        self.settle()
        self._own.give_back(self._outgoing.unused_arena_bytes())

    def detach(self, generation: int) -> None:
        """That peer's last message has been copied."""
        mapping = self._others.pop(generation, None)
        if mapping is not None:
            mapping.close()

    def close(self) -> None:
        """Unmap everything."""
        for generation in list(self._others):
            self.detach(generation)
        self._own.close()
