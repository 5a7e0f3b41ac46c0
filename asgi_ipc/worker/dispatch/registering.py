"""Registering: what an app tells its IPC to call, and when.

Law: names and functions in, errors out. It may be done at any time, on any
thread, before the lifespan and in it; nothing here sends or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, overload

from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import check_name
from asgi_ipc.worker.dispatch.registry import Function, Registry

F = TypeVar("F", bound=Callable[[Any], Any])
W = TypeVar("W", bound=Callable[[Worker], Any])
T = TypeVar("T", bound=Callable[[], Coroutine[Any, Any, Any]])
L = TypeVar("L", bound=Callable[[Worker, str, int], Any])


class Registering:
    """The half of an IPC that an app gives functions to."""

    def __init__(self) -> None:
        self._registered = Registry()

    @property
    def _registry(self) -> Registry:
        """Where to register."""
        return self._registered

    @overload
    def receive(self, name: str, /, *, ordered: bool = False) -> Callable[[F], F]: ...
    @overload
    def receive(self, name: str, handler: Function | None, /, *, ordered: bool = False) -> None: ...
    @overload
    def receive(self, name: Mapping[str, Function | None], /, *, ordered: bool = False) -> None: ...

    def receive(
        self, name: str | Mapping[str, Function | None], /, *handler: Function | None, ordered: bool = False
    ) -> Callable[[F], F] | None:
        """Register what handles the messages of a name: `@receive(name)`, `receive(name, handler)`,
        or `receive({name: handler, ...})`.

        A handler is a plain or an async function of one argument, the data; what it gives back answers
        `request` and `gather`.
        Registering replaces; `None` deletes. Handlers start in the order of
        arrival. A plain handler runs on the event loop, so it must not block.

        If its parameter is annotated (a dataclass, msgspec.Struct, TypedDict, Pydantic model, built-in type,
        or lists, dicts and unions of them), the data arrives as that. What does not fit never gets there: it
        is counted (`invalid_data` of `stats().dropped`), and a question is answered with InvalidDataError.

        Args:
            name: 1 to 254 bytes of UTF-8, no control characters.
            ordered: the next call starts when the last one has finished.

        Raises:
            InvalidNameError: not a name.
            TypeError: not callable with one argument, or annotated with what no message can carry.
        """
        if isinstance(name, Mapping):
            if handler:
                raise TypeError("receive() takes a mapping, or a name and a handler")
            for key in name:
                check_name(key)
            for key, function in name.items():
                self._registry.set(key, function, ordered)
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
            self._registry.set(name, handler[0], ordered)
            return None
        check_name(name)

        def register(function: F) -> F:
            self._registry.set(name, function, ordered)
            return function

        return register

    def on_join(self, callback: W) -> W:
        """Have `callback(worker)` called for every worker that joins from now on; usable as a decorator.

        It is called once this worker can address the newcomer, and before the newcomer's first
        message is handled. The members that are here already are in `ipc.workers`.

        Args:
            callback: a plain or an async function. What it raises is logged and counted.

        Raises TypeError if it is not callable with one argument.
        """
        self._registry.watch(self._registry.on_join, "on_join", callback, "worker")
        return callback

    def on_leave(self, callback: L) -> L:
        """Have `callback(worker, reason, lost)` called when a worker has gone; usable as a decorator.

        It is called once for each, after the last of its messages has been given to its handler;
        until then, but not addressed any more, it may still be heard.

        Args:
            callback: a plain or an async function of
                `worker`: who has gone;
                `reason`: `left` (scaled down, or the server stops), `replaced` (by a restart),
                `killed` (it died, or was ended), `stalled` (its event loop stood still and it was
                replaced), `drain_timeout` (it left with something not delivered or not handled), or
                `cancelled` (the same, since its app cancelled the end of its lifespan);
                `lost`: how many messages that this worker had accepted for it never left here.
                What it raises is logged and counted.

        Raises TypeError if it is not callable with three arguments.
        """
        self._registry.watch(self._registry.on_leave, "on_leave", callback, "worker", "reason", "lost")
        return callback

    def leader_task(self, function: T) -> T:
        """Have an async function of no arguments run in one worker of all, the leader; usable as a decorator.

        It starts when its worker is appointed, in the turn after `ipc.lifespan` has entered at the earliest;
        registered later, at once in the leader. At the end of the leader's lifespan it is cancelled and
        awaited, while every verb still works, and only then another worker is appointed, which is told within
        a second, also when the leader was killed. So it never runs twice at once. If it has not ended
        by the drain deadline, its worker leads until its process has ended.

        If it raises, that is logged and counted, and it is started again after 0.5 s, then 1 s, up to 30 s;
        one that has run for longer than that begins anew. If it returns, it is done until another worker
        leads. Registering a function again has no effect.

        Raises TypeError if it is not an async function, or needs an argument.
        """
        self._registry.lead(function)
        return function
