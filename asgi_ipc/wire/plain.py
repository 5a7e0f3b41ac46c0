"""Plain: what a dataclass, a msgspec.Struct or a Pydantic model travels as.

Law: nothing in this file asks the kernel or the clock, and Pydantic is never
imported: its models are known by what they have. Typed data becomes what the
same type is made of again at the receiver (worker/dispatch/conversion.py); anything else is
left as it is.
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

# What MessagePack carries natively, and msgspec would make text of. A datetime stays one, so one without
# a time zone is refused as anywhere else.
_CARRIED: Final = (bytes, bytearray, memoryview, datetime.datetime)

# Whose objects travel as their text, where they are in typed data: addresses, of hosts and of the web.
_MODULES_OF_TEXT: Final = frozenset({"ipaddress", "pydantic.networks"})


# What msgspec makes text of, where it is in typed data.
_TEXTS: Final = (uuid.UUID, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta)

# A subclass would arrive without what it adds, so the sender says that it may.
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
    """Whether what is of this type travels as its fields."""
    return issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind) or is_model(kind)


def is_model(kind: type) -> bool:
    """Whether that is a Pydantic model."""
    return hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_dump")


def is_text(kind: type) -> bool:
    """Whether what is of this type, in typed data, travels as its text: a path, an address."""
    return kind.__module__ in _MODULES_OF_TEXT or hasattr(kind, "__fspath__")


def not_carried(kind: type) -> TypeError:
    """What is of this type can't be sent; and what could be instead. To be raised."""
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
    """`data`, with the fields of typed data in place of it, wherever in it that is.

    Raises TypeError for a field that no message can carry, and RecursionError for what contains itself.
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
    """What msgspec does not know."""
    kind = type(value)
    if is_model(kind):
        # By names, not by aliases, of which there may be others for reading; and without what is computed.
        return value.model_dump(round_trip=True)
    if is_text(kind):
        return str(value)
    raise not_carried(kind)
