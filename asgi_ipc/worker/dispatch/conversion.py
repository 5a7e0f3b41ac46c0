"""Typed data: a handler that says what it takes gets that, or is not called.

Law: a handler's annotation is looked at once, when it is registered; where
there is nothing to check, the handler itself is called and nothing stands in
a message's way. What fits is msgspec's to say, or Pydantic's for its models;
nobody is made to install that, so it is found, never imported.
"""

from __future__ import annotations

import datetime
import functools
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, TypeAlias, TypeVar, Union, get_args, get_origin

import msgspec

from asgi_ipc.wire.message import Data
from asgi_ipc.wire.plain import is_model, is_text
from asgi_ipc.worker.dispatch import misfits
from asgi_ipc.worker.logs import logger

Function: TypeAlias = Callable[..., Any]

# What data can be when it arrives.
_ARRIVING: Final = (str, bytes, int, float, bool, type(None), datetime.datetime, list, dict)

# What is of such a type fits without a look at what is in it.
_BARE: Final = frozenset({str, bytes, int, float, bool, datetime.datetime, list, dict})

# Without these, msgspec would take text for bytes in base64.
_NATIVE: Final = (bytes, bytearray, memoryview)

_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


class _UncheckedError(Exception):
    """Nobody can check data for that annotation; why."""


def fitted(name: str, function: Function) -> Function:
    """What is called for the messages of a name: `function`, or what converts its argument in front of it.

    That raises MisfitError instead of calling it with data that does not fit.

    Raises TypeError if it takes what no message can ever become.
    """
    annotation = _annotation_of_first(function)
    if annotation is inspect.Parameter.empty:
        return function
    target = _innermost(function)
    try:
        return _in_front(name, function, annotation, target, _names_around(target))
    except NameError:
        return _later(name, function, annotation, target)


def _later(name: str, function: Function, annotation: Any, target: Function) -> Function:
    """Something in the annotation is defined further down: it is looked at with the first message."""
    ready: Function | None = None

    def late(data: Any) -> Any:
        nonlocal ready
        if ready is None:
            try:
                ready = _in_front(name, function, annotation, target, {})
            except NameError as error:
                ready = _unchecked(name, function, error)
        return ready(data)

    return late


def _in_front(
    name: str, function: Function, annotation: Any, target: Function, names: dict[str, Any]
) -> Function:
    """Raises NameError if something in the annotation is not defined."""
    try:
        expected = _resolved(annotation, target, names)
        if _is_anything(expected):
            return function
        fit = _by_pydantic(expected) if _is_for_pydantic(expected) else _by_msgspec(name, expected)
    except _UncheckedError as error:
        return _unchecked(name, function, error)
    if isinstance(expected, type) and expected in _BARE:
        return lambda data: function(data if type(data) is expected else fit(data))
    return lambda data: function(fit(data))


def _unchecked(name: str, function: Function, why: Exception) -> Function:
    logger.warning("worker [%d]: data for handler %r is not checked: %s", os.getpid(), name, why)
    return function


# --- the annotation


def _annotation_of_first(function: Function) -> Any:
    """That of the first parameter that takes an argument by its place; `Parameter.empty` if there is none."""
    try:
        first = _first(function, follow_wrapped=not _takes_itself(function))
    except (TypeError, ValueError):
        # A function in C, which tells nothing of itself.
        return inspect.Parameter.empty
    if first is None or first.kind not in _POSITIONAL:
        return inspect.Parameter.empty
    if _takes_itself(function):
        unbound: Any = getattr(function, "__func__", function)
        if unbound.__annotations__ is getattr(unbound.__wrapped__, "__annotations__", None):
            # functools.wraps has lent them to it: what it takes itself it does not say.
            return inspect.Parameter.empty
    return first.annotation


def _first(function: Function, *, follow_wrapped: bool) -> inspect.Parameter | None:
    parameters = inspect.signature(function, follow_wrapped=follow_wrapped).parameters.values()
    return next(iter(parameters), None)


