"""The rows of the table of faults, in its order.

Law: a module for each row, or for some rows that belong together; it exports its `Row`s and is named here.
Shared code is beside this folder, not in it.
"""

from __future__ import annotations

from typing import Final

from tests.faults.rows import (
    asking,
    blocked,
    crash_loop,
    ctrl_c,
    fairness,
    flood,
    forks,
    held,
    keepalive,
    kills,
    launcher_kill,
    launcher_stop,
    leaders,
    limits,
    long_requests,
    many,
    pid1,
    pure,
    restarts,
    soak,
    stopped,
    storm,
    strays,
)
from tests.faults.trial import Row

ROWS: Final[dict[str, Row]] = {
    row.name: row
    for row in (
        kills.KILLS,
        held.HELD,
        asking.ASKING,
        restarts.ROLLING,
        keepalive.KEEPALIVE,
        storm.STORM,
        stopped.STOPPED,
        flood.FLOOD,
        launcher_kill.LAUNCHER_KILL,
        launcher_stop.LAUNCHER_STOP,
        leaders.LEADERS,
        strays.STRAY,
        pure.PARSER,
        pure.SIMULATION,
        forks.FORKS,
        limits.LIMITS,
        blocked.BLOCKED,
        crash_loop.CRASH_LOOP,
        long_requests.LONG_REQUESTS,
        pid1.PID1,
        fairness.FAIRNESS,
        many.MANY,
        ctrl_c.CTRL_C,
        soak.SOAK,
    )
}
