"""The registry: the handlers of names, the callbacks of joins and departures, and the leader's tasks.

Law: only registrations of the app, and nothing that runs. Registering is allowed at any time, before, during
and after the lifespan.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from asgi_ipc.wire.message import check_name
from asgi_ipc.worker.dispatch.conversion import converting
from asgi_ipc.worker.dispatch.handler import Function, Handler


class Registry:
    """Handlers by name, the callbacks for members that join or have gone, and the leader's tasks.

    Attributes:
        on_leader_task: called when there is another leader task, on any thread.
    """

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.on_join: list[Handler] = []
        self.on_leave: list[Handler] = []
        # Of the cluster.
        self.on_node_join: list[Handler] = []
        self.on_node_leave: list[Handler] = []
        self.on_worker_join: list[Handler] = []
        self.on_worker_leave: list[Handler] = []
        self.on_gap: list[Handler] = []
        self.leader_tasks: list[Handler] = []
        self.on_leader_task: Callable[[], None] | None = None

    def copy(self) -> Registry:
        """Return the same registrations for another worker."""
        copied = Registry()
        for name, registered in vars(self).items():
            if isinstance(registered, dict | list):
                setattr(copied, name, registered.copy())
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
            # A decorator without its parentheses; or name and handler in the wrong order.
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
        """Register, replace, or (None) delete the handler of `name`. conversion.py checks its data."""
        check_name(name)
        if function is None:
            self.handlers.pop(name, None)
            return
        _check_callable(function, "handler")
        _check_takes(function, f"handler {name!r}", "a handler takes one, the data", "data")
        self.handlers[name] = Handler(name, converting(name, function), _is_async(function), ordered)

    def watch_joins(self, callback: Function) -> None:
        """Call `callback(worker)` when a worker joins."""
        self.watch(self.on_join, "on_join", callback, "worker")

    def watch_leaves(self, callback: Function) -> None:
        """Call `callback(worker, reason, lost)` when a worker has gone."""
        self.watch(self.on_leave, "on_leave", callback, "worker", "reason", "lost")

    @staticmethod
    def watch(watchers: list[Handler], name: str, function: Function, *parameters: str) -> None:
        """Add a callback, once however often it is registered. `parameters`: its arguments."""
        _check_callable(function, "callback")
        count = "one" if len(parameters) == 1 else str(len(parameters))
        _check_takes(function, f"{name} callback", f"it is given {count}", *parameters)
        if all(watcher.function != function for watcher in watchers):
            watchers.append(Handler(name, function, _is_async(function)))

    def lead(self, function: Function) -> None:
        """Run `function` in the leader, once however often it is registered."""
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
    """Raise TypeError unless it can be called with so many arguments, or has no readable signature."""
    try:
        # The wrapper of a decorator is the function that is called.
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
    """Say why it can't be called with `count` arguments."""
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
