"""System calls: the stand-ins for `os` and `socket` in the product's modules.

Law: each function has the name, the arguments and the errors of the one that
it stands for, so that the shipped code runs as it is. A function that is not
here is not used by the product, or must be added with the kernel's answer.
"""

from __future__ import annotations

import errno
import os as real_os
import socket as real_socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.faults.simulation.files import File, Pipe, ReadEnd, SocketEnd, WriteEnd
from tests.faults.simulation.kernel import Kernel, Process


class Os:
    """`os`, of whichever process runs."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def pipe(self) -> tuple[int, int]:
        process = self._kernel.enter()
        limits = self._kernel.limits
        pipe = Pipe(limits.page_bytes, limits.pipe_pages)
        return process.open(pipe.read_end), process.open(pipe.write_end)

    def read(self, fd: int, size_bytes: int) -> bytes:
        kernel = self._kernel
        process = kernel.enter()
        end = process.file(fd)
        assert isinstance(end, ReadEnd)
        chunk, writers = end.pipe.read(size_bytes)
        kernel.note(process.name, "reads %d bytes of its pipe, by %s", len(chunk), sorted(writers))
        kernel.watch.read(process, end, chunk, writers)
        kernel.done()
        return chunk

    def write(self, fd: int, data: bytes) -> int:
        kernel = self._kernel
        process = kernel.enter()
        end = process.file(fd)
        assert isinstance(end, WriteEnd)
        end.pipe.write(data, process.number)
        kernel.watch.wrote(process, end, data)
        kernel.done()
        return len(data)

    def close(self, fd: int) -> None:
        process = self._kernel.enter()
        self._kernel.close(process, fd)

    def set_blocking(self, fd: int, blocking: bool) -> None:
        self._kernel.enter().file(fd)

    def set_inheritable(self, fd: int, inheritable: bool) -> None:
        self._kernel.enter().file(fd)

    def getpid(self) -> int:
        return self._kernel.enter().pid


class Socket:
    """A `socket.socket` of the process that made it."""

    def __init__(self, kernel: Kernel, fd: int) -> None:
        self._kernel = kernel
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def detach(self) -> int:
        fd, self._fd = self._fd, -1
        return fd

    def setblocking(self, blocking: bool) -> None:
        # The scheduler runs a blocking reader only when there is something to read.
        pass

    def set_inheritable(self, inheritable: bool) -> None:
        pass

    def close(self) -> None:
        if self._fd >= 0:
            process = self._kernel.enter()
            fd, self._fd = self._fd, -1
            self._kernel.close(process, fd)

    def recv(self, size_bytes: int) -> bytes:
        chunk, files = self.receive(self._kernel.enter(), size_bytes)
        for file in files:
            file.release()
        self._kernel.done()
        return chunk

    def send(self, data: bytes | bytearray) -> int:
        return self.transmit(bytes(data), ())

    def receive(self, process: Process, size_bytes: int) -> tuple[bytes, list[File]]:
        """Return the bytes and files that have come; the files are held."""
        chunk, files = self._end(process).recv(size_bytes)
        self._kernel.note(process.name, "receives %d bytes and %d descriptors", len(chunk), len(files))
        return chunk, files

    def transmit(self, data: bytes, files: Sequence[File]) -> int:
        """Send what fits, or sometimes less."""
        kernel = self._kernel
        process = kernel.enter()
        end = self._end(process)
        size_bytes = min(len(data), max(end.room_bytes, 0))
        if size_bytes > 1 and kernel.chance.random() < kernel.limits.short_write_chance:
            size_bytes = kernel.chance.randint(1, size_bytes)
        end.send(data[:size_bytes], files)
        kernel.note(process.name, "sends %d of %d bytes, %d descriptors", size_bytes, len(data), len(files))
        kernel.done()
        return size_bytes

    def _end(self, process: Process) -> SocketEnd:
        end = process.file(self._fd)
        assert isinstance(end, SocketEnd)
        return end


class SocketModule:
    """`socket`, of whichever process runs."""

    AF_UNIX = real_socket.AF_UNIX
    SOCK_STREAM = real_socket.SOCK_STREAM
    MSG_CTRUNC = real_socket.MSG_CTRUNC

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def socket(self, *, fileno: int) -> Socket:
        return Socket(self._kernel, fileno)

    def socketpair(self, family: int, kind: int) -> tuple[Socket, Socket]:
        kernel = self._kernel
        process = kernel.enter()
        one, other = SocketEnd.pair(kernel.limits.socket_bytes, kernel.flight)
        return Socket(kernel, process.open(one)), Socket(kernel, process.open(other))

    def send_fds(self, sock: Socket, buffers: Sequence[bytes], fds: Sequence[int]) -> int:
        process = self._kernel.enter()
        return sock.transmit(b"".join(buffers), [process.file(fd) for fd in fds])

    def recv_fds(
        self, sock: Socket, size_bytes: int, max_fds: int, flags: int
    ) -> tuple[bytes, list[int], int, None]:
        kernel = self._kernel
        process = kernel.enter()
        chunk, files = sock.receive(process, size_bytes)
        # As at the descriptor limit: the bytes come, and the descriptors don't, or only the first.
        truncated = bool(files) and kernel.chance.random() < kernel.limits.truncate_chance
        arriving = files[: kernel.chance.randrange(len(files))] if truncated else files
        fds = [process.open(file) for file in arriving]
        for file in files:
            file.release()
        kernel.done()
        return chunk, fds, self.MSG_CTRUNC if truncated else 0, None


@dataclass(slots=True)
class Child:
    """The stand-in for a `subprocess.Popen`."""

    kernel: Kernel
    process: Process
    returncode: int | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def poll(self) -> int | None:
        parent = self.kernel.enter()
        if self.returncode is None and not self.process.is_alive:
            self.process.is_reaped = True
            self.kernel.note(parent.name, "reaps %s", self.process.name)
            self.returncode = self.process.status
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            self.kernel.kill(self.process, number)


class NoTracker:
    """The stand-in for the resource tracker of `multiprocessing` in `launcher.launcher`; no test uses it."""

    def fds(self) -> tuple[int, int]:
        return -1, -1

    def reap(self) -> None:
        """No child of this one's has ended."""

    def close(self) -> None:
        """Nothing is open."""


def spawner(
    kernel: Kernel, started: Callable[[Process, list[int]], None]
) -> Callable[[list[int], Sequence[int]], Child]:
    """Return the stand-in for starting a child in `launcher.process`; `started` gives it a program."""

    def spawn(fds: list[int], also: Sequence[int]) -> Child:
        parent = kernel.enter()
        child = kernel.spawn({fd: parent.file(fd) for fd in fds if fd >= 0})
        started(child, fds)
        return Child(kernel, child)

    return spawn


def unread_bytes(kernel: Kernel) -> Callable[[int], int]:
    """Return the stand-in for FIONREAD in `worker.transport.pipes`."""

    def ask(fd: int) -> int:
        end = kernel.enter().file(fd)
        if not isinstance(end, ReadEnd):
            raise OSError(errno.EINVAL, real_os.strerror(errno.EINVAL))
        return end.pipe.unread_bytes

    return ask