def _takes_itself(function: Function) -> bool:
    """Whether it wraps another one, and has a parameter of its own for the data, rather than `*args`."""
    if not hasattr(function, "__wrapped__"):
        return False
    first = _first(function, follow_wrapped=False)
    return first is None or first.kind is not inspect.Parameter.VAR_POSITIONAL


def _innermost(function: Function) -> Function:
    """The function in which that annotation stands."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isclass(function):
        function = function.__init__
    elif not inspect.isroutine(function):
        function = function.__call__  # type: ignore[operator]
    if not _takes_itself(function):
        function = inspect.unwrap(function)
    innermost: Function = getattr(function, "__func__", function)
    return innermost


def _resolved(annotation: Any, target: Function, names: dict[str, Any]) -> Any:
    """What the annotation means where it stands. Only this one: others may be for type checkers alone."""
    alone = types.SimpleNamespace(__annotations__={"data": annotation})
    try:
        return typing.get_type_hints(alone, getattr(target, "__globals__", {}), names, include_extras=True)[
            "data"
        ]
    except NameError:
        raise
    except AttributeError as error:
        # Of a module that is being imported.
        raise NameError(str(error)) from None
    except Exception as error:  # noqa: BLE001  # the app's own
        raise _UncheckedError(str(error)) from None


def _names_around(target: Function) -> dict[str, Any]:
    """What is defined where a local function is registered: a module's names are not all that it sees."""
    parts = getattr(target, "__qualname__", "").split(".<locals>")[:-1]
    scopes = {".<locals>".join(parts[: end + 1]) for end in range(len(parts))}
    names: dict[str, Any] = {}
    frame = sys._getframe() if scopes else None
    while frame is not None:
        if frame.f_code.co_qualname in scopes and frame.f_globals is getattr(target, "__globals__", None):
            names = {**frame.f_locals, **names}
        frame = frame.f_back
    return names


def _is_anything(expected: Any) -> bool:
    while get_origin(expected) is Annotated:
        expected = expected.__origin__
    return (
        expected is Any
        or expected is object
        # Nobody takes nothing: that is a handler which does not care.
        or expected is type(None)
        or isinstance(expected, TypeVar)
        or expected == Data
    )


# --- who says what fits


def _is_for_pydantic(expected: Any) -> bool:
    """Whether a type that Pydantic checks is in it, other than as a field."""
    if hasattr(expected, "__pydantic_validator__"):
        return True
    extras = getattr(expected, "__metadata__", ())
    return any(type(extra).__module__.startswith("pydantic.") for extra in extras) or any(
        map(_is_for_pydantic, get_args(expected))
    )


def _by_pydantic(expected: Any) -> Function:
    pydantic = sys.modules["pydantic"]
    try:
        validate = pydantic.TypeAdapter(expected).validate_python
    except NameError:
        raise
    except Exception as error:  # noqa: BLE001  # of many kinds, and none of them is an Exception of ours
        raise _UncheckedError(str(error)) from None
    options = _names_and_aliases(validate)

    def fit(data: Any) -> Any:
        try:
            return validate(data, **options)
        except pydantic.ValidationError as error:
            raise misfits.of_pydantic(error, expected) from None
        except Exception as error:
            raise misfits.of_app(error) from error

    return fit


def _names_and_aliases(validate: Function) -> dict[str, bool]:
    """Models travel by the names of their fields; who sends a dict may as well use their aliases."""
    # Since 2.11; before, a model says so itself (`populate_by_name`).
    can = "by_name" in inspect.signature(validate).parameters
    return {"by_alias": True, "by_name": True} if can else {}


