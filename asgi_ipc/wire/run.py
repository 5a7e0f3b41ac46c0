"""Runs: encoded small messages in a row.

Law: nothing in this file asks the kernel or the clock. Messages that were
counted together stay together, and are cut only where they fit a packet.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate
from typing import TypeAlias

from asgi_ipc.wire.message import LargeMessage


class Run:
    """Small messages, and how many bytes they have together."""

    __slots__ = ("messages", "size_bytes")

    def __init__(self, messages: list[bytes], size_bytes: int) -> None:
        self.messages = messages
        self.size_bytes = size_bytes

    def cut(self, capacity_bytes: int) -> list[Run]:
        """The same in runs of up to so many bytes; a longer message makes one by itself."""
        ends = list(accumulate(map(len, self.messages)))
        runs = []
        start = before = 0
        while start < len(ends):
            stop = max(bisect_right(ends, before + capacity_bytes, start), start + 1)
            runs.append(Run(self.messages[start:stop], ends[stop - 1] - before))
            start, before = stop, ends[stop - 1]
        return runs


Backlog: TypeAlias = deque[Run | LargeMessage]


def take_run(backlog: Backlog, limit_bytes: int) -> Run:
    """Take small messages of up to so many bytes, but at least one, from the front of `backlog`, a run."""
    taken: Run | None = None
    while backlog:
        run = backlog[0]
        if not isinstance(run, Run):
            break
        size_bytes = run.size_bytes if taken is None else taken.size_bytes + run.size_bytes
        if size_bytes > limit_bytes:
            if run.size_bytes > limit_bytes and len(run.messages) > 1:
                backlog.popleft()
                backlog.extendleft(reversed(run.cut(limit_bytes)))
                continue
            if taken is not None:
                break
        backlog.popleft()
        if taken is None:
            taken = run
        else:
            taken.messages += run.messages
            taken.size_bytes = size_bytes
    assert taken is not None
    return taken
