"""Traffic from workers whose app takes nearly all descriptors before it joins the fleet.

Law: `HUNGRY_SPARE` descriptors are left; they go to the first that ask.
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
