"""Memory: arenas of simulated processes. The maker of an arena may write it, the others may read it.

Law: memory lives as long as a descriptor or a mapping of it, whichever process has died; a mapping belongs to
its process.
"""

from __future__ import annotations

from collections.abc import Callable

from asgi_ipc.worker.descriptors import Descriptor
from tests.faults.simulation.files import File
from tests.faults.simulation.kernel import Kernel


class Memory(File):
    """A memfd."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self.content = bytearray(size_bytes)


class Mapped:
    """The stand-in for `asgi_ipc.worker.transport.mapping.Mapping`."""

    def __init__(self, content: memoryview) -> None:
        self.memory = content

    def close(self) -> None:
        self.memory.release()

    def give_back(self, unused: range) -> None:
        if unused:
            self.memory[unused.start : unused.stop] = bytes(len(unused))


def arena_maker(kernel: Kernel, size_bytes: int) -> Callable[[], tuple[int, int]]:
    """Return the stand-in for the launcher's `make_arena`. 0: arenas are not available."""

    def make_arena() -> tuple[int, int]:
        if not size_bytes:
            return -1, -1
        process = kernel.enter()
        memory = Memory(size_bytes)
        return process.open(memory), process.open(memory)

    return make_arena


def arena_mapper(kernel: Kernel) -> Callable[..., Mapped]:
    """Return the stand-in for a worker's `map_arena`."""

    def map_arena(arena: Descriptor, *, writable: bool, whose: int) -> Mapped:
        if arena.fd < 0:
            return Mapped(memoryview(b""))
        memory = kernel.enter().file(arena.fd)
        assert isinstance(memory, Memory)
        arena.close()
        content = memoryview(memory.content)
        return Mapped(content if writable else content.toreadonly())

    return map_arena
