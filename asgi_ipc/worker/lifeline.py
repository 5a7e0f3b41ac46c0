"""The worker's end of its lifeline: words in and out, and the launcher's death.

Law: one owner of the socket. Words are handed on in the order of arrival, each
with its descriptors; end of file counts only behind the last word.
A thread may sleep on the socket for its hang-up; all that it ever says is where
a loop stands that can't say so itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from asgi_ipc.fleet.words import (
    Handover,
    Stuck,
    ToLauncher,
    ToWorker,
    WordError,
    WordParser,
    decode_for_worker,
    encode_word,
)
from asgi_ipc.worker import descriptors
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.heartbeat import HEARTBEAT_S
from asgi_ipc.worker.runtime import exiting
from asgi_ipc.worker.runtime.stall import StallWatch, stack_of_main_thread

# A handover with a long sys.path is a few KiB; a read brings at most one descriptor.
READ_BYTES: Final = 64 * 1024

# After the launcher's death, and after the end of the last request, a process has this long to end by
# itself: an orphan's drain (4 s, see endpoint.py) and a bit; out within the promised 5 s. A loop that does
# not turn has this long, too, whatever request is open.
GUARD_GRACE_S: Final = 4.5

# How often the guard looks whether a request is open and the loop turns.
GUARD_STEP_S: Final = 0.05

# The exit status of a process that the guard had to end.
GUARD_EXIT_STATUS: Final = 70

# Where the kernel can, a descriptor is never inheritable, not even for a moment.
_CLOEXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

OnWord = Callable[[ToWorker], None]


class Lifeline:
    """Owns the worker's end of the socket pair between it and the launcher.

    `handover()` reads the first word, blocking. After `attach`, each word goes
    to `on_word`, which takes the descriptors of a word that carries some with
    `take_descriptors`. The end of file goes to each of `on_eof`.
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
        # Of the event loop, which may come back to it from a finalizer; the guard only tries.
        self._speaking = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_word: OnWord | None = None
        self._on_eof: list[Callable[[], None]] = []
        self._turns = 0
        self.is_open = True
        # Whether a request is open: asked by the guard, on its thread.
        self.is_serving: Callable[[], bool] = lambda: False

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

    def attach(self, on_word: OnWord) -> None:
        """Hand words on from now, on the running event loop."""
        self._socket.setblocking(False)
        self._on_word = on_word
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self.drain)

    def wake(self) -> None:
        """Have the event loop turn and look here, if there is one. From any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
                self._loop.call_soon_threadsafe(self.drain)

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
            assert self._on_word is not None
            self._on_word(decode_for_worker(self._bodies.popleft()))
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
            # It went with words of ours unread; all of its own have been read before this shows.
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
            self._flush_now()

    def _flush_now(self) -> None:
        try:
            sent = self._socket.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):
            # The end of file behind its last words tells the rest.
            self._outgoing.clear()
            return
        del self._outgoing[:sent]
        if self._loop is None:
            return
        if self._outgoing:
            self._loop.add_writer(self._socket.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._socket.fileno())

    def _detach(self) -> None:
        if self._loop is not None and self._socket.fileno() >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())

    def _drop_descriptors(self) -> None:
        """Close those whose word was cut off: a peer that leaves waits until the last write end is closed."""
        while self._arrived:
            for descriptor in self._arrived.popleft():
                descriptor.close()

    def _ended(self) -> None:
        self._detach()
        self._drop_descriptors()
        callbacks, self._on_eof = self._on_eof, []
        for callback in callbacks:
            callback()

    # --- the guard

    def turn(self) -> None:
        """Called by the event loop now and then: it turns."""
        self._turns += 1

    def guard(self, beat_s: float | None = None) -> None:
        """Start the thread that ends a process that does not end by itself after the launcher's death.

        Once in `beat_s` seconds it looks whether the loop has turned since.
        """
        look_s = HEARTBEAT_S if beat_s is None else beat_s
        threading.Thread(target=self._guard, args=(look_s,), name="asgi-ipc-guard", daemon=True).start()

    def _guard(self, look_s: float) -> None:
        poll = select.poll()
        # No events asked for: only the hang-up wakes it (poll(2), POLLHUP), and the time for a look.
        fd = self._socket.fileno()
        poll.register(fd, 0)
        stall = StallWatch()
        while True:
            try:
                ready = poll.poll(look_s * 1000)
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                return
            if self._socket.fileno() != fd:
                # Closed here, and the number may be somebody else's by now.
                return
            if ready:
                break
            if stall.is_stalled(self._turns):
                self._tell_where_it_stands()
        if ready[0][1] & select.POLLNVAL:
            return
        # uvloop stops watching a descriptor that has an error (POLLERR) without telling.
        self.wake()
        self._end_orphan()

    def _end_orphan(self) -> None:
        """Wait for the process to end by itself; end it when it does not."""
        turns = self._turns
        turned_at = served_at = now = time.monotonic()
        while now < min(turned_at, served_at) + GUARD_GRACE_S:
            time.sleep(GUARD_STEP_S)
            now = time.monotonic()
            if turns != self._turns:
                turns, turned_at = self._turns, now
            if self.is_serving():
                served_at = now
        exiting.end(GUARD_EXIT_STATUS, "after the launcher's end", self._loop, exiting.ORPHAN_REPORT_S)

    def _tell_where_it_stands(self) -> None:
        """Said by the guard, beside the loop, which sends the rest if not all of it goes out at once."""
        word = encode_word(Stuck(stack_of_main_thread()))
        if not self._speaking.acquire(blocking=False):
            return
        try:
            if self.is_open and not self._outgoing:
                with contextlib.suppress(OSError):  # no room, or nobody there
                    self._outgoing += word[self._socket.send(word, socket.MSG_DONTWAIT) :]
        finally:
            self._speaking.release()
