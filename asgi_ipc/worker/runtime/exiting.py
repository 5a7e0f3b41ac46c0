"""Ending: a worker that has left ends in bounded time, whatever still runs in it.

Law: nothing here starts before the requests are done, the app has shut down
and the drain is over. Python joins threads, executors and children of
`multiprocessing` when a process ends; one that never ends must not keep the
worker, and the operator is told of it.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

from asgi_ipc.logs import server_logger as logger
from asgi_ipc.printable import printable

# A report may wait for a lock that a hung thread holds, or for a reader of the log: it gets this long. An
# orphan's has to be over within the promised 5 s.
REPORT_S: Final = 1.0
ORPHAN_REPORT_S: Final = 0.3

# A finalizer may hang when all other threads have been frozen (Py_FinalizeEx): the kernel ends that.
KERNEL_MARGIN_S: Final = 1.0

# A command line may be as long as a book.
COMMAND_CHARACTERS: Final = 80

# An app may have a thread for each client; a line of the log has an end.
MAX_NAMED: Final = 20

# Helpers of `multiprocessing`: each ends by itself when its last user has ended.
_HELPERS: Final = ("from multiprocessing.resource_tracker import", "from multiprocessing.forkserver import")

_STANDARD: Final = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
_INSTALLED: Final = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
_OURS: Final = str(Path(__file__).parents[2])


@contextmanager
def bounded(timeout_s: float, runner: asyncio.Runner) -> Iterator[None]:
    """Around all that a worker does: when that is over, the process ends within `timeout_s` seconds.

    The exit status is the one that it would have had.
    """
    status = 1
    try:
        yield
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    finally:
        # The default action of SIGALRM needs no Python.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, timeout_s + REPORT_S + KERNEL_MARGIN_S)
        clock = (timeout_s, status, runner.get_loop())
        threading.Thread(target=_wait_and_end, args=clock, name="asgi-ipc-exit", daemon=True).start()


def _wait_and_end(timeout_s: float, status: int, loop: asyncio.AbstractEventLoop) -> None:
    time.sleep(timeout_s)
    end(status, f"{timeout_s:g} s after its shutdown (--exit-timeout)", loop)


def end(status: int, when: str, loop: asyncio.AbstractEventLoop | None, report_s: float = REPORT_S) -> None:
    """End this process now, from any thread; the log says what it still ran, and when that was."""
    report = threading.Thread(target=_report, args=(when, loop), daemon=True)
    try:
        report.start()
        report.join(report_s)
    except RuntimeError:
        # Too late for another thread (Python 3.12.0 and .1, while the main one joins the rest); `bounded` is
        # over then, and the kernel can end this.
        signal.setitimer(signal.ITIMER_REAL, report_s)
        _report(when, loop)
    os._exit(status)


def tell_children() -> None:
    """Name the child processes that go on without this worker; those of `multiprocessing` are joined yet."""
    joined = {child.pid for child in multiprocessing.active_children()}
    left = [text for pid, text in _children() if pid not in joined]
    if left:
        logger.info("Worker [%d] leaves %s running.", os.getpid(), _listed(left))


def _report(when: str, loop: asyncio.AbstractEventLoop | None) -> None:
    running = [*_threads(), *(_tasks(loop) if loop is not None and not loop.is_closed() else ())]
    children = [text for _, text in _children()]
    text = f"Worker [{os.getpid()}] still ran {when}, and is ended"
    text += f". It ran {_listed(running)}" if running else ""
    text += f". It leaves {_listed(children)} running" if children else ""
    logger.warning("%s.", text)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # there is none, or it is closed
            stream.flush()


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - MAX_NAMED} more" if len(items) > MAX_NAMED else ""
    return ", ".join(items[:MAX_NAMED]) + more


def _threads() -> Iterator[str]:
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is None or thread.daemon:
            continue
        place = _place_in_app(frame)
        if thread is not threading.main_thread():
            yield f"thread {printable(thread.name)!r} at {place or _shown(frame)}"
        elif place is not None:
            # Otherwise it only waits for what is named beside it.
            yield f"the main thread at {place}"


def _tasks(loop: asyncio.AbstractEventLoop) -> Iterator[str]:
    tasks: set[asyncio.Task[object]] = set()
    with suppress(RuntimeError):  # they change too fast to be counted
        tasks = asyncio.all_tasks(loop)
    for task in tasks:
        place = None
        awaited: object = task.get_coro()
        while awaited is not None:
            frame = getattr(awaited, "cr_frame", None)
            if frame is not None and _is_of_app(frame):
                place = _shown(frame)
            awaited = getattr(awaited, "cr_await", None)
        if place is not None:
            yield f"task {printable(task.get_name())!r} at {place}"


def _place_in_app(innermost: FrameType) -> str | None:
    """Where a stack stands in code that is neither Python's nor ours, if it does."""
    frame: FrameType | None = innermost
    while frame is not None and not frame.f_code.co_filename.startswith(_OURS):
        if _is_of_app(frame):
            return _shown(frame)
        frame = frame.f_back
    return None


def _is_of_app(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    # Code that is compiled or frozen into Python has no place in the file system.
    return os.path.isabs(file) and (file.startswith(_INSTALLED) or not file.startswith((*_STANDARD, _OURS)))


def _shown(frame: FrameType) -> str:
    return printable(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")


def _children() -> list[tuple[int, str]]:
    """This process's children that run: pid, and what it is in words. None where the kernel does not tell."""
    found = []
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that has just ended
            for pid in map(int, task.read_text().split()):
                command = _command(pid)
                if command and not any(helper in command for helper in _HELPERS):
                    found.append((pid, f"child process {pid} ({printable(command[:COMMAND_CHARACTERS])})"))
    return found


def _command(pid: int) -> str:
    """Its command line; empty for one that has ended."""
    with suppress(OSError):
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).replace("\0", " ").strip()
    return ""
