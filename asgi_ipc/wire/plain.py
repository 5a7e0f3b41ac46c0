"""Plain: the form in which a dataclass, a msgspec.Struct or a Pydantic model travels.

Law: nothing in this file asks the kernel or the clock, and Pydantic is never imported: its models are known
by their attributes. Typed data becomes plain data, and the receiver makes the same type of it again
(worker/dispatch/conversion.py). Other data is left unchanged.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import Coroutine, Set
from typing import Any, ClassVar, Final, Protocol

import msgspec

# Types that MessagePack carries natively, and msgspec would turn into text. A datetime stays one, so one
# without a time zone is refused as anywhere else.
_CARRIED: Final = (bytes, bytearray, memoryview, datetime.datetime)

# Objects of these modules travel as text inside typed data: addresses of hosts and of the web.
_MODULES_OF_TEXT: Final = frozenset({"ipaddress", "pydantic.networks"})


# Types that msgspec turns into text inside typed data.
_TEXTS: Final = (uuid.UUID, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta)

# A subclass would arrive without its additions, so the sender must convert it.
_BASES: Final = (str, bytes, int, float, dict, list, tuple)


class Dataclass(Protocol):
    """Any instance of a dataclass, for type checkers."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Model(Protocol):
    """Any Pydantic model, for type checkers."""

    @property
    def model_fields_set(self) -> set[str]: ...

    def model_dump(self) -> Any: ...


def is_typed(kind: type) -> bool:
    """Return whether data of this type travels as its fields."""
    return issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind) or is_model(kind)


def is_model(kind: type) -> bool:
    """Return whether a type is a Pydantic model."""
    return hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_dump")


def is_text(kind: type) -> bool:
    """Return whether data of this type travels as text inside typed data: a path, an address."""
    return kind.__module__ in _MODULES_OF_TEXT or hasattr(kind, "__fspath__")


def not_carried(kind: type) -> TypeError:
    """Return the error for a type that can't be sent, with a type to send instead."""
    return TypeError(f"a message can't carry data of type {kind.__qualname__}: {_instead(kind)}")


def _instead(kind: type) -> str:
    if issubclass(kind, Coroutine):
        return "await it first"
    if issubclass(kind, Set):
        return "send a list"
    if issubclass(kind, _TEXTS) or is_text(kind):
        return "send its str(), or put it into a dataclass, Struct or model"
    if issubclass(kind, enum.Enum):
        return "send its value, or put it into a dataclass, Struct or model"
    for plain in _BASES:
        if issubclass(kind, plain):
            return f"send {plain.__name__}() of it"
    return "send plain data, or make it a dataclass, msgspec.Struct or Pydantic model"


def made_plain(data: Any) -> Any:
    """Return `data` with all typed data in it replaced by its fields.

    Raises TypeError for a field that no message can carry, and RecursionError for data that contains itself.
    """
    kind = type(data)
    if kind is dict:
        return {key: made_plain(value) for key, value in data.items()}
    if kind is list or kind is tuple:
        return [made_plain(value) for value in data]
    if is_typed(kind):
        return msgspec.to_builtins(data, builtin_types=_CARRIED, enc_hook=_field)
    return data


def _field(value: Any) -> Any:
    """Convert a value that msgspec does not know."""
    kind = type(value)
    if is_model(kind):
        # By names, not by aliases, since reading may use other aliases; and without computed fields.
        return value.model_dump(round_trip=True)
    if is_text(kind):
        return str(value)
    raise not_carried(kind)
