"""An app that gets the signal to stop while a finalizer runs; imports run many."""

from __future__ import annotations

import os
import signal


class Finalized:
    """Python loses an exception that is raised in here."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


Finalized()
