"""Loggers: what says something here goes on saying it, whatever an app configures.

Law: `logging.config` switches off each logger that exists and that the new configuration does not name,
unless that says `disable_existing_loggers: false`. It is the default, so most apps never meant it. What a
logger of ours says is why a handler failed or why a server stops: it is switched on again with each
record. Levels, handlers and filters are the operator's; where there is no handler, Python itself writes
warnings to stderr.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any


class LastingLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that only its level can silence."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # its name
        """Asked by every verb before anything is logged."""
        return self.awake().isEnabledFor(level)

    def awake(self) -> logging.Logger:
        """The logger itself, switched on: for filters, and before others say something with it."""
        self.logger.disabled = False
        return self.logger

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """The record is the caller's."""
        return msg, kwargs
