"""Turn: when outboxes are written.

Law: only the event loop writes. It writes at once the first message of a
quiet moment, and an outbox that is filling; everything else at the end of the
turn, so that messages share packets.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final

from asgi_ipc.worker.transport.peers import Peer

# An outbox that reaches this is written at once instead of at the end of the
# turn: it fills a packet of places in the arena, and a pipe of the default size.
EAGER_BYTES: Final = 256 * 1024

# A turn that brings a peer more messages than this is followed by others
# like it: then the first message of the next turn waits for those behind it.
QUIET_MESSAGES: Final = 4


class Turn:
    """Peers with something to write. `on_end` is called at the end of each turn that had one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, lock: threading.Lock, on_end: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._on_end = on_end
        self._thread = threading.get_ident()
        self._dirty: list[Peer] = []
        self._end_is_due = False

    def touch(self, peer: Peer) -> bool:
        """Under the lock: the peer's outbox has something. True: for the first time in this turn."""
        if peer.dirty:
            return False
        peer.dirty = True
        self._dirty.append(peer)
        return True

    def accepted(self, peer: Peer, is_first: bool, backlog_bytes: int) -> None:
        """Without the lock, from any thread: write at once, or see to it that the turn ends."""
        if threading.get_ident() != self._thread:
            if is_first:
                self._loop.call_soon_threadsafe(self._end)
            return
        if is_first and not self._end_is_due:
            self.schedule_end()
        if ((is_first and peer.quiet) or backlog_bytes >= EAGER_BYTES) and not peer.outbox.packets.must_wait:
            peer.writer.flush()

    def schedule_end(self) -> None:
        """Have this turn end behind everything that runs in it."""
        if not self._end_is_due:
            self._end_is_due = True
            self._loop.call_soon(self._end)

    def _end(self) -> None:
        self._end_is_due = False
        self._on_end()
        with self._lock:
            dirty, self._dirty = self._dirty, []
            for peer in dirty:
                peer.dirty = False
        for peer in dirty:
            waiting = peer.outbox.messages
            peer.quiet = waiting <= QUIET_MESSAGES
            if waiting or peer.outbox.packets.copied is not None:
                peer.writer.flush()
