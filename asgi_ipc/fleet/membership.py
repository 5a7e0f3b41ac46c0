"""Membership: what names one member of the fleet.

Law: nothing in this file asks the kernel or the clock. A generation is never
reused, so it names one process for ever; a pid names the process that has it
now.
"""

from __future__ import annotations

import msgspec


class Worker(msgspec.Struct, frozen=True, order=False):
    """One incarnation of a worker process.

    Attributes:
        pid: its process id, as the other workers see it.
        slot: its stable number, 0 to n-1; a replacement has the same.
        generation: the n-th process ever started in this fleet, from 1; never reused.
    """

    pid: int
    slot: int
    generation: int
