"""The guard: a thread that sees what a blocked event loop can't.

Law: it sleeps on the lifeline for its hang-up, which tells the launcher's
death, and looks now and then whether the loop has turned. It sends one word
alone: where a loop stands that can't say so itself.
"""

from __future__ import annotations

import errno
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from asgi_ipc.fleet.words import Stuck
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.runtime import exiting
from asgi_ipc.worker.runtime.stacks import stack_of_main_thread

# After the launcher's death, and after the end of the last request, a process has this long to end by
# itself: an orphan's drain takes 4 s (leave.py), and it must be out within the promised 5 s. A loop that does
# not turn has this long, too, whatever request is open.
GRACE_S: Final = 4.5

# How often the guard looks whether a request is open and the loop turns.
STEP_S: Final = 0.05

# The exit status of a process that the guard had to end.
EXIT_STATUS: Final = 70

# The loop beats once for each look (heartbeat.py). The third look in a row that sees no new beat comes 2
# to 3 beats after the last one, and so before the launcher reports a stall (STALLED_AFTER_S, 3.5 beats).
LOOKS_UNTIL_STALLED: Final = 3


class Guard:
    """Reports an event loop that does not turn, and ends a process that outlives its launcher."""

    def __init__(self, lifeline: Lifeline, period_s: float) -> None:
        """Look whether the loop turns once in `period_s` seconds, which is its heartbeat's."""
        self._lifeline = lifeline
        self._period_s = period_s
        self._beats = 0
        # Returns whether a client has a connection; called on the guard's thread.
        self.is_serving: Callable[[], bool] = lambda: False

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="asgi-ipc-guard", daemon=True).start()

    def beat(self) -> None:
        """Called by the event loop now and then: it turns."""
        self._beats += 1

    def _run(self) -> None:
        if self._wait_for_hang_up():
            # uvloop stops watching a descriptor that has an error (POLLERR), without telling.
            self._lifeline.wake()
            self._end_orphan()

    def _wait_for_hang_up(self) -> bool:
        """Return whether the launcher hung up; False if this process did."""
        poll = select.poll()
        # No events asked for: only the hang-up ends a poll early (poll(2), POLLHUP).
        fd = self._lifeline.fileno()
        poll.register(fd, 0)
        beats = looks = 0
        while True:
            try:
                ready = poll.poll(self._period_s * 1000)
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                return False
            if self._lifeline.fileno() != fd:
                # The lifeline is closed, and the number may be another descriptor's by now.
                return False
            if ready:
                return not ready[0][1] & select.POLLNVAL
            looks = looks + 1 if beats == self._beats else 1
            beats = self._beats
            # Before the first beat there is no loop.
            if looks == LOOKS_UNTIL_STALLED and beats > 0:
                self._lifeline.send_beside_loop(Stuck(stack_of_main_thread()))

    def _end_orphan(self) -> None:
        """Wait for the process to end by itself; end it when it does not.

        C code that holds the interpreter's lock for ever stops this thread, too (docs/decisions/0019). A
        timer of the kernel needs no lock, but it does not know whether the launcher lives.
        """
        beats = self._beats
        beat_at = served_at = now = time.monotonic()
        while now < min(beat_at, served_at) + GRACE_S:
            time.sleep(STEP_S)
            now = time.monotonic()
            if beats != self._beats:
                beats, beat_at = self._beats, now
            if self.is_serving():
                served_at = now
        exiting.end(EXIT_STATUS, "after the launcher's end", self._lifeline.loop, exiting.ORPHAN_REPORT_S)
