"""The registry: which function handles which name, and who is told of joins and departures.

Law: what the app registers, and nothing that runs. Registering is allowed at
any time, before, during and after the lifespan.
"""

from __future__ import annotations

import functools
import inspect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from asgi_ipc.protocol.message import check_name
from asgi_ipc.worker.typed import fitted

Function: TypeAlias = Callable[..., Any]


@dataclass(eq=False, slots=True)
class Handler:
    """One registration. `lane` holds the calls that wait for the last to finish (`ordered`).

    `function` raises MisfitError instead of a call for data that does not fit what the app has registered.
    """

    name: str
    function: Function
    is_async: bool
    ordered: bool = False
    running: bool = False
    in_verb: bool = False
    # (context, data, its bytes)
    lane: deque[tuple[Any, Any, int]] = field(default_factory=deque)
    # How many calls have left the lane, and what is to be called when so many have.
    lane_left: int = 0
    behind: deque[tuple[int, Callable[[], None]]] = field(default_factory=deque)

    def fresh(self) -> Handler:
        """The same registration, without any call."""
        return replace(self, running=False, in_verb=False, lane=deque(), lane_left=0, behind=deque())


class Registry:
    """Handlers by name, and those who are told when a member joins or has gone."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.on_join: list[Handler] = []
        self.on_leave: list[Handler] = []

    def copy(self) -> Registry:
        """The same registrations for another worker."""
        copied = Registry()
        copied.handlers = {name: handler.fresh() for name, handler in self.handlers.items()}
        copied.on_join = [watcher.fresh() for watcher in self.on_join]
        copied.on_leave = [watcher.fresh() for watcher in self.on_leave]
        return copied

    def set(self, name: str, function: Function | None, ordered: bool) -> None:
        """Register, replace, or (None) delete the handler of `name`. What it takes is checked (typed.py)."""
        check_name(name)
        if function is None:
            self.handlers.pop(name, None)
            return
        _check_callable(function, "handler")
        self.handlers[name] = Handler(name, fitted(name, function), _is_async(function), ordered)

    @staticmethod
    def watch(watchers: list[Handler], name: str, function: Function) -> None:
        """Have `function` told, once however often it is registered."""
        _check_callable(function, "callback")
        if all(watcher.function != function for watcher in watchers):
            watchers.append(Handler(name, function, _is_async(function)))


def _check_callable(function: Function, what: str) -> None:
    if not callable(function):
        raise TypeError(f"a {what} is a function, not {type(function).__qualname__}")


def _is_async(function: Function) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    call = getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
