"""The rows of the table of faults, in its order.

Law: a module for each row, or for some rows that belong together; it is named here. Shared code is beside
this folder, not in it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from tests.faults.trial import Row

_MODULES: Final = (
    "kills held asking restarts keepalive storm stopped flood launcher_kill launcher_stop leaders strays "
    "pure forks limits blocked crash_loop long_requests pid1 fairness many ctrl_c clusters soak"
)

ROWS: Final[dict[str, Row]] = {
    row.name: row
    for module in _MODULES.split()
    for row in vars(import_module(f"{__name__}.{module}")).values()
    if isinstance(row, Row)
}
