"""Pipes: the only os.write on message pipes; one owner per descriptor. pipe_reader.py has the only os.read.

Law: this file only moves bytes when the kernel lets it; other files decide
which. A callback is removed before its descriptor is closed, never after (the
next descriptor of that number would get the old callback). Every callback
writes or reads a bounded amount and yields.
"""

from __future__ import annotations

import array
import asyncio
import os
import random
import sys
from collections.abc import Callable
from typing import Final

from asgi_ipc.wire.outbox import Outbox
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.transport.peer import Writer

if sys.platform != "win32":  # where there is a fleet of one only, and no pipe
    import fcntl
    import termios

# Packets written before the loop gets its turn back.
BURST_PACKETS: Final = 64

# After a wait, one page is free and other writers wait for the same pipe: a
# short burst leaves room for them.
BURST_AFTER_WAIT_PACKETS: Final = 4

# A writer that finds the free page taken tries again after a short random pause:
# waiting level-triggered again starves some writers almost wholly.
FULL_PIPE_RETRY_S: Final = (0.0005, 0.002)


def unread_bytes(fd: int) -> int:
    """Return how many bytes lie in the pipe now."""
    size = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, size)
    return size[0]


class PipeWriter(Writer):
    """Owns the write end of one peer's pipe and empties that peer's outbox into it.

    `on_written()` is called for each packet: there may be room for messages that
    wait. `on_broken()` is called once, when the peer has closed its end.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pipe: Descriptor,
        outbox: Outbox,
        on_written: Callable[[], None],
        on_broken: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._pipe = pipe
        self._outbox = outbox
        self._on_written = on_written
        self._on_broken = on_broken
        self._waiting = False
        # True if it has waited since its outbox was last empty: others may wait for the same pipe.
        self._contended = False
        self._again: asyncio.Handle | None = None
        self._closing = False

    @property
    def is_open(self) -> bool:
        """Return whether this still owns a write end."""
        return self._pipe.fd >= 0

    def unread_bytes(self) -> int:
        """How many bytes lie in the pipe now, of whichever sender; 0 when this end is closed."""
        return unread_bytes(self._pipe.fd) if self._pipe.fd >= 0 else 0

    def flush(self) -> None:
        """Write the packets of the outbox, unless a wait for room is under way."""
        if self._pipe.fd >= 0 and not self._waiting and self._again is None:
            self._write(BURST_PACKETS)

    def write_alone(self, packet: bytes) -> bool:
        """Write a packet that is in no outbox now. False: it can't be written now."""
        if self._pipe.fd < 0 or self._waiting or self._again is not None:
            return False
        try:
            os.write(self._pipe.fd, packet)
        except OSError:
            # The outbox will find what it is.
            return False
        return True

    def close_when_empty(self) -> None:
        """Write the rest of the outbox, then close."""
        self._closing = True
        self.flush()

    def close(self) -> None:
        """Close the write end now."""
        self._stop_waiting()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._pipe.close()

    def _write(self, burst: int) -> None:
        """Write up to `burst` packets; then wait, go on soon, or be done."""
        outbox = self._outbox
        packet = outbox.next_packet()
        for count in range(burst):
            if packet is None:
                self._contended = False
                if self._waiting:
                    self._stop_waiting()
                if self._closing and not outbox:
                    self.close()
                return
            try:
                os.write(self._pipe.fd, packet)
            except BlockingIOError:
                self._wait(lost_the_race=self._waiting and count == 0)
                return
            except BrokenPipeError:
                self.close()
                self._on_broken()
                return
            outbox.written()
            packet = outbox.next_packet()
            self._on_written()
            if self._pipe.fd < 0:
                return
        if not self._waiting:
            self._again = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._again = None
        self._write(BURST_AFTER_WAIT_PACKETS if self._contended else BURST_PACKETS)

    def _wait(self, *, lost_the_race: bool) -> None:
        self._contended = True
        if lost_the_race:
            self._stop_waiting()
            self._again = self._loop.call_later(random.uniform(*FULL_PIPE_RETRY_S), self._go_on)
        elif not self._waiting:
            self._waiting = True
            self._loop.add_writer(self._pipe.fd, self._writable)

    def _writable(self) -> None:
        self._write(BURST_AFTER_WAIT_PACKETS)

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting = False
            self._loop.remove_writer(self._pipe.fd)
