"""Listening: the socket from which all workers accept, and the file of a Unix socket.

Law: a server logs its address only when it listens there: two may bind one port for a moment, but only one
listens. A killed server leaves a socket file at which nobody accepts; that file is replaced. No other file is
ever removed, and at the end only our own.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import logging
import os
import pwd
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import uvicorn

from asgi_ipc.errors import LauncherError
from asgi_ipc.logs import server_logger as logger

# Two servers at one path look and bind one after the other, each within a millisecond. A lock that is held
# for longer has another purpose.
FOLDER_LOCK_S: Final = 1.0
_FOLDER_LOCK_STEP_S: Final = 0.01

# `struct ucred` (unix(7)): pid, uid, gid.
_UCRED: Final = struct.Struct("3i")


class Listener:
    """A listening socket. Raises LauncherError with the place and the reason if there can't be one.

    Attributes:
        socket: the socket that the workers get.
    """

    def __init__(
        self, config: uvicorn.Config, mode: int | None = None, owner: tuple[int, int] = (-1, -1)
    ) -> None:
        self._path = config.uds
        self._file: tuple[int, int] | None = None
        held = _Held()
        logger.awake().addFilter(held)
        try:
            self.socket = self._bound(config, mode, owner, held)
        finally:
            logger.awake().removeFilter(held)
        for record in held.records:
            logger.awake().handle(record)

    def close(self) -> None:
        """Stop listening, and remove the socket's file if it is still this socket's."""
        # Before the close: as long as the socket is open no other file can have its inode number.
        if self._path is not None and self._file is not None:
            with suppress(OSError):
                if _number(self._path) == self._file:
                    os.unlink(self._path)
        self.socket.close()

    def _bound(
        self, config: uvicorn.Config, mode: int | None, owner: tuple[int, int], held: _Held
    ) -> socket.socket:
        try:
            if config.uds is None:
                return _listening(config.bind_socket(), config.backlog)
            with _one_at_a_time(os.path.dirname(config.uds) or "."):
                left_mode = _make_room(config.uds, config)
                bound = config.bind_socket()
                self._file = _number(config.uds)
                try:
                    # No client can connect yet, whatever the mode is.
                    if owner != (-1, -1):
                        _give(config.uds, owner)
                    mode = left_mode if mode is None else mode
                    if mode is not None:
                        os.chmod(config.uds, mode)
                    return _listening(bound, config.backlog)
                except OSError:
                    self.socket = bound
                    self.close()
                    raise
        except SystemExit as error:
            # uvicorn has logged the reason.
            reason = held.records[-1].msg if held.records else "see above"
            raise _refused(config, reason) from error
        except (OSError, ValueError, TypeError, OverflowError) as error:
            raise _refused(config, error) from error


def parse_mode(given: str | int) -> int:
    """Return the mode of a file, from octal digits or a number. Raises LauncherError."""
    try:
        mode = int(given, 8) if isinstance(given, str) else given
        if not isinstance(mode, int) or not 0 <= mode <= 0o777:
            raise ValueError
    except (ValueError, TypeError):
        raise LauncherError(f"uds_mode is a mode from 000 to 777, octal, not {given!r}") from None
    return mode


def parse_owner(given: str) -> tuple[int, int]:
    """Return the numbers of a user and a group, -1 for one that is not given. Raises LauncherError."""
    user, _, group = str(given).partition(":")
    if not user and not group:
        raise LauncherError(f"uds_owner is USER, USER:GROUP or :GROUP, not {given!r}")
    try:
        uid = -1 if not user else int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        gid = -1 if not group else int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except (KeyError, ValueError) as error:
        raise LauncherError(f"uds_owner {given!r}: there is no such user or group here") from error
    if max(uid, gid) >= 2**32 - 1:
        raise LauncherError(f"uds_owner {given!r}: a number is below {2**32 - 1}")
    return uid, gid


class _Held(logging.Filter):
    """Holds back the lines that uvicorn logs while it binds: that it runs, or why it can't."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.records.append(record)
        return False


def _listening(bound: socket.socket, backlog: int) -> socket.socket:
    """Listen. Raises OSError, with the socket closed, if another process listens there already."""
    bound.set_inheritable(False)
    try:
        bound.listen(backlog)
    except OSError:
        bound.close()
        raise
    return bound


def _give(path: str, owner: tuple[int, int]) -> None:
    try:
        os.chown(path, *owner)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}, for --uds-owner") from error


def _refused(config: uvicorn.Config, reason: object) -> LauncherError:
    """The error to raise: the address in words, the reason, and the options that set the address."""
    if config.uds is not None:
        place, hint = config.uds, "see --uds"
    elif config.fd is not None:
        place, hint = f"descriptor {config.fd}", "see --fd"
    elif getattr(reason, "errno", None) == errno.EADDRINUSE:
        place, hint = f"{config.host}:{config.port}", "--port chooses another one"
    else:
        place, hint = f"{config.host}:{config.port}", "see --host and --port"
    return LauncherError(f"can't listen on {place}: {reason}; {hint}")


def _number(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


@contextmanager
def _one_at_a_time(folder: str) -> Iterator[None]:
    """Hold the lock of a folder, which leaves no file behind; where there is no lock, go on without."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        # It can't be read; or it is not there, and binding reports that.
        yield
        return
    try:
        deadline = time.monotonic() + FOLDER_LOCK_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_FOLDER_LOCK_STEP_S)
            except OSError:
                break
        yield
    finally:
        os.close(fd)


def _make_room(path: str, config: uvicorn.Config) -> int | None:
    """Remove a socket file at which no process accepts; return its mode, or None if there was no file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISSOCK(found.st_mode):
        raise _refused(config, "there is a file that is no socket, and is not removed")
    holder = _holder(path)
    if holder is not None:
        raise _refused(config, f"another server listens there{holder}")
    with suppress(FileNotFoundError):
        if _number(path) == (found.st_dev, found.st_ino):
            os.unlink(path)
    return stat.S_IMODE(found.st_mode)


def _holder(path: str) -> str | None:
    """The process that accepts there, in words; None: no process does."""
    with socket.socket(socket.AF_UNIX) as client:
        # A full backlog would make it wait.
        client.setblocking(False)
        try:
            client.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except BlockingIOError:
            # One does, and is busy.
            return ""
        if not hasattr(socket, "SO_PEERCRED"):
            return ""
        pid, _, _ = _UCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return f": process {pid}" if _exists(pid) else ""


def _exists(pid: int) -> bool:
    """Whether the process that called listen(2) last is still there; it may have been a worker."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
