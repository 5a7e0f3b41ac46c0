"""Signals: what a worker does with each, and what its children see of that.

Law: nothing is ignored by SIG_IGN, which an exec would hand on to every program that the app starts; a
handler that does nothing is reset by it (execve(2)). The main thread has the mask that the starter of the
server had, because children inherit the mask of the thread that starts them. Another thread receives the
signals that this process relies on and the starter has blocked.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Final

# Sent to the whole group by terminals; they are the launcher's to answer.
_QUIET: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)

# Ignored by every Python, which resets them in the children that it starts (subprocess, restore_signals).
_PYTHONS: Final = {getattr(signal, name, None) for name in ("SIGPIPE", "SIGXFSZ", "SIGXFZ")}

# The signals with the handler that does nothing.
_quiet: Final[set[int]] = set()


def take() -> None:
    """First of all, while they are still blocked: from here on no signal of a terminal ends this process."""
    for number in signal.valid_signals() - _PYTHONS:
        if signal.getsignal(number) is signal.SIG_IGN:
            _keep_quiet(number)
    # Without zombies to wait for, there is no status of a child (wait(2)). uvloop's handler, which is of C,
    # may run on any thread; so the guard receives it, which starts with the mask of now.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    for number in _QUIET:
        _keep_quiet(number)


def receive(mask: Iterable[int], wake: Callable[[], None]) -> None:
    """Let signals come, now that there are handlers: SIGTERM whatever the starter of the server has blocked.

    `wake`: has the event loop turn, if there is one; called on another thread.
    """
    mask = set(mask)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if signal.SIGTERM in mask:
        threading.Thread(target=_receive, args=(wake,), name="asgi-ipc-signals", daemon=True).start()


def _receive(wake: Callable[[], None]) -> None:
    while True:
        signal.sigwait({signal.SIGTERM})
        # Python's handlers run on the main thread, which is not interrupted by this: wake it.
        _thread.interrupt_main(signal.SIGTERM)
        wake()


def _keep_quiet(number: int) -> None:
    signal.signal(number, _do_nothing)
    # As far as possible as if it were ignored: no call in C ends early (sigaction(2), SA_RESTART).
    signal.siginterrupt(number, False)
    _quiet.add(number)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


def reset(number: int) -> None:
    """The default, as Python starts with it."""
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _reset_in_child() -> None:
    for number in _quiet:
        if signal.getsignal(number) is _do_nothing:  # the app has set none of its own
            reset(number)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_reset_in_child)
