"""Files, which descriptors name: pipes counted in pages, socket pairs that carry descriptors.

Law: the behaviour of Linux (pipe(7), unix(7)) and nothing of the product. A file knows of its holders only
the number of descriptors that name it, including those in flight inside a socket: a write end on its way
keeps the reader from seeing EOF.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


class File:
    """An open file. `holders` counts the descriptors that name it."""

    def __init__(self) -> None:
        self.holders = 0

    def hold(self) -> None:
        """One descriptor more."""
        self.holders += 1

    def release(self) -> None:
        """One descriptor fewer; the last one closes the file."""
        self.holders -= 1
        if not self.holders:
            self.close()

    def close(self) -> None:
        """No descriptor names it any more."""

    def is_readable(self) -> bool:
        """Return whether a read would not block."""
        return False

    def is_writable(self) -> bool:
        """Return whether poll(2) says that it can be written."""
        return False


# --- pipes


@dataclass(slots=True)
class _Page:
    """`end`: how far it is filled; `unread_bytes`: what of it has not been read."""

    end: int
    unread_bytes: int


class Pipe:
    """A pipe of `capacity` pages; for watchers it knows the writer of each unread byte."""

    def __init__(self, page_bytes: int, capacity: int) -> None:
        self.page_bytes = page_bytes
        self.capacity = capacity
        self.read_end = ReadEnd(self)
        self.write_end = WriteEnd(self)
        self._pages: deque[_Page] = deque()
        self._content = bytearray()
        # (writer, unread bytes) of each write.
        self._pieces: deque[tuple[int, int]] = deque()

    @property
    def unread_bytes(self) -> int:
        """FIONREAD."""
        return len(self._content)

    @property
    def has_free_page(self) -> bool:
        """Return whether poll(2) reports it as writable; a write may fit the last page all the same."""
        return len(self._pages) < self.capacity

    def writers(self) -> set[int]:
        """Return the writers of the unread bytes."""
        return {writer for writer, _ in self._pieces}

    def write(self, data: bytes, writer: int) -> None:
        """One atomic write of at most a page. Raises as write(2) does."""
        assert 0 < len(data) <= self.page_bytes
        if not self.read_end.holders:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        last = self._pages[-1] if self._pages else None
        if last is not None and last.end + len(data) <= self.page_bytes:
            last.end += len(data)
            last.unread_bytes += len(data)
        elif self.has_free_page:
            self._pages.append(_Page(len(data), len(data)))
        else:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._content += data
        self._pieces.append((writer, len(data)))

    def read(self, size_bytes: int) -> tuple[bytes, set[int]]:
        """Return the result of read(2), b"" at end of file, and the writers of these bytes."""
        if not self._content:
            if self.write_end.holders:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return b"", set()
        chunk = bytes(self._content[:size_bytes])
        del self._content[:size_bytes]
        self._free(len(chunk))
        return chunk, self._take_pieces(len(chunk))

    def _free(self, size_bytes: int) -> None:
        while size_bytes:
            page = self._pages[0]
            part = min(size_bytes, page.unread_bytes)
            page.unread_bytes -= part
            size_bytes -= part
            if not page.unread_bytes:
                self._pages.popleft()

    def _take_pieces(self, size_bytes: int) -> set[int]:
        writers = set()
        while size_bytes:
            writer, piece = self._pieces.popleft()
            writers.add(writer)
            if piece > size_bytes:
                self._pieces.appendleft((writer, piece - size_bytes))
            size_bytes -= min(piece, size_bytes)
        return writers


class ReadEnd(File):
    """The end that a worker reads."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self.pipe = pipe

    def is_readable(self) -> bool:
        return self.pipe.unread_bytes > 0 or not self.pipe.write_end.holders


class WriteEnd(File):
    """The end that goes round."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self.pipe = pipe

    def is_writable(self) -> bool:
        return self.pipe.has_free_page or not self.pipe.read_end.holders


# --- socket pairs


@dataclass(slots=True)
class Flight:
    """Descriptors in flight in all sockets, and how many there may be (unix(7), ETOOMANYREFS)."""

    limit: int
    count: int = 0


@dataclass(slots=True)
class _Segment:
    """The queued bytes and files of one send; the files arrive with the first byte."""

    data: bytes
    files: Sequence[File]


class SocketEnd(File):
    """One end of a stream socket pair, with room for `capacity_bytes` unread at each end."""

    peer: SocketEnd

    def __init__(self, capacity_bytes: int, flight: Flight) -> None:
        super().__init__()
        self.capacity_bytes = capacity_bytes
        self.inbox_bytes = 0
        self._flight = flight
        self._inbox: deque[_Segment] = deque()
        self._was_reset = False

    @classmethod
    def pair(cls, capacity_bytes: int, flight: Flight) -> tuple[SocketEnd, SocketEnd]:
        """Two connected ends."""
        one, other = cls(capacity_bytes, flight), cls(capacity_bytes, flight)
        one.peer, other.peer = other, one
        return one, other

    def is_readable(self) -> bool:
        return bool(self._inbox) or not self.peer.holders

    def is_writable(self) -> bool:
        return self.peer.inbox_bytes * 2 <= self.capacity_bytes or not self.peer.holders

    @property
    def room_bytes(self) -> int:
        """How much a send could queue now."""
        return self.capacity_bytes - self.peer.inbox_bytes

    def unread(self) -> bytes:
        """Return the result of a recv that is large enough, and take nothing."""
        return b"".join(segment.data for segment in self._inbox)

    def send(self, data: bytes, files: Sequence[File]) -> None:
        """Queue all of `data`, which fits. Raises as sendmsg(2) does."""
        if not self.peer.holders:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        if files and self._flight.count + len(files) > self._flight.limit:
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        if self.room_bytes <= 0:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        for file in files:
            file.hold()
        self._flight.count += len(files)
        self.peer._inbox.append(_Segment(data, files))
        self.peer.inbox_bytes += len(data)

    def recv(self, size_bytes: int) -> tuple[bytes, list[File]]:
        """Return the result of recvmsg(2): it does not read past a segment whose files it has taken.

        The files are still held; the caller names or releases them.
        """
        if not self._inbox:
            if self._was_reset:
                self._was_reset = False
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            if self.peer.holders:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return b"", []
        taken = b""
        files: list[File] = []
        while self._inbox and len(taken) < size_bytes and not files:
            segment = self._inbox[0]
            files += segment.files
            segment.files = ()
            part = segment.data[: size_bytes - len(taken)]
            taken += part
            segment.data = segment.data[len(part) :]
            if not segment.data:
                self._inbox.popleft()
        self.inbox_bytes -= len(taken)
        self._flight.count -= len(files)
        return taken, files

    def close(self) -> None:
        # unix_release_sock(): unread data is dropped, and the peer gets ECONNRESET.
        self.peer._was_reset = bool(self._inbox)
        while self._inbox:
            for file in self._inbox.popleft().files:
                self._flight.count -= 1
                file.release()
        self.inbox_bytes = 0
