"""One child: its pipe, its lifeline, how it is started, signalled and reaped.

Law: the child gets everything through `pass_fds` and its lifeline; nothing is
pickled, and nothing of ours is in the environment. The parent keeps the write
end of the child's pipe, to hand it to others, and never the read end: a second
reader would hide the child's death from the senders.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

if sys.platform == "linux":
    import fcntl

from asgi_ipc import frozen, multiprocess
from asgi_ipc.fleet.words import ToLauncher, WordParser, decode_for_launcher
from asgi_ipc.wire.arena import ARENA_BYTES

# The child's first lines. It has the launcher's sys.path only after the handover, so its command names the
# folder in which this package lies.
_SITE: Final = Path(__file__).parents[2]
_BOOT: Final = (
    "import sys; sys.path[0] = sys.argv.pop(1); from asgi_ipc.worker.main import main; main(sys.argv[1:])"
)

READ_BYTES: Final = 64 * 1024

# An operator sends these to the launcher. A child is kept from these until it has set up its own handling:
# Ctrl-C in a terminal reaches the whole group, at any moment of the child's start.
OPERATORS_SIGNALS: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


class LifelineFullError(Exception):
    """The kernel takes no more on this lifeline now.

    `soon`: only time helps, no readiness will tell. `begun`: it has taken a part.
    """

    def __init__(self, *, soon: bool = False, begun: bool = False) -> None:
        super().__init__(soon, begun)
        self.soon = soon
        self.begun = begun


class Ends:
    """The launcher's ends of the pipe, the arena and the lifeline of one worker.

    Raises OSError if the kernel refuses a descriptor; nothing is left open then.

    Attributes:
        write_end, arena: those that other workers get; -1 when they are closed, and for no arena.
        pipe_bytes: the capacity that the kernel gave the pipe; None where it does not say.
        theirs: the worker's ends: of the lifeline, the pipe and the arena (or -1). The caller closes them.
    """

    def __init__(self, pipe_bytes: int | None, has_arena: bool = True) -> None:
        self._parser = WordParser()
        self._remainder = b""
        with ExitStack() as on_failure:
            read_end, self.write_end = os.pipe()
            on_failure.callback(_close, read_end, self.write_end)
            os.set_blocking(read_end, False)
            os.set_blocking(self.write_end, False)
            self.pipe_bytes = _size_pipe(self.write_end, pipe_bytes)
            own_arena, self.arena = make_arena() if has_arena else (-1, -1)
            on_failure.callback(_close, own_arena, self.arena)
            self.lifeline, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            on_failure.pop_all()
        self.lifeline.setblocking(False)
        self.theirs = (theirs.detach(), read_end, own_arena)

    def read_words(self) -> tuple[list[ToLauncher], bool]:
        """The words that have arrived, and whether the lifeline has ended behind them."""
        words: list[ToLauncher] = []
        while True:
            try:
                chunk = self.lifeline.recv(READ_BYTES)
            except BlockingIOError:
                return words, False
            except ConnectionResetError:
                return words, True
            words += [decode_for_launcher(body) for body in self._parser.feed(chunk)]
            if not chunk:
                return words, True

    def write_word(self, encoded: bytes, owner: Ends | None) -> None:
        """Write one word, with the descriptors of the worker that it is about, or the rest of it.

        Raises LifelineFullError when the kernel takes no more, and OSError when nobody is
        there to read it.
        """
        rest = self._remainder or encoded
        try:
            if owner is None or self._remainder:
                sent = self.lifeline.send(rest)
            else:
                fds = [owner.write_end, owner.arena] if owner.arena >= 0 else [owner.write_end]
                sent = socket.send_fds(self.lifeline, [rest], fds)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                raise LifelineFullError(begun=bool(self._remainder)) from error
            if error.errno in (errno.ETOOMANYREFS, errno.ENOBUFS):
                # Too many descriptors in flight (unix(7)): later.
                raise LifelineFullError(soon=True) from error
            raise
        self._remainder = rest[sent:]
        if self._remainder:
            raise LifelineFullError(begun=True)

    def close_write_end(self) -> None:
        """Close the write end and the arena: nobody will get them any more."""
        _close(self.write_end, self.arena)
        self.write_end = self.arena = -1

    def close(self) -> None:
        """Close all of the launcher's ends."""
        self.close_write_end()
        self.lifeline.close()


class WorkerProcess(Ends):
    """A worker process, seen from its parent. Raises OSError if the kernel refuses it, too."""

    def __init__(
        self,
        generation: int,
        sockets: Sequence[socket.socket],
        pipe_bytes: int | None,
        also: Sequence[int] = (),
    ) -> None:
        """`also`: descriptors that it inherits by the numbers that they have here."""
        super().__init__(pipe_bytes)
        self.generation = generation
        lifeline, read_end, own_arena = self.theirs
        try:
            self._popen = _spawn([*self.theirs, *(each.fileno() for each in sockets)], also)
        except BaseException:
            self.close()
            raise
        finally:
            _close(lifeline, read_end, own_arena)
        self.pid = self._popen.pid

    def signal(self, number: int) -> None:
        """Send a signal, unless it has been reaped already."""
        self._popen.send_signal(number)

    def reap(self) -> int | None:
        """Its exit status if it has ended (negative: a signal), else None."""
        return self._popen.poll()

    def reaped(self, status: int) -> None:
        """It has been reaped together with all other children."""
        self._popen.returncode = status


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _spawn(fds: list[int], also: Sequence[int]) -> subprocess.Popen[bytes]:
    return start_quietly(_command(fds), [*(fd for fd in fds if fd >= 0), *also])


def start_quietly(command: list[str], fds: list[int]) -> subprocess.Popen[bytes]:
    """Start a process that inherits `fds` and lifts its mask when it can answer signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OPERATORS_SIGNALS)
    try:
        return subprocess.Popen(command, pass_fds=fds)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _command(fds: list[int]) -> list[str]:
    if frozen.IS_FROZEN:
        return frozen.command(fds)
    return [sys.executable, *multiprocess.interpreter_flags(), "-c", _BOOT, str(_SITE), *map(str, fds)]


def make_arena() -> tuple[int, int]:
    """Shared memory for a worker: a descriptor of its own, and one for the others that can only be read.

    (-1, -1) where the system has none, or refuses it: then everything travels in packets.
    """
    if sys.platform != "linux":
        return -1, -1
    with ExitStack() as on_failure:
        try:
            own = os.memfd_create("asgi-ipc", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            on_failure.callback(os.close, own)
            os.ftruncate(own, ARENA_BYTES)
            # Nobody can cut it under a reader, which would die of SIGBUS (memfd_create(2)).
            fcntl.fcntl(own, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            others = os.open(f"/proc/self/fd/{own}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1, -1
        on_failure.pop_all()
        return own, others


def _size_pipe(fd: int, wanted_bytes: int | None) -> int | None:
    """Ask for a capacity; what the kernel gave, in bytes, or None where it does not say."""
    if sys.platform != "linux":
        return None
    if wanted_bytes is not None:
        # Refused above the user's share of pages (pipe(7)); a smaller pipe is slower, and no reason to fail.
        with suppress(PermissionError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, wanted_bytes)
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def describe_status(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
