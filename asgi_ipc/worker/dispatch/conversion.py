"""Conversion: a handler gets data of the type in its annotation, or is not called.

Law: an annotation is read once, when its handler is registered. Without something to check, the handler
itself is called, at no cost. msgspec checks the data, and Pydantic checks its models; Pydantic is found among
the loaded modules, never imported.
"""

from __future__ import annotations

import datetime
import functools
import inspect
import os
import sys
import types
from collections.abc import Iterator
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

import msgspec

from asgi_ipc.logs import logger
from asgi_ipc.wire.message import Data
from asgi_ipc.wire.plain import is_model, is_text
from asgi_ipc.worker.dispatch import annotation, conversion_errors
from asgi_ipc.worker.dispatch.annotation import Function, UncheckedError

# The types of data that arrives.
_ARRIVING: Final = (str, bytes, int, float, bool, type(None), datetime.datetime, list, dict)

# Data of such a type always fits.
_BARE: Final = frozenset({str, bytes, int, float, bool, datetime.datetime, list, dict})

# msgspec takes text for base64 where one of these is expected, unless they are declared native.
_NATIVE: Final = (bytes, bytearray, memoryview)


def converting(name: str, function: Function) -> Function:
    """Return what to call for messages of this name: `function`, or a converter in front of it.

    The converter raises ConversionError for data that does not fit.

    Raises TypeError if `function` takes a type that no message can become.
    """
    written = annotation.of_first_parameter(function)
    if written is annotation.EMPTY:
        return function
    target = annotation.annotated_function(function)
    try:
        return _converter(name, function, written, target, annotation.local_names_for(target))
    except NameError:
        return _late_converter(name, function, written, target)


def answer_converter(expected: Any) -> Function:
    """Return what converts an answer to the type `expected`; None means that anything fits.

    The converter raises ConversionError for an answer that does not fit.

    Raises TypeError if no answer can become of that type, or nothing can check it.
    """
    if expected is None:
        return _as_it_is
    try:
        hash(expected)
    except TypeError:
        return _answer_converter(expected)
    return _kept_answer_converter(expected)


def _as_it_is(answer: Any) -> Any:
    return answer


def _answer_converter(expected: Any) -> Function:
    if expected is not type(None) and _is_anything(expected):
        return _as_it_is
    try:
        if _is_for_pydantic(expected):
            return _by_pydantic(expected)
        return _by_msgspec("reply_type is", expected)
    except (UncheckedError, NameError) as error:
        raise TypeError(f"reply_type {expected!r} can't be checked: {error}") from None


# To make one takes 100 times as long as to use it. A program asks for few types; types that it makes for each
# question must not pile up.
_kept_answer_converter = functools.lru_cache(maxsize=256)(_answer_converter)


def _late_converter(name: str, function: Function, written: Any, target: Function) -> Function:
    """Evaluate the annotation with the first message: it names something that is defined further down."""
    ready: Function | None = None

    def late(data: Any) -> Any:
        nonlocal ready
        if ready is None:
            try:
                ready = _converter(name, function, written, target, {})
            except NameError as error:
                ready = _unchecked(name, function, error)
        return ready(data)

    return late


def _converter(
    name: str, function: Function, written: Any, target: Function, local_names: dict[str, Any]
) -> Function:
    """Raises NameError if something in the annotation is not defined."""
    try:
        expected = annotation.resolved(written, target, local_names)
        if _is_anything(expected):
            return function
        fit = (
            _by_pydantic(expected)
            if _is_for_pydantic(expected)
            else _by_msgspec(f"handler {name!r} takes", expected)
        )
    except UncheckedError as error:
        return _unchecked(name, function, error)
    if isinstance(expected, type) and expected in _BARE:
        return lambda data: function(data if type(data) is expected else fit(data))
    return lambda data: function(fit(data))


def _unchecked(name: str, function: Function, why: Exception) -> Function:
    logger.warning("worker [%d]: data for handler %r is not checked: %s", os.getpid(), name, why)
    return function


def _is_anything(expected: Any) -> bool:
    while get_origin(expected) is Annotated:
        expected = expected.__origin__
    return (
        expected is Any
        or expected is object
        # A handler that takes None alone ignores its data.
        or expected is type(None)
        or isinstance(expected, TypeVar)
        or expected == Data
    )


