"""Runs: the messages that wait for one receiver, in a row.

Law: nothing in this file asks the kernel or the clock. A run is cut while it grows: each piece fits one
packet or block, unless it is one longer message.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from asgi_ipc import fast
from asgi_ipc.wire.arena import Memory
from asgi_ipc.wire.message import LargeMessage
from asgi_ipc.wire.payload import batch_header


class Piece:
    """Messages that travel together, and how many bytes they have.

    Attributes:
        parts: two for each message, one behind the other: what stands before its data, and its data.
    """

    __slots__ = ("parts", "size_bytes")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size_bytes = 0

    @property
    def messages(self) -> int:
        """Return the number of messages."""
        return len(self.parts) // 2

    def append(self, prefix: bytes, body: bytes, size_bytes: int) -> None:
        """Append one message; the size is that of both parts."""
        self.parts.append(prefix)
        self.parts.append(body)
        self.size_bytes += size_bytes

    def cut(self, limit_bytes: int) -> list[Piece]:
        """Return the same messages in pieces of up to so many bytes; a longer one has its own."""
        pieces: list[Piece] = []
        for prefix, body in zip(self.parts[::2], self.parts[1::2], strict=True):
            size_bytes = len(prefix) + len(body)
            if not pieces or pieces[-1].size_bytes + size_bytes > limit_bytes:
                pieces.append(Piece())
            pieces[-1].append(prefix, body, size_bytes)
        return pieces

    def payload(self) -> bytes:
        """Return the batch of these messages."""
        return fast.join(batch_header(self.messages), self.parts, self.size_bytes)

    def seal(self, memory: Memory, start: int) -> None:
        """Write the batch of these messages into memory."""
        fast.fill(memory, start, batch_header(self.messages), self.parts, self.size_bytes)


Front: TypeAlias = Piece | LargeMessage


class Run:
    """The messages that wait for one receiver, in order: pieces, and large messages between them.

    Attributes:
        piece_bytes: a piece grows up to this size, from the next message on.
    """

    __slots__ = ("_last", "_row", "piece_bytes")

    def __init__(self, piece_bytes: int) -> None:
        self.piece_bytes = piece_bytes
        self._row: deque[Front] = deque()
        # The last of the row, if it is a piece that may grow.
        self._last: Piece | None = None

    def append(self, prefix: bytes, body: bytes, size_bytes: int) -> None:
        """Append one message, which is given in two parts; either may be empty. The size is that of both."""
        piece = self._last
        if piece is None or piece.size_bytes + size_bytes > self.piece_bytes:
            piece = self._last = Piece()
            self._row.append(piece)
        piece.append(prefix, body, size_bytes)

    def append_large(self, message: LargeMessage) -> None:
        """Append one message that travels alone."""
        self._row.append(message)
        self._last = None

    @property
    def front(self) -> Front | None:
        """Return what comes next; None: nothing waits."""
        return self._row[0] if self._row else None

    def cut_front(self, limit_bytes: int) -> None:
        """Cut the first piece again, into pieces of up to so many bytes."""
        front = self._row[0]
        if isinstance(front, Piece) and front.size_bytes > limit_bytes and front.messages > 1:
            self.take_front()
            self._row.extendleft(reversed(front.cut(limit_bytes)))

    def take_front(self) -> Front:
        """Take what comes next out of the run."""
        front = self._row.popleft()
        if front is self._last:
            self._last = None
        return front

    def clear(self) -> list[LargeMessage]:
        """Drop everything; return the large messages."""
        large = [each for each in self._row if isinstance(each, LargeMessage)]
        self._row.clear()
        self._last = None
        return large
