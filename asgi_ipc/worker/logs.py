"""Logs: the messages' side's own logger, and how an error of the app stands in it.

Law: an error quotes what it likes, a message from the wire among others. So
its own text is on one line and escaped before any handler sees it; only the
lines around it are Python's. The error itself stays with the record.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from traceback import TracebackException
from typing import Final

from asgi_ipc.loggers import LastingLogger
from asgi_ipc.printable import MARGIN, printable

# As many as Python's own tracebacks show.
MAX_GROUP_ERRORS: Final = 15
MAX_GROUP_DEPTH: Final = 10

_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"


def error_text(error: BaseException) -> str:
    """The traceback of an error, and of those that led to it, with nothing unprintable in it."""
    try:
        return "\n".join(_lines(TracebackException.from_exception(error), MAX_GROUP_DEPTH))
    except Exception:  # noqa: BLE001  # an app's error may do anything when it is asked for its parts
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
    # Its own text and its notes, which Python would print over as many lines as they have.
    for place, part in enumerate(error.format_exception_only()):
        yield (MARGIN if place else "") + printable(part.removesuffix("\n"))
    inner = error.exceptions or ()
    for place, each in enumerate(inner[:MAX_GROUP_ERRORS] if depth else ()):
        yield f"  +- {place + 1} of {len(inner)}"
        yield from (MARGIN + line for line in _lines(each, depth - 1))


def _escape_error(record: logging.LogRecord) -> bool:
    """As a filter: have formatters find the error's text made already (logging.Formatter.format)."""
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = error_text(record.exc_info[1])
    return True


logger = LastingLogger("asgi_ipc")
logger.awake().addFilter(_escape_error)
