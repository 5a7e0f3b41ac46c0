"""Stacks: where threads stand, for the log.

Law: looks at frames, from any thread, and changes nothing.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Final, Literal, TypeAlias

from asgi_ipc.printable import printable

Origin: TypeAlias = Literal["app", "installed", "python", "asgi_ipc"]

# A framework has many frames, and people read the log.
MAX_FRAMES: Final = 20

# Bounds the time of an endless recursion: the stalled thread does not run meanwhile.
MAX_SEEN: Final = 500

_PACKAGE: Final = str(Path(__file__).parents[2])
_STANDARD: Final = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
_INSTALLED: Final = ("site-packages", "dist-packages")


def origin(filename: str) -> Origin:
    """Say whose a source file is."""
    # Code that is compiled or frozen into Python has no absolute path.
    if not os.path.isabs(filename):
        return "python"
    if filename.startswith(_PACKAGE):
        return "asgi_ipc"
    # Below the standard library's folder, so asked first.
    if any(folder in filename for folder in _INSTALLED):
        return "installed"
    return "python" if filename.startswith(_STANDARD) else "app"


def place(frame: FrameType) -> str:
    """Name the file, line and function of a frame."""
    return printable(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")


def is_foreign(frame: FrameType) -> bool:
    """Return whether a frame is the app's or an installed library's."""
    return origin(frame.f_code.co_filename) in ("app", "installed")


def foreign_place(innermost: FrameType) -> str | None:
    """Name the innermost foreign frame of a stack; None if this package stands above it."""
    frame: FrameType | None = innermost
    while frame is not None and origin(frame.f_code.co_filename) != "asgi_ipc":
        if is_foreign(frame):
            return place(frame)
        frame = frame.f_back
    return None


def stack_of_main_thread() -> str:
    """Format the main thread's frames, innermost first: those of the app's files, then all others."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return ""
    own: list[traceback.FrameSummary] = []
    others: list[traceback.FrameSummary] = []
    for each in traceback.StackSummary.extract(traceback.walk_stack(frame), limit=MAX_SEEN):
        (own if origin(each.filename) == "app" else others).append(each)
    lines = [_line(each) for each in own[:MAX_FRAMES]]
    if others and own:
        lines.append("and, innermost first, not of the app:")
    lines += [_line(each) for each in others[:MAX_FRAMES]]
    return "\n".join(lines)


def _line(frame: traceback.FrameSummary) -> str:
    source = f": {frame.line}" if frame.line else ""
    return f"{frame.filename}:{frame.lineno} in {frame.name}{source}"
