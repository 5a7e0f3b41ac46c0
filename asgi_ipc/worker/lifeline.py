"""The worker's end of its lifeline: words in and out, and the launcher's death.

Law: one owner of the socket. It handles the words about the process (handover, stop) and the end of file, and
hands words about the fleet on in the order of arrival, each with its descriptors. End of file counts only
behind the last word. Another thread may sleep on the socket for its hang-up (runtime/guard.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from asgi_ipc.fleet.words import (
    Handover,
    Stop,
    ToLauncher,
    ToWorker,
    WordError,
    WordParser,
    decode_for_worker,
    encode_word,
)
from asgi_ipc.worker import descriptors
from asgi_ipc.worker.descriptors import Descriptor

# A handover with a long sys.path is a few KiB; a read brings at most one descriptor.
READ_BYTES: Final = 64 * 1024

# With this flag a descriptor is never inheritable, not even for a moment.
_CLOEXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

OnWord: TypeAlias = Callable[[ToWorker], None]


def _ignore(*word: ToWorker) -> None:
    pass


class Lifeline:
    """Owns the worker's end of the socket pair between it and the launcher.

    `handover()` reads the first word, blocking. After `attach`, each word about the fleet goes to `on_word`,
    which takes the descriptors of a word that carries some with `take_descriptors`.

    Attributes:
        is_open: the launcher lives, as far as is known.
        is_relieved: the launcher's last Stop said that other workers serve on.
        on_word: the endpoint's; before it joins, no word about the fleet comes.
    """

    def __init__(self, fd: int) -> None:
        with descriptors.changing_hands:
            self._socket = socket.socket(fileno=fd)
            descriptors.register(self)
        self._socket.set_inheritable(False)
        self._parser = WordParser()
        self._bodies: deque[bytes] = deque()
        self._arrived: deque[tuple[Descriptor, Descriptor]] = deque()
        self._outgoing = bytearray()
        # Held by the event loop, which a finalizer may interrupt to send, too; the guard only tries it.
        self._speaking = threading.RLock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.on_word: OnWord = _ignore
        self._on_stop: Callable[[], None] = _ignore
        self._on_eof: list[Callable[[], None]] = []
        self.is_open = True
        self.is_relieved = False

    def fileno(self) -> int:
        """The descriptor, or -1."""
        return self._socket.fileno()

    def handover(self) -> Handover:
        """The launcher's first word."""
        self._socket.setblocking(True)
        while not self._bodies:
            self._receive()
            if not self.is_open:
                raise EOFError("the launcher has gone before its handover")
        word = decode_for_worker(self._bodies.popleft())
        if not isinstance(word, Handover):
            raise WordError(f"{type(word).__name__} instead of a handover")
        return word

    def attach(self, on_stop: Callable[[], None]) -> None:
        """Hand words on from now, on the running loop. `on_stop`: the launcher says stop, or has gone."""
        self._socket.setblocking(False)
        self._on_stop = on_stop
        self.on_eof(on_stop)
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(self._socket.fileno(), self.drain)

    def wake(self) -> None:
        """Wake the event loop, if there is one, to look here. From any thread."""
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
                self.loop.call_soon_threadsafe(self.drain)

    def on_eof(self, callback: Callable[[], None]) -> None:
        """Call back when the launcher has gone; at once if it has."""
        self._on_eof.append(callback)
        if not self.is_open:
            callback()

    def drain(self) -> None:
        """Hand on every word that was written so far."""
        while self.is_open:
            try:
                self._receive()
            except BlockingIOError:
                break
        while self._bodies:
            word = decode_for_worker(self._bodies.popleft())
            if isinstance(word, Stop):
                self.is_relieved = word.relieved
                self._on_stop()
            else:
                self.on_word(word)
        if not self.is_open:
            self._ended()

    def take_descriptors(self) -> tuple[Descriptor, Descriptor]:
        """Take the write end and the arena of the word that `on_word` handles now; either may be missing."""
        return self._arrived.popleft() if self._arrived else (Descriptor(), Descriptor())

    def send(self, word: ToLauncher) -> None:
        """Say a word to the launcher. It waits here while the launcher is too busy to read."""
        if not self.is_open:
            return
        with self._speaking:
            self._outgoing += encode_word(word)
            self._flush()

    def send_beside_loop(self, word: ToLauncher) -> None:
        """From another thread: say a word if nothing waits; the event loop sends what does not fit."""
        encoded = encode_word(word)
        if not self._speaking.acquire(blocking=False):
            return
        try:
            if self.is_open and not self._outgoing:
                with contextlib.suppress(OSError):  # no room, or the launcher is gone
                    self._outgoing += encoded[self._socket.send(encoded, socket.MSG_DONTWAIT) :]
        finally:
            self._speaking.release()

    def close(self) -> None:
        """Hang up."""
        self._detach()
        self.is_open = False
        with descriptors.changing_hands:
            self._socket.close()
        self._drop_descriptors()

    def abandon(self) -> None:
        """In a forked child: close, without touching the loop."""
        self.is_open = False
        self._socket.close()

    def _receive(self) -> None:
        try:
            with descriptors.changing_hands:
                chunk, fds, flags, _ = socket.recv_fds(self._socket, READ_BYTES, 4, _CLOEXEC)
                arrived = [Descriptor(fd) for fd in fds]
        except ConnectionResetError:
            # The launcher went with words of ours unread; all of its own words have been read before this
            # shows.
            self.is_open = False
            return
        for fd in fds:
            os.set_inheritable(fd, False)
        if fds or flags & socket.MSG_CTRUNC:
            # The write end comes first, the arena second. The word arrives also when the descriptor limit
            # has cut one or both off. One read never brings the descriptors of two words (unix(7)).
            arrived += [Descriptor(), Descriptor()]
            self._arrived.append((arrived[0], arrived[1]))
        if not chunk:
            self.is_open = False
            return
        self._bodies.extend(self._parser.feed(chunk))

    def _flush(self) -> None:
        with self._speaking:
            try:
                sent = self._socket.send(self._outgoing)
            except BlockingIOError:
                sent = 0
            except (BrokenPipeError, ConnectionResetError):
                # The end of file comes after its last words.
                self._outgoing.clear()
                return
            del self._outgoing[:sent]
            if self.loop is None:
                return
            if self._outgoing:
                self.loop.add_writer(self._socket.fileno(), self._flush)
            else:
                self.loop.remove_writer(self._socket.fileno())

    def _detach(self) -> None:
        if self.loop is not None and self._socket.fileno() >= 0 and not self.loop.is_closed():
            self.loop.remove_reader(self._socket.fileno())
            self.loop.remove_writer(self._socket.fileno())

    def _drop_descriptors(self) -> None:
        """Close descriptors whose word was cut off: a leaving peer waits for their end."""
        while self._arrived:
            for descriptor in self._arrived.popleft():
                descriptor.close()

    def _ended(self) -> None:
        self._detach()
        self._drop_descriptors()
        # Without a launcher all workers stop.
        self.is_relieved = False
        callbacks, self._on_eof = self._on_eof, []
        for callback in callbacks:
            callback()
