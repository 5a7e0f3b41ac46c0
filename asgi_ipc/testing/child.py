"""One child process: started in a session of its own, read through a file, ended with all its children.

Law: this starts every server of a test, of a row of the table of faults and of a benchmark. It waits only for
the end of the process, and does not search the output; its callers do. The child writes into a file: no
thread reads, nothing is lost, and a child with much output never waits for its test.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from asgi_ipc.worker import descriptors

# The kernel kills quickly, unless the machine is starved.
KILL_TIMEOUT_S: Final = 10.0

# No event for a process's output and its end works in plain functions on every system.
LOOK_S: Final = 0.01

HAS_PROC: Final = Path("/proc/self/task").exists()


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, of all its threads. Linux only."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in task.read_text().split()]
    return found


def is_running(pid: int) -> bool:
    """Return whether a process exists and, on Linux, is no zombie."""
    try:
        if not HAS_PROC:
            os.kill(pid, 0)
            return True
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in "ZX"


class Tie:
    """The write end of a pipe; the server stops when it is closed, also by this process's death.

    Attributes:
        fd: the write end.
        theirs: the read end, for `pass_fds`; closed by `pass_on`.
    """

    def __init__(self) -> None:
        # A fork of the test would hold the end, and outlive this process.
        with descriptors.changing_hands:
            self.theirs, self.fd = os.pipe()
            descriptors.register(self)

    def told_to(self, command: Sequence[str]) -> list[str]:
        """Return a command that is told of the pipe behind `serve`; words behind `--` are for the app."""
        place = [*command].index("serve") + 1
        return [*command[:place], "--stop-at-eof", str(self.theirs), *command[place:]]

    def pass_on(self) -> None:
        """Close the read end: the server has its own now, or will never start."""
        fd, self.theirs = self.theirs, -1
        os.close(fd)

    def close(self) -> None:
        """Let go of the server, if it is still there."""
        with descriptors.changing_hands:
            self.abandon()

    def abandon(self) -> None:
        """Close the end in a forked child: the server belongs to the parent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Child:
    """A process, its output and all that it starts. An `asgi-ipc serve` stops when this process ends.

    Attributes:
        pid: its own, and that of its session and its process group.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self._said = b""
        self._tie = Tie() if "serve" in command else None
        try:
            self._process = subprocess.Popen(
                command if self._tie is None else self._tie.told_to(command),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                pass_fds=[] if self._tie is None else [self._tie.theirs],
                # A Ctrl-C in the terminal must reach the test only; and a session can be ended as a whole.
                start_new_session=True,
            )
        except BaseException:
            self._output.close()
            if self._tie is not None:
                self._tie.close()
            raise
        finally:
            if self._tie is not None:
                self._tie.pass_on()
        self.pid = self._process.pid

    @property
    def output(self) -> str:
        """The output of the process and its children so far."""
        return self.read().decode(errors="replace")

    def read(self, start: int = 0) -> bytes:
        """The output from that byte on."""
        if self._output.closed:
            return self._said[start:]
        fd = self._output.fileno()
        return os.pread(fd, os.fstat(fd).st_size - start, start)

    @property
    def status(self) -> int | None:
        """The exit status, negative if a signal has ended it; None while it runs."""
        return self._process.poll()

    def is_there(self) -> bool:
        """Return whether a process of its process group runs."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            # The process of another user; or, on macOS, a zombie.
            return HAS_PROC
        if not HAS_PROC:
            return True
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
        return any(self._is_ours(pid) and is_running(pid) for pid in pids)

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it runs."""
        # poll() first, so that the pid can't have been reused.
        if self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """Wait for the end of the process; return its exit status. Raises TimeoutError."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None

    def kill(self) -> None:
        """Kill what is left of its session, and wait for that. Raises TimeoutError."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        # A signal takes time, and wait() does not cover processes that the child has started.
        deadline = time.monotonic() + KILL_TIMEOUT_S
        while self.is_there():
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(LOOK_S)

    def close(self) -> None:
        """Kill what is left of it; `output` stays."""
        try:
            self.kill()
        finally:
            if self._tie is not None:
                self._tie.close()
            self._said = self.read()
            self._output.close()

    def _is_ours(self, pid: int) -> bool:
        try:
            return os.getpgid(pid) == self.pid
        except ProcessLookupError:
            return False
