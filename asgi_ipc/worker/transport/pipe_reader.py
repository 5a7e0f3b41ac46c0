"""The pipe's reader: the only os.read on message pipes; one owner of the descriptor.

Law: this file only moves bytes when the kernel has some. A callback is removed before its descriptor is
closed, never after (the next descriptor of that number would get the old callback). Every callback reads a
bounded amount and yields.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.transport.pipes import unread_bytes

# One read per wake-up; 64 KiB stays in the cache and is the size of a default pipe.
READ_BYTES: Final = 64 * 1024

# A pause that is over before the event loop has found the pipe readable so often costs no system call. Most
# pauses last for a turn or two; a longer one must not keep the loop awake.
REFUSALS: Final = 16

# The content of the largest pipe, and as much again, written meanwhile.
MAX_REST_BYTES: Final = 2 * 1024 * 1024


class PipeReader:
    """Owns the read end of this worker's pipe.

    `on_bytes(chunk, drained)` gets the bytes that arrive; `drained` says that
    the read emptied the pipe. `on_eof()` is called once, when no write end
    is left and the descriptor is closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pipe: Descriptor,
        on_bytes: Callable[[bytes, bool], None],
        on_eof: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._pipe = pipe
        self._on_bytes = on_bytes
        self._on_eof = on_eof
        self._reading = False
        # Whether the event loop watches the pipe, and how often it has called in vain.
        self._is_watched = False
        self._refused = 0
        self.read_bytes = 0

    @property
    def is_open(self) -> bool:
        """Return whether there may still be something to read."""
        return self._pipe.fd >= 0

    def unread_bytes(self) -> int:
        """How many bytes lie in the pipe now; 0 when it is closed."""
        return unread_bytes(self._pipe.fd) if self._pipe.fd >= 0 else 0

    def resume(self) -> None:
        """Read whenever there is something to read."""
        if self._pipe.fd < 0:
            return
        self._reading = True
        if not self._is_watched:
            self._is_watched = True
            self._loop.add_reader(self._pipe.fd, self._readable)

    def pause(self) -> None:
        """Leave the bytes in the pipe, so that the senders feel it."""
        self._reading = False
        self._refused = 0

    def _watch_no_more(self) -> None:
        self._reading = False
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._pipe.fd)

    def read_rest(self) -> None:
        """Read the pipe empty, at once and for the last time; bounded, since senders may go on writing."""
        self._watch_no_more()
        until = self.read_bytes + MAX_REST_BYTES
        while self._pipe.fd >= 0 and self.read_bytes < until and self.unread_bytes():
            self._read()

    def close(self) -> None:
        """Close the read end; senders get EPIPE from now on."""
        self._watch_no_more()
        self._pipe.close()

    def _readable(self) -> None:
        if self._reading:
            self._read()
            return
        self._refused += 1
        if self._refused == REFUSALS:
            self._watch_no_more()

    def _read(self) -> None:
        try:
            chunk = os.read(self._pipe.fd, READ_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self.close()
            self._on_eof()
            return
        self.read_bytes += len(chunk)
        # A short read has emptied the pipe; a full one may have, by chance.
        drained = len(chunk) < READ_BYTES or unread_bytes(self._pipe.fd) == 0
        self._on_bytes(chunk, drained)