def _is_for_pydantic(expected: Any) -> bool:
    """Return whether Pydantic checks this type, or a type in its lists, dicts and unions."""
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
    except Exception as error:  # noqa: BLE001  # Pydantic raises many kinds
        raise UncheckedError(str(error)) from None
    options = _names_and_aliases(validate)

    def fit(data: Any) -> Any:
        try:
            return validate(data, **options)
        except pydantic.ValidationError as error:
            raise conversion_errors.from_pydantic(error, expected) from None
        except Exception as error:
            raise conversion_errors.from_app(error) from error

    return fit


def _names_and_aliases(validate: Function) -> dict[str, bool]:
    """Models travel by the names of their fields; a dict from elsewhere may have aliases instead."""
    # Pydantic has the option since 2.11; before, a model sets `populate_by_name`.
    can = "by_name" in inspect.signature(validate).parameters
    return {"by_alias": True, "by_name": True} if can else {}


def _by_msgspec(rule: str, expected: Any) -> Function:
    natives: dict[type, Function] = {}
    try:
        kind = _kind(expected)
    except UncheckedError:
        natives, expected, kind = _without_natives(expected)
    impossible = _impossible(kind, set())
    if impossible:
        raise TypeError(
            f"{rule} {impossible}, which no data of a message can be: annotate a dataclass, "
            "msgspec.Struct, TypedDict, Pydantic model or built-in type, or nothing"
        )
    # msgspec reads the type of a Struct's field once; a bare union, list or dict it would read each time.
    box: Any = msgspec.defstruct("Box", [("data", expected)], array_like=True)

    def fit(data: Any) -> Any:
        native = natives.get(type(data))
        if native is not None:
            return native(data)
        try:
            return msgspec.convert((data,), box, builtin_types=_NATIVE, dec_hook=_other).data
        except msgspec.ValidationError as error:
            raise conversion_errors.from_msgspec(str(error), kind) from None
        except Exception as error:
            raise conversion_errors.from_app(error) from error

    return fit


def _kind(expected: Any) -> msgspec.inspect.Type:
    """Describe a type in msgspec's terms. Raises UncheckedError if it has none for it."""
    try:
        return msgspec.inspect.type_info(expected)
    except NameError:
        raise
    except Exception as error:  # noqa: BLE001  # a type of the app may raise anything
        raise UncheckedError(str(error)) from None


def _without_natives(expected: Any) -> tuple[dict[type, Function], Any, msgspec.inspect.Type]:
    """Split a union that msgspec refuses because JSON has bytes and datetimes as text.

    Returns a function for each of these types, the rest of the union, and the whole for messages.
    Raises as `_kind`.
    """
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
        # Without such types, `_kind` raises the reason. With only such types, bytes refuse all other data.
        rest = bytes if natives else expected
    return natives, rest, msgspec.inspect.UnionType((*conversion_errors.arms(_kind(rest)), *shown))


def _other(kind: Any, value: Any) -> Any:
    """Convert a value inside of typed data that msgspec can't: a model, a path, an address."""
    if is_model(kind):
        try:
            return kind.model_validate(value, **_names_and_aliases(kind.model_validate))
        except sys.modules["pydantic"].ValidationError as error:
            raise ValueError(conversion_errors.from_pydantic(error, kind).reason) from None
    return kind(value) if type(value) is str and is_text(kind) else value


def _impossible(kind: msgspec.inspect.Type, seen: set[Any]) -> str:
    """Name the first required type in it that no data can become, or return ""."""
    if isinstance(kind, msgspec.inspect.CustomType):
        return "" if _may_arrive(kind.cls) else getattr(kind.cls, "__qualname__", str(kind.cls))
    if isinstance(kind, msgspec.inspect.UnionType):
        arms = [_impossible(arm, seen) for arm in kind.types]
        return arms[0] if all(arms) else ""
    return next(filter(None, (_impossible(inner, seen) for inner in _inner(kind, seen))), "")


def _inner(kind: msgspec.inspect.Type, seen: set[Any]) -> Iterator[msgspec.inspect.Type]:
    """Yield the types of the parts that any value of it has."""
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
        # A protocol without `runtime_checkable`.
        raise UncheckedError(str(error)) from None
