"""Loopback: this worker's way to itself, without a descriptor.

Law: the same outbox, packets, parser and limits as between two workers; only
the pipe is missing. Nothing is delivered inside the call that sent it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from asgi_ipc.wire.outbox import Outbox
from asgi_ipc.worker.transport.peer import Writer

# Packets moved before the loop gets its turn back: as much as one read of a pipe.
BURST_PACKETS: Final = 16


class LoopbackWriter(Writer):
    """Moves packets from the outbox to `on_packet`, in turns of their own.

    Starts paused; `resume` when messages may be dispatched.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outbox: Outbox,
        on_packet: Callable[[bytes], None],
        on_written: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._outbox = outbox
        self._on_packet = on_packet
        self._on_written = on_written
        self._paused = True
        self._handle: asyncio.Handle | None = None

    def flush(self) -> None:
        """Move the packets of the outbox, from the next turn on."""
        if not self._paused and self._handle is None:
            self._handle = self._loop.call_soon(self._move)

    def pause(self) -> None:
        """Leave the packets in the outbox, so that the sender feels it."""
        self._paused = True

    def resume(self) -> None:
        """Move packets again."""
        self._paused = False
        self.flush()

    def close(self) -> None:
        """Stop for good."""
        self._paused = True
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _move(self) -> None:
        self._handle = None
        for _ in range(BURST_PACKETS):
            if self._paused:
                return
            packet = self._outbox.next_packet()
            if packet is None:
                return
            self._outbox.written()
            self._on_packet(packet)
            self._on_written()
        self.flush()
