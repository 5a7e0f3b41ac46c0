"""The registry: which function handles which name, who is told of joins and departures, what the leader runs.

Law: what the app registers, and nothing that runs. Registering is allowed at
any time, before, during and after the lifespan.
"""

from __future__ import annotations

import functools
import inspect
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from asgi_ipc.wire.message import check_name
from asgi_ipc.worker.dispatch.conversion import converting

Function: TypeAlias = Callable[..., Any]


@dataclass(eq=False, slots=True)
class Handler:
    """One registration. `lane` holds the calls that wait for the last to finish (`ordered`).

    For data that does not fit, `function` raises ConversionError instead of calling what the app registered.
    """

    name: str
    function: Function
    is_async: bool
    ordered: bool = False
    running: bool = False
    # (context, data, its bytes)
    lane: deque[tuple[Any, Any, int]] = field(default_factory=deque)
    # How many calls have left the lane, and what is to be called when so many have.
    lane_left: int = 0
    behind: deque[tuple[int, Callable[[], None]]] = field(default_factory=deque)

    def fresh(self) -> Handler:
        """The same registration, without any call."""
        return replace(self, running=False, lane=deque(), lane_left=0, behind=deque())


class Registry:
    """Handlers by name, those who are told when a member joins or has gone, and the leader's tasks.

    Attributes:
        on_leader_task: called when there is another leader task, on any thread.
    """

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.on_join: list[Handler] = []
        self.on_leave: list[Handler] = []
        self.leader_tasks: list[Handler] = []
        self.on_leader_task: Callable[[], None] | None = None

    def copy(self) -> Registry:
        """The same registrations for another worker."""
        copied = Registry()
        copied.handlers = {name: handler.fresh() for name, handler in self.handlers.items()}
        copied.on_join = [watcher.fresh() for watcher in self.on_join]
        copied.on_leave = [watcher.fresh() for watcher in self.on_leave]
        copied.leader_tasks = [task.fresh() for task in self.leader_tasks]
        return copied

    def receive(
        self, name: str | Mapping[str, Function | None], *handler: Function | None, ordered: bool
    ) -> Callable[[Any], Any] | None:
        """Register one handler or several, or return the decorator that does; see `IPC.receive`."""
        if isinstance(name, Mapping):
            if handler:
                raise TypeError("receive() takes a mapping, or a name and a handler")
            for key in name:
                check_name(key)
            for key, function in name.items():
                self.set(key, function, ordered)
            return None
        if callable(name):
            # As a decorator without its parentheses; or what is handled by what, the wrong way round.
            shown = getattr(name, "__name__", "name")
            raise TypeError(
                f'receive() takes a name first: @ipc.receive("{shown}"), or receive("{shown}", {shown})'
            )
        if len(handler) > 1:
            raise TypeError("receive() takes a name and one handler")
        if handler:
            self.set(name, handler[0], ordered)
            return None
        check_name(name)

        def register(function: Any) -> Any:
            self.set(name, function, ordered)
            return function

        return register

    def set(self, name: str, function: Function | None, ordered: bool) -> None:
        """Register, replace, or (None) delete the handler of `name`. What it takes is checked (typed.py)."""
        check_name(name)
        if function is None:
            self.handlers.pop(name, None)
            return
        _check_callable(function, "handler")
        _check_takes(function, f"handler {name!r}", "a handler takes one, the data", "data")
        self.handlers[name] = Handler(name, converting(name, function), _is_async(function), ordered)

    def watch_joins(self, callback: Function) -> None:
        """Have `callback(worker)` called when a worker joins."""
        self._watch(self.on_join, "on_join", callback, "worker")

    def watch_leaves(self, callback: Function) -> None:
        """Have `callback(worker, reason, lost)` called when a worker has gone."""
        self._watch(self.on_leave, "on_leave", callback, "worker", "reason", "lost")

    @staticmethod
    def _watch(watchers: list[Handler], name: str, function: Function, *parameters: str) -> None:
        """Have `function` told, once however often it is registered. `parameters`: what it is given."""
        _check_callable(function, "callback")
        count = "one" if len(parameters) == 1 else str(len(parameters))
        _check_takes(function, f"{name} callback", f"it is given {count}", *parameters)
        if all(watcher.function != function for watcher in watchers):
            watchers.append(Handler(name, function, _is_async(function)))

    def lead(self, function: Function) -> None:
        """Have `function` run where the leader is, once however often it is registered."""
        _check_callable(function, "leader task")
        name = getattr(function, "__name__", repr(function))
        if not _is_async(function):
            raise TypeError(f"a leader task is an async function; {name!r} is not")
        _check_takes(function, f"leader task {name!r}", "a leader task takes none")
        if any(task.function == function for task in self.leader_tasks):
            return
        self.leader_tasks.append(Handler(f"leader task {name!r}", function, True))
        tell = self.on_leader_task
        if tell is not None:
            tell()


def _check_callable(function: Function, what: str) -> None:
    if not callable(function):
        raise TypeError(f"a {what} is a function, not {type(function).__qualname__}")


def _check_takes(function: Function, which: str, rule: str, *parameters: str) -> None:
    """Raise TypeError unless it can be called with so many arguments, or does not tell what it takes."""
    try:
        # What stands in front of another function, as a decorator's, is what is called.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*parameters)
    except TypeError:
        name = getattr(function, "__name__", "")
        define = "async def" if _is_async(function) else "def"
        right = f"{define} {name if name.isidentifier() else 'function'}({', '.join(parameters)})"
        raise TypeError(f"{which} {_takes(signature, len(parameters))}; {rule}: {right}") from None


def _takes(signature: inspect.Signature, count: int) -> str:
    """What is wrong with it, where `count` arguments are given."""
    by_place, needed, keywords = 0, 0, []
    for parameter in signature.parameters.values():
        is_needed = parameter.default is parameter.empty
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            by_place += 1
            needed += is_needed
        elif parameter.kind is parameter.KEYWORD_ONLY and is_needed:
            keywords.append(parameter.name)
    if needed > count:
        return f"needs {needed} argument{'s' if needed > 1 else ''}"
    if keywords:
        return f"needs {keywords[0]!r} as a keyword"
    return f"takes {by_place or 'no'} argument{'s' if by_place > 1 else ''}"


def _is_async(function: Function) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    call = getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
