"""The resource tracker of `multiprocessing`, one for all workers, and the sentinel of their parent.

Law: a tracker unlinks what is left when the last write end of its pipe is
closed (resource_tracker.py). So all workers must have the same one, and it must
live as long as the server. Most servers need none: the pipe is there from the
start, and the tracker starts when a process has written to it.
"""

from __future__ import annotations

import asyncio
import os
import select
import subprocess

from asgi_ipc import multiprocess
from asgi_ipc.launcher.limits import describe_refusal
from asgi_ipc.launcher.process import start_quietly
from asgi_ipc.logs import server_logger as logger


class Tracker:
    """Owns the write end that workers inherit, and a pipe that ends with this process. Raises OSError."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._read_end = self._write_end = -1
        self._process: subprocess.Popen[bytes] | None = None
        # Workers can read from it as soon as no process holds the other end.
        self._sentinel, self._alive = os.pipe()

    def fds(self) -> tuple[int, int]:
        """Return the write end and the sentinel for a new worker."""
        # The program may have shared memory of its own, to which workers attach.
        programs = multiprocess.program_tracker()
        if programs is not None:
            return programs, self._sentinel
        if self._write_end < 0:
            self._read_end, self._write_end = os.pipe()
            self._loop.add_reader(self._read_end, self._start)
        return self._write_end, self._sentinel

    def reap(self) -> None:
        """A child has ended. If it was the tracker, the next worker gets a new one, as with Python itself."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            os.close(self._write_end)
            self._write_end = -1

    def close(self) -> None:
        """End with the server: the tracker cleans up after the children of workers have ended, too."""
        if self._read_end >= 0 and select.select([self._read_end], [], [], 0)[0]:
            self._start()
        self._stop_listening()
        for fd in (self._write_end, self._sentinel, self._alive):
            if fd >= 0:
                os.close(fd)

    def _start(self) -> None:
        try:
            command = multiprocess.tracker_command(self._read_end)
            self._process = start_quietly(command, [self._read_end])
        except OSError as error:
            # Workers find no process at the other end, and start trackers of their own.
            logger.error("The resource tracker can't be started: %s", describe_refusal(error))
        self._stop_listening()

    def _stop_listening(self) -> None:
        if self._read_end >= 0:
            self._loop.remove_reader(self._read_end)
            os.close(self._read_end)
            self._read_end = -1
