"""The arena: the blocks of this worker's shared memory, and the users of each.

Law: nothing in this file asks the kernel or the clock; the caller has mapped the memory. A block is written
once, announced to its receivers through their pipes, and used again only when each of them has acknowledged
its copy, or has been reaped. Serials are never used twice, so a late word about a block never means another
block.

    0        8        12  16
    | serial | length | 0 | content ...
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import Final, Protocol

import msgspec

# Address space; a page takes memory at its first touch. Four windows of the largest messages, so that no
# receiver needs more than its quarter.
ARENA_BYTES: Final = 64 * 1024 * 1024

# One receiver may hold one share: a receiver that has stopped reading leaves room for the others.
SHARES: Final = 4

# One receiver may hold so much before the next block waits for its word. The window is large enough to keep
# both sides busy, and small enough to stay in the cache. So much memory is kept in silence, too: the first
# write to a page costs 1 ms per MiB.
WINDOW_BYTES: Final = 4 * 1024 * 1024

# A receiver acknowledges its copies after so many bytes, and otherwise within a second: a word for each block
# would cost more than the block. With 64 receivers half of the arena may wait for a word.
ACKNOWLEDGED_BYTES: Final = 256 * 1024

# The smallest block; smaller data travels in packets.
MIN_ORDER: Final = 10

_HEADER: Final = struct.Struct("<QI4x")
BLOCK_HEADER_BYTES: Final = _HEADER.size
# A block with this serial and length begins like this, as long as it is not used again.
block_header = _HEADER.pack

# No block has this serial: a receiver that acknowledges it has mapped the arena, and copied nothing yet.
NOTHING_COPIED: Final = 0

# One place in the payload of a PLACED packet: serial, offset, length.
PLACE: Final = struct.Struct("<QII")
_pack_place = PLACE.pack


class Memory(Protocol):
    """The memory of an arena: a memoryview, a bytearray, or an mmap."""

    def __len__(self) -> int: ...
    def __setitem__(self, key: slice, value: bytes, /) -> None: ...


class Block(msgspec.Struct, eq=False, gc=False):
    """Written memory. `users`: the number of users that may still read or announce it."""

    serial: int
    offset: int
    order: int
    length: int
    users: int = 1

    @property
    def size_bytes(self) -> int:
        """The size of the memory, which is more than `length`."""
        return 1 << self.order

    @property
    def content_start(self) -> int:
        """Return the place of the content in the memory."""
        return self.offset + BLOCK_HEADER_BYTES


class _Holds:
    """The blocks announced to one receiver and not copied yet, by serial, in the order of announcement."""

    __slots__ = ("blocks", "pinned_bytes")

    def __init__(self) -> None:
        # Not a dict: after many deletions a dict finds its first key slowly.
        self.blocks: OrderedDict[int, Block] = OrderedDict()
        self.pinned_bytes = 0


class Arena:
    """The blocks of one worker's memory, and their holders. Empty memory has room for none.

    Attributes:
        memory: where the blocks are.
        used_bytes: the size of the blocks in use.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._top = max(len(memory).bit_length() - 1, 0)
        if memory and (self._top <= MIN_ORDER or len(memory) != 1 << self._top):
            raise ValueError(f"an arena has a power of two of bytes, not {len(memory)}")
        self._quarter_bytes = len(memory) // SHARES
        # A block may be twice as large as its content.
        self._window_bytes = min(WINDOW_BYTES, self._quarter_bytes // 2)
        self._serial = 0
        self._holds: dict[int, _Holds] = {}
        # Offsets of free blocks, by order; the last one freed is taken first, since it is in the cache.
        self._free: list[list[int]] = [[] for _ in range(self._top + 1)]
        if memory:
            self._free[self._top].append(0)
        self._may_merge = False
        self._touched_bytes = 0
        self._placed = 0
        self.used_bytes = 0

    # --- receivers

    def open(self, receiver: int) -> None:
        """Note that a receiver has mapped this memory."""
        self._holds.setdefault(receiver, _Holds())

    def is_open(self, receiver: int) -> bool:
        """Return whether a receiver has mapped this memory, and has not been reaped."""
        return receiver in self._holds

    def may_hold(self, receiver: int, length: int) -> bool:
        """Return whether so much more may be announced to a receiver before its next acknowledgement."""
        holds = self._holds[receiver]
        pinned_bytes = holds.pinned_bytes
        # The acknowledgement of so little may take a second.
        return pinned_bytes + length <= self._window_bytes or pinned_bytes < ACKNOWLEDGED_BYTES

    def busy_bytes(self, receiver: int) -> int:
        """Return the bytes announced to a receiver and not copied, beyond those acknowledged late."""
        holds = self._holds.get(receiver)
        return max(holds.pinned_bytes - ACKNOWLEDGED_BYTES, 0) if holds is not None else 0

    def copied(self, receiver: int, serial: int) -> bool:
        """Note that a receiver has copied everything up to a block. False: it was never announced."""
        holds = self._holds.get(receiver)
        if holds is None or serial not in holds.blocks:
            return False
        next_block, release = holds.blocks.popitem, self.release
        first = None
        while first != serial:
            first, block = next_block(last=False)
            holds.pinned_bytes -= block.length
            release(block)
        return True

    def forget(self, receiver: int) -> None:
        """Release the blocks of a receiver that has been reaped and can't read any more."""
        holds = self._holds.pop(receiver, None)
        if holds is not None:
            for block in holds.blocks.values():
                self.release(block)

    # --- blocks

    def fits(self, length: int) -> bool:
        """Return whether so much may be placed at all."""
        return BLOCK_HEADER_BYTES + length <= self._quarter_bytes

    def place(self, head: bytes, body: bytes = b"") -> Block | None:
        """Write both into a block of their own; None if there is no room.

        The caller is a user of the block until `release`.
        """
        block = self.reserve(len(head) + len(body))
        if block is not None:
            middle = block.content_start + len(head)
            self.memory[block.content_start : middle] = head
            self.memory[middle : middle + len(body)] = body
        return block

    def reserve(self, length: int) -> Block | None:
        """Return a block for content of so many bytes, which the caller writes; None if there is no room.

        The caller is a user of the block until `release`.
        """
        order = max((BLOCK_HEADER_BYTES + length - 1).bit_length(), MIN_ORDER)
        free = self._free[order] if order <= self._top else None
        if free:
            offset = free.pop()
        else:
            found = self._split(order)
            if found is None:
                return None
            offset = found
        self._serial += 1
        self._placed += 1
        size_bytes = 1 << order
        self.used_bytes += size_bytes
        self._touched_bytes = max(self._touched_bytes, offset + size_bytes)
        self.memory[offset : offset + BLOCK_HEADER_BYTES] = block_header(self._serial, length)
        return Block(self._serial, offset, order, length)

    def announce(self, block: Block, receiver: int) -> bytes:
        """Note the announcement of a block to a receiver; return the place to write to its pipe."""
        holds = self._holds[receiver]
        holds.blocks[block.serial] = block
        holds.pinned_bytes += block.length
        block.users += 1
        return _pack_place(block.serial, block.offset, block.length)

    def release(self, block: Block) -> None:
        """Note that one user of a block does not need it any more."""
        block.users -= 1
        if not block.users:
            self._free[block.order].append(block.offset)
            self._may_merge = True
            self.used_bytes -= 1 << block.order

    def _split(self, order: int) -> int | None:
        """Cut a block from a larger one; return its offset."""
        if order > self._top or 1 << order > self._quarter_bytes:
            return None
        larger = next((each for each in range(order + 1, self._top + 1) if self._free[each]), None)
        if larger is None:
            if not self._may_merge:
                return None
            self._merge()
            return self._free[order].pop() if self._free[order] else self._split(order)
        offset = self._free[larger].pop()
        while larger > order:
            larger -= 1
            self._free[larger].append(offset + (1 << larger))
        return offset

    def _merge(self) -> None:
        """Merge free neighbours into larger blocks; only on demand, since most sizes come again."""
        self._may_merge = False
        for order in range(MIN_ORDER, self._top):
            size_bytes = 1 << order
            free = set(self._free[order])
            whole = [offset for offset in free if not offset & size_bytes and offset + size_bytes in free]
            if whole:
                free.difference_update(whole, [offset + size_bytes for offset in whole])
                # Descending, so that the lowest is taken first: untouched pages stay so.
                self._free[order] = sorted(free, reverse=True)
                self._free[order + 1] = sorted({*self._free[order + 1], *whole}, reverse=True)

    def trim(self) -> range:
        """Return the bytes that need no memory: no block is used, and none was placed since the last call.

        One window from the start is kept for the next blocks.
        """
        placed, self._placed = self._placed, 0
        if placed or self.used_bytes or self._touched_bytes <= self._window_bytes:
            return range(0)
        unused = range(self._window_bytes, self._touched_bytes)
        self._touched_bytes = self._window_bytes
        for free in self._free:
            free.clear()
        self._free[self._top].append(0)
        self._may_merge = False
        return unused