def _by_msgspec(name: str, expected: Any) -> Function:
    natives: dict[type, Function] = {}
    try:
        kind = _kind(expected)
    except _UncheckedError:
        natives, expected, kind = _apart(expected)
    impossible = _impossible(kind, set())
    if impossible:
        raise TypeError(
            f"handler {name!r} takes {impossible}, which no data of a message can be: annotate a dataclass, "
            "msgspec.Struct, TypedDict, Pydantic model or built-in type, or nothing"
        )
    # In a Struct of its own a type is looked at once; otherwise each time, if it is a union, list or dict.
    box: Any = msgspec.defstruct("Box", [("data", expected)], array_like=True)

    def fit(data: Any) -> Any:
        native = natives.get(type(data))
        if native is not None:
            return native(data)
        try:
            return msgspec.convert((data,), box, builtin_types=_NATIVE, dec_hook=_other).data
        except msgspec.ValidationError as error:
            raise misfits.of_msgspec(str(error), kind) from None
        except Exception as error:
            raise misfits.of_app(error) from error

    return fit


def _kind(expected: Any) -> msgspec.inspect.Type:
    """What msgspec makes of a type. Raises _UncheckedError if nothing."""
    try:
        return msgspec.inspect.type_info(expected)
    except NameError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever an app's type may raise
        raise _UncheckedError(str(error)) from None


def _apart(expected: Any) -> tuple[dict[type, Function], Any, msgspec.inspect.Type]:
    """A union that msgspec does not take since in JSON its bytes and datetimes were text: these by
    themselves, and the rest. Raises as `_kind`."""
    natives: dict[type, Function] = {}
    rest: Any = None
    shown = []
    for arm in get_args(expected) if get_origin(expected) in (Union, types.UnionType) else ():
        if arm in _NATIVE:
            natives[bytes] = arm
        elif arm is datetime.datetime:
            natives[arm] = lambda data: data
        else:
            rest = arm if rest is None else rest | arm
            continue
        shown.append(_kind(arm))
    if rest is None or not natives:
        # To say what is wrong with it; or bytes and datetimes only, of which one refuses what neither is.
        rest = bytes if natives else expected
    return natives, rest, msgspec.inspect.UnionType((*misfits.arms(_kind(rest)), *shown))


def _other(kind: Any, value: Any) -> Any:
    """In what msgspec converts, a value of which it does not know how: a model, a path, an address."""
    if is_model(kind):
        try:
            return kind.model_validate(value, **_names_and_aliases(kind.model_validate))
        except sys.modules["pydantic"].ValidationError as error:
            raise ValueError(misfits.of_pydantic(error, kind).reason) from None
    return kind(value) if type(value) is str and is_text(kind) else value


def _impossible(kind: msgspec.inspect.Type, seen: set[Any]) -> str:
    """The first type in there that no data can become, though something must; or ""."""
    if isinstance(kind, msgspec.inspect.CustomType):
        return "" if _may_arrive(kind.cls) else getattr(kind.cls, "__qualname__", str(kind.cls))
    if isinstance(kind, msgspec.inspect.UnionType):
        arms = [_impossible(arm, seen) for arm in kind.types]
        return arms[0] if all(arms) else ""
    return next(filter(None, (_impossible(inner, seen) for inner in _inner(kind, seen))), "")


def _inner(kind: msgspec.inspect.Type, seen: set[Any]) -> Iterator[msgspec.inspect.Type]:
    """What must be in it, if anything is."""
    for what in ("type", "item_type", "key_type", "value_type"):
        if (inner := getattr(kind, what, None)) is not None:
            yield inner
    yield from getattr(kind, "item_types", ())
    cls = getattr(kind, "cls", None)
    if cls not in seen:
        seen.add(cls)
        yield from (field.type for field in getattr(kind, "fields", ()) if field.required)


def _may_arrive(cls: Any) -> bool:
    if is_model(cls) or is_text(cls):
        return True
    try:
        return any(issubclass(each, cls) for each in _ARRIVING)
    except TypeError as error:
        # A protocol that can't be looked for.
        raise _UncheckedError(str(error)) from None
