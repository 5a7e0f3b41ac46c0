"""Logs: the package's loggers, and how an error of the app stands in them.

Law: only its level silences a logger of this package. `logging.config` switches off each existing logger
that a configuration does not name, unless that says `disable_existing_loggers: false`; it is the default, so
most apps never meant it. Levels, handlers and filters are the operator's.

An error may quote a message from the wire. So its text is escaped, each part on one line, before any handler
sees it; only the lines around it are Python's. The error itself stays with the record.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping
from traceback import TracebackException
from typing import Any, Final

from asgi_ipc.printable import MARGIN, printable

# As many as Python's own tracebacks show.
MAX_GROUP_ERRORS: Final = 15
MAX_GROUP_DEPTH: Final = 10

_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"


class LastingLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that switches itself on again with each record."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # its name
        """Called by every method that logs."""
        return self.awake().isEnabledFor(level)

    def awake(self) -> logging.Logger:
        """Return the logger itself, switched on: for filters, and for others that log with it."""
        self.logger.disabled = False
        return self.logger

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Keep the caller's `extra`, which LoggerAdapter would replace."""
        return msg, kwargs


def error_text(error: BaseException) -> str:
    """Format the traceback of an error and of the errors that led to it, with nothing unprintable in it."""
    try:
        return "\n".join(_lines(TracebackException.from_exception(error), MAX_GROUP_DEPTH))
    except Exception:  # noqa: BLE001  # an app's error may raise when its parts are read
        return f"{printable(type(error).__qualname__)}, of which nothing can be shown"


def _lines(error: TracebackException, depth: int) -> Iterator[str]:
    chain = [(error, "")]
    while True:
        last = chain[-1][0]
        if last.__cause__ is not None:
            chain.append((last.__cause__, _CAUSE))
        elif last.__context__ is not None and not last.__suppress_context__:
            chain.append((last.__context__, _CONTEXT))
        else:
            break
    for shown, led_to in reversed(chain):
        yield from _lines_of_one(shown, depth)
        if led_to:
            yield from ("", led_to, "")


def _lines_of_one(error: TracebackException, depth: int) -> Iterator[str]:
    if error.stack:
        yield "Traceback (most recent call last):"
    for entry in error.stack.format():
        yield from map(printable, entry.removesuffix("\n").split("\n"))
    # Python would print its text and its notes over as many lines as they have.
    for place, part in enumerate(error.format_exception_only()):
        yield (MARGIN if place else "") + printable(part.removesuffix("\n"))
    inner = error.exceptions or ()
    for place, each in enumerate(inner[:MAX_GROUP_ERRORS] if depth else ()):
        yield f"  +- {place + 1} of {len(inner)}"
        yield from (MARGIN + line for line in _lines(each, depth - 1))


def _escape_error(record: logging.LogRecord) -> bool:
    """As a filter: a formatter takes the text of an error from `exc_text` if it is there."""
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = error_text(record.exc_info[1])
    return True


# The operator gives this one a format; a server gives its own logger one, also where there is no launcher.
logger = LastingLogger("asgi_ipc")
logger.awake().addFilter(_escape_error)
server_logger = LastingLogger("uvicorn.error")
