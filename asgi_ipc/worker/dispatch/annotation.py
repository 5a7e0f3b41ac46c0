"""Annotation: the annotation of a handler's first parameter.

Law: the only file that looks at callers' frames. A postponed annotation (`from __future__ import
annotations`) that names a class of the surrounding function is a mere string, and no closure holds that
class; only the frame of that function has it while it registers the handler. Only documented attributes are
read, on Python 3.11, 3.12 and 3.13. Without such a frame, the name is looked up again with the first message;
if that fails, the data is not checked, with a warning.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Final, TypeAlias

Function: TypeAlias = Callable[..., Any]

# No annotation, or no parameter that could have one.
EMPTY: Final = inspect.Parameter.empty

_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


class UncheckedError(Exception):
    """Data can't be checked against an annotation, for this reason."""


def of_first_parameter(function: Function) -> Any:
    """Return the annotation of the first positional parameter as it is written, or EMPTY."""
    try:
        first = _first(function, follow_wrapped=not _has_own_parameter(function))
    except (TypeError, ValueError):
        # A function in C has no signature.
        return EMPTY
    if first is None or first.kind not in _POSITIONAL:
        return EMPTY
    if _has_own_parameter(function):
        unbound: Any = getattr(function, "__func__", function)
        if unbound.__annotations__ is getattr(unbound.__wrapped__, "__annotations__", None):
            # functools.wraps copied these from the wrapped function; the wrapper has none of its own.
            return EMPTY
    return first.annotation


def _first(function: Function, *, follow_wrapped: bool) -> inspect.Parameter | None:
    parameters = inspect.signature(function, follow_wrapped=follow_wrapped).parameters.values()
    return next(iter(parameters), None)


def _has_own_parameter(function: Function) -> bool:
    """Return whether this is a wrapper that names a parameter for the data, and does not pass on `*args`."""
    if not hasattr(function, "__wrapped__"):
        return False
    first = _first(function, follow_wrapped=False)
    return first is None or first.kind is not inspect.Parameter.VAR_POSITIONAL


def annotated_function(function: Function) -> Function:
    """Return the function in whose source that annotation stands."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isclass(function):
        function = function.__init__
    elif not inspect.isroutine(function):
        function = function.__call__  # type: ignore[operator]
    if not _has_own_parameter(function):
        function = inspect.unwrap(function)
    innermost: Function = getattr(function, "__func__", function)
    return innermost


def resolved(annotation: Any, function: Function, local_names: dict[str, Any]) -> Any:
    """Evaluate an annotation of `function`.

    The other annotations of a function may be for type checkers alone, so this one is evaluated by itself.

    Raises:
        NameError: something in it is not defined, or not yet.
        UncheckedError: it is no annotation.
    """
    alone = types.SimpleNamespace(__annotations__={"data": annotation})
    names = getattr(function, "__globals__", {})
    try:
        return typing.get_type_hints(alone, names, local_names, include_extras=True)["data"]
    except NameError:
        raise
    except AttributeError as error:
        # Its module is still being imported.
        raise NameError(str(error)) from None
    except Exception as error:  # noqa: BLE001  # an annotation is code of the app
        raise UncheckedError(str(error)) from None


def local_names_for(function: Function) -> dict[str, Any]:
    """Return the local names of the calls, now running, in which `function` was defined."""
    parts = getattr(function, "__qualname__", "").split(".<locals>")[:-1]
    scopes = {".<locals>".join(parts[: end + 1]) for end in range(len(parts))}
    names: dict[str, Any] = {}
    frame = inspect.currentframe() if scopes else None
    while frame is not None:
        if frame.f_code.co_qualname in scopes and frame.f_globals is getattr(function, "__globals__", None):
            names = {**frame.f_locals, **names}
        frame = frame.f_back
    return names
