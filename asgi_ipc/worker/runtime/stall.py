"""A stall: where the main thread stands when its event loop does not turn.

Law: for the guard's thread, which alone runs then. It looks at the main
thread's frames from outside, and changes nothing.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
import traceback
from pathlib import Path
from typing import Final

# The loop beats once for each look (heartbeat.py). The third look in a row that sees no new beat comes 2
# to 3 beats after the last one, and so before the launcher speaks of a stall (STALLED_AFTER_S, 3.5 beats).
LOOKS: Final = 3

# The frames of a framework are many, and a log is read by people.
MAX_FRAMES: Final = 20

# Of a recursion without end; each costs the stalled thread its turn.
MAX_SEEN: Final = 500

_PACKAGE: Final = str(Path(__file__).parents[2])
_STANDARD: Final = sysconfig.get_path("stdlib")


class StallWatch:
    """Counts the looks that see the same beat."""

    def __init__(self) -> None:
        self._beats = 0
        self._looks = 0

    def is_stalled(self, beats: int) -> bool:
        """Whether this look is the one that finds a stall. `beats`: how many there have been so far."""
        if beats != self._beats:
            self._beats, self._looks = beats, 0
        self._looks += 1
        # Before the first beat there is no loop.
        return self._looks == LOOKS and beats > 0


def stack_of_main_thread() -> str:
    """Its frames, innermost first, a line for each; those of the app's own files before all others."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return ""
    own: list[traceback.FrameSummary] = []
    others: list[traceback.FrameSummary] = []
    for each in traceback.StackSummary.extract(traceback.walk_stack(frame), limit=MAX_SEEN):
        (own if _is_of_app(each.filename) else others).append(each)
    lines = [_line(each) for each in own[:MAX_FRAMES]]
    if others and own:
        lines.append("and, innermost first, not of the app:")
    lines += [_line(each) for each in others[:MAX_FRAMES]]
    return "\n".join(lines)


def _line(frame: traceback.FrameSummary) -> str:
    source = f": {frame.line}" if frame.line else ""
    return f"{frame.filename}:{frame.lineno} in {frame.name}{source}"


def _is_of_app(filename: str) -> bool:
    """Whether a file is neither Python's, nor installed, nor of this package."""
    installed = "site-packages" in filename or "dist-packages" in filename
    return not (installed or filename.startswith(("<", _PACKAGE, _STANDARD)))
