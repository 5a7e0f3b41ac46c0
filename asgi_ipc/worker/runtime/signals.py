"""Signals: what a worker does with each, and what its children inherit.

Law: no signal is ignored by SIG_IGN, because every program that the app starts
would inherit that; an exec resets a handler that does nothing (execve(2)). The
main thread keeps the signal mask with which the server was started, because
children inherit it. If that mask blocks SIGTERM, another thread receives it.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Final

# A terminal sends these to the whole process group; the launcher answers them.
_QUIET: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)

# Every Python ignores these, and resets them in the children that it starts (subprocess, restore_signals).
_PYTHONS: Final = {getattr(signal, name, None) for name in ("SIGPIPE", "SIGXFSZ", "SIGXFZ")}

# The signals that now have the handler that does nothing.
_quiet: Final[set[int]] = set()


def take() -> None:
    """Take over the signals of a terminal, while they are still blocked, so that none ends this process."""
    for number in signal.valid_signals() - _PYTHONS:
        if signal.getsignal(number) is signal.SIG_IGN:
            _keep_quiet(number)
    # If SIGCHLD were ignored, a child would leave no exit status (wait(2)). uvloop's handler is in C and may
    # run on any thread: the guard inherits this mask, and receives it.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    for number in _QUIET:
        _keep_quiet(number)


def receive(mask: Iterable[int], wake: Callable[[], None]) -> None:
    """Unblock signals, now that there are handlers, as far as `mask` allows; SIGTERM in any case.

    `wake`, called on another thread, makes the event loop turn, if there is one.
    """
    mask = set(mask)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if signal.SIGTERM in mask:
        threading.Thread(target=_receive, args=(wake,), name="asgi-ipc-signals", daemon=True).start()


def _receive(wake: Callable[[], None]) -> None:
    while True:
        signal.sigwait({signal.SIGTERM})
        # Python's handlers run on the main thread, and this does not interrupt it: wake it.
        _thread.interrupt_main(signal.SIGTERM)
        wake()


def _keep_quiet(number: int) -> None:
    signal.signal(number, _do_nothing)
    # As little effect as if it were ignored: no system call ends early (sigaction(2), SA_RESTART).
    signal.siginterrupt(number, False)
    _quiet.add(number)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


def reset(number: int) -> None:
    """Give a signal the handler with which Python starts."""
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _reset_in_child() -> None:
    for number in _quiet:
        if signal.getsignal(number) is _do_nothing:  # the app has set none of its own
            reset(number)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_reset_in_child)
