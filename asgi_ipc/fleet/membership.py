"""Membership: who is here, as one worker knows it.

Law: nothing in this file asks the kernel or the clock. A member is found by
its generation, which is never reused; a pid is only a way to ask who has it
now. Whoever leaves is no longer addressed but still heard, until its last
byte has been read.
"""

from __future__ import annotations

from typing import Final

import msgspec

# The kind of what serves requests. A helper has a kind of its own (docs/decisions/0025).
WORKER: Final = "worker"


class Worker(msgspec.Struct, frozen=True, order=False, omit_defaults=True, repr_omit_defaults=True):
    """One incarnation of a worker process.

    Attributes:
        pid: its process id, as the other workers see it.
        slot: its stable number, 0 to n-1; a replacement has the same.
        generation: the n-th process ever started in this fleet, from 1; never reused.
        kind: "worker" for every member of `ipc.workers`.
    """

    pid: int
    slot: int
    generation: int
    kind: str = WORKER


class Membership:
    """The members that can be addressed now, by generation and by pid."""

    def __init__(self, me: Worker) -> None:
        self.me = me
        self._by_generation: dict[int, Worker] = {}
        self._by_pid: dict[int, Worker] = {}
        self._sorted: tuple[Worker, ...] | None = None
        self.add(me)

    @property
    def workers(self) -> tuple[Worker, ...]:
        """All members, this one among them, by slot and then by age."""
        if self._sorted is None:
            members = self._by_generation.values()
            self._sorted = tuple(sorted(members, key=lambda worker: (worker.slot, worker.generation)))
        return self._sorted

    def add(self, worker: Worker) -> None:
        """`worker` can be addressed from now on."""
        self._by_generation[worker.generation] = worker
        self._by_pid[worker.pid] = worker
        self._sorted = None

    def remove(self, generation: int) -> bool:
        """It can't be addressed any more. False: it was no member."""
        worker = self._by_generation.pop(generation, None)
        if worker is None:
            return False
        # A new process may have got the pid before word of the old one's end came.
        if self._by_pid.get(worker.pid) == worker:
            del self._by_pid[worker.pid]
        self._sorted = None
        return True

    def generation_of(self, to: int | Worker) -> int | None:
        """Whom a pid or a Worker means now, or None."""
        worker = self._by_pid.get(to) if isinstance(to, int) else self._by_generation.get(to.generation)
        if worker is None or (not isinstance(to, int) and worker != to):
            return None
        return worker.generation
