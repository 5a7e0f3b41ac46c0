"""Entries: what waits in the dispatcher's queue.

Law: data, and nothing that runs.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from asgi_ipc.wire.batch import Batch
from asgi_ipc.worker.dispatch.handler import Handler


class Entry(NamedTuple):
    """Messages of one sender that arrived together, or one announcement as a message of its own.

    Attributes:
        context: each handler runs in a copy of it.
        batch: the ones not handled yet.
        handlers: by name.
    """

    context: contextvars.Context
    batch: Batch
    handlers: dict[str, Handler]


def announcement(watcher: Handler, news: tuple[Any, ...], context: contextvars.Context) -> Entry:
    """Return a call of a watcher as a message whose data is the news."""
    handler = Handler(watcher.name, partial(_spread, watcher.function), watcher.is_async)
    return Entry(context, Batch.of([(watcher.name, news, None)]), {watcher.name: handler})


def _spread(function: Callable[..., Any], news: tuple[Any, ...]) -> Any:
    return function(*news)
