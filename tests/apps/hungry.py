"""Traffic from workers whose app has taken nearly all descriptors before it comes to the fleet.

Law: so many are left as `HUNGRY_SPARE` says; what is to be had by whom then is
the order in which they come.
"""

from __future__ import annotations

import os

from tests.apps.traffic import app

__all__ = ["app"]

held: list[int] = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    for _ in range(int(os.environ["HUNGRY_SPARE"])):
        os.close(held.pop())
