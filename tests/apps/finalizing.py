"""An app that is told to stop while a finalizer runs, as imports have many."""

from __future__ import annotations

import os
import signal


class Finalized:
    """Whatever is raised into this is lost."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


Finalized()
