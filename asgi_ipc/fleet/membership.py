"""Membership: what names one member of the fleet.

Law: nothing in this file asks the kernel or the clock. A generation is never
reused, so it names one process for ever; a pid names the process that has it
now.
"""

from __future__ import annotations

from typing import Final

import msgspec

# The kind of the processes that serve requests. A helper has a kind of its own (docs/decisions/0025).
WORKER: Final = "worker"


class Worker(msgspec.Struct, frozen=True, order=False, omit_defaults=True, repr_omit_defaults=True):
    """One incarnation of a worker process.

    Attributes:
        pid: its process id, as the other workers see it.
        slot: its stable number, 0 to n-1; a replacement has the same.
        generation: the n-th process ever started in this fleet, from 1; never reused.
        kind: "worker" for every member of `ipc.workers`.
        node: the id of the server that it belongs to; see `ipc.cluster`.
    """

    pid: int
    slot: int
    generation: int
    kind: str = WORKER
    node: str = ""
