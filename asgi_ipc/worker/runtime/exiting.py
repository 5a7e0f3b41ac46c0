"""Exiting: a worker that has left the fleet ends in bounded time.

Law: nothing here starts before the requests are done, the app has shut down
and the drain is over. When a process ends, Python joins its threads, executors
and children of `multiprocessing`. One that never ends must not keep the worker
alive, and the log names it.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from asgi_ipc.logs import server_logger as logger
from asgi_ipc.printable import printable
from asgi_ipc.worker.runtime import stacks

# A report may wait for a lock that a hung thread holds, or for a reader of the log: it gets this long. The
# report of an orphan must be over within the promised 5 s.
REPORT_S: Final = 1.0
ORPHAN_REPORT_S: Final = 0.3

# A finalizer may hang after Python froze all other threads (Py_FinalizeEx): then the kernel ends the process.
KERNEL_MARGIN_S: Final = 1.0

# A command line may be very long; the log shows its start.
COMMAND_CHARACTERS: Final = 80

# An app may have a thread for each client; one line of the log names this many.
MAX_NAMED: Final = 20

# Helpers of `multiprocessing`: each ends by itself when its last user has ended.
_HELPERS: Final = ("from multiprocessing.resource_tracker import", "from multiprocessing.forkserver import")


@contextmanager
def bounded(timeout_s: float, runner: asyncio.Runner) -> Iterator[None]:
    """End the process at most `timeout_s` seconds after the block, with the exit status of the block."""
    status = 1
    try:
        yield
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    finally:
        # The default action of SIGALRM ends a process without Python.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, timeout_s + REPORT_S + KERNEL_MARGIN_S)
        # An exec keeps the timer (execve(2)), which would end the new program. No hook can be removed again,
        # but this process ends.
        sys.addaudithook(_disarm_before_exec)
        clock = (timeout_s, status, runner.get_loop())
        threading.Thread(target=_wait_and_end, args=clock, name="asgi-ipc-exit", daemon=True).start()


def _disarm_before_exec(event: str, arguments: object) -> None:
    if event == "os.exec":
        signal.setitimer(signal.ITIMER_REAL, 0)


def _wait_and_end(timeout_s: float, status: int, loop: asyncio.AbstractEventLoop) -> None:
    time.sleep(timeout_s)
    end(status, f"{timeout_s:g} s after its shutdown (--exit-timeout)", loop)


def end(status: int, when: str, loop: asyncio.AbstractEventLoop | None, report_s: float = REPORT_S) -> None:
    """End this process now, from any thread, and log what still ran in it."""
    report = threading.Thread(target=_report, args=(when, loop), daemon=True)
    try:
        report.start()
        report.join(report_s)
    except RuntimeError:
        # Python 3.12.0 and .1 start no thread while the main one joins the rest. `bounded` is over then, so
        # its timer is free.
        signal.setitimer(signal.ITIMER_REAL, report_s)
        _report(when, loop)
    os._exit(status)


def tell_children() -> None:
    """Log the child processes that outlive this worker. Python still joins those of `multiprocessing`."""
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
        foreign = stacks.foreign_place(frame)
        if thread is not threading.main_thread():
            yield f"thread {printable(thread.name)!r} at {foreign or stacks.place(frame)}"
        elif foreign is not None:
            # Otherwise the main thread only waits for another thread, which has its own line.
            yield f"the main thread at {foreign}"


def _tasks(loop: asyncio.AbstractEventLoop) -> Iterator[str]:
    tasks: set[asyncio.Task[object]] = set()
    with suppress(RuntimeError):  # tasks come and go too fast to be counted
        tasks = asyncio.all_tasks(loop)
    for task in tasks:
        innermost = None
        awaited: object = task.get_coro()
        while awaited is not None:
            frame = getattr(awaited, "cr_frame", None)
            if frame is not None and stacks.is_foreign(frame):
                innermost = frame
            awaited = getattr(awaited, "cr_await", None)
        if innermost is not None:
            yield f"task {printable(task.get_name())!r} at {stacks.place(innermost)}"


def _children() -> list[tuple[int, str]]:
    """Return pid and description of each child process; nothing where the kernel has no such list."""
    found = []
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that has just ended
            for pid in map(int, task.read_text().split()):
                command = _command(pid)
                if command and not any(helper in command for helper in _HELPERS):
                    found.append((pid, f"child process {pid} ({printable(command[:COMMAND_CHARACTERS])})"))
    return found


def _command(pid: int) -> str:
    """Return the command line of a process, "" if it has ended."""
    with suppress(OSError):
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).replace("\0", " ").strip()
    return ""
