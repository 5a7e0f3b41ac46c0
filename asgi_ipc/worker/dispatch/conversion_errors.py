"""Conversion errors: which part of some data does not fit its handler, and why.

Law: the only file that reads msgspec's English, because msgspec says a place
and a type in no other way. Tried with msgspec 0.19, 0.20, 0.21 and 0.22. When
the English changes, an unknown text is quoted as it is and `field` is "";
what is refused does not change. Pydantic gives place and kind as values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from msgspec import inspect as types

# The value that a missing field has, and the type of a field that may not be there.
NOTHING: Final = "nothing"

# A sentence of msgspec: the text, and behind it the place, unless all of the data is meant.
_PLACE: Final = re.compile(r"(.*?)(?: - at (`key` in )?`\$([^`]*)`)?", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[]+)|\[([^\]]+)\]")
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")
_EXPECTED: Final = re.compile(r"Expected (`[^`]*`)(.*?)(?:, got `?([^`]*)`?)?")

# msgspec names types as JSON does.
_OF_JSON: Final = {"object": "dict", "array": "list", "null": "None"}

# The names of msgspec's own classes are those of Python in lower case, except for these.
_OF_CLASSES: Final = {"none": "None", "any": "Any", "vartuple": "tuple", "uuid": "UUID", "decimal": "Decimal"}


class ConversionError(Exception):
    """Raised instead of a call: this data does not fit its handler.

    Attributes:
        field: the place in the data, as "age" or "items[0].age"; "" for all of it.
        expected: the type that belongs there, "" if that is unknown.
        reason: one sentence of place, type and fault.
    """

    def __init__(self, field: str, expected: str, reason: str, *, in_key: bool = False) -> None:
        where = f"a key of {field or 'it'}" if in_key else field
        super().__init__(f"{where}: {reason}" if where else reason)
        self.field = field
        self.expected = expected
        self.reason = str(self)


def from_app(error: Exception) -> ConversionError:
    """Tell what a type of the app raised while it was made."""
    return ConversionError("", "", f"{type(error).__qualname__}: {error}")


def _expectation(expected: str, got: str) -> str:
    return f"expected {expected or 'a value'}" + (f", got {got}" if got else "")


# --- msgspec


def from_msgspec(text: str, expected: types.Type) -> ConversionError:
    """Translate what msgspec said of data that is not `expected` and was the only element of an array."""
    found = _PLACE.fullmatch(text)
    said, in_key, place = found.groups() if found is not None else (text, None, None)
    path = (place or "").removeprefix("[0]")
    if (unknown := _UNKNOWN.fullmatch(said)) is not None:
        return ConversionError(f"{path}.{unknown[1]}".lstrip("."), NOTHING, "there is no such field")
    missing = _MISSING.fullmatch(said)
    if missing is not None:
        path = f"{path}.{missing[1]}"
    declared = None if in_key else _declared(expected, path)
    kind = _shown(declared) if declared is not None else ""
    field = path.lstrip(".")
    if missing is not None:
        return ConversionError(field, kind, _expectation(kind, NOTHING))
    mismatch = _EXPECTED.fullmatch(said)
    if mismatch is None:
        return ConversionError(field, kind, f"expected {kind}: {said}" if kind else said)
    if mismatch[2] or not kind:
        # The declared type does not show its bounds.
        kind = _python(mismatch[1]) + mismatch[2]
    return ConversionError(field, kind, _expectation(kind, _python(mismatch[3] or "")), in_key=bool(in_key))


def _python(names: str) -> str:
    """Translate JSON's names of types to Python's."""
    return " | ".join(_OF_JSON.get(name, name) for name in names.strip("`").split(" | "))


def _declared(expected: types.Type, path: str) -> types.Type | None:
    """Follow a path of `.name` and `[place]` to the type at its end."""
    here: types.Type | None = expected
    for name, place in _STEP.findall(path):
        inner = (_inside(each, name, place) for each in arms(here)) if here is not None else ()
        here = next((each for each in inner if each is not None), None)
    return here


def arms(kind: types.Type) -> Iterator[types.Type]:
    """Yield the alternatives of a union, or the one type that it is, without metadata."""
    if isinstance(kind, types.Metadata):
        yield from arms(kind.type)
    elif isinstance(kind, types.UnionType):
        for each in kind.types:
            yield from arms(each)
    else:
        yield kind


def _inside(kind: types.Type, name: str, place: str) -> types.Type | None:
    fields = getattr(kind, "fields", ())
    if name:
        return next((field.type for field in fields if field.encode_name == name), None)
    items: Sequence[types.Type] = getattr(kind, "item_types", None) or [field.type for field in fields]
    if place.isdigit() and int(place) < len(items):
        return items[int(place)]
    found: types.Type | None = getattr(kind, "item_type", None) or getattr(kind, "value_type", None)
    return found


def _shown(kind: types.Type) -> str:
    """Name a type as an annotation does, without its parts."""
    if isinstance(kind, types.Metadata | types.UnionType):
        return " | ".join(dict.fromkeys(_shown(each) for each in arms(kind)))
    if isinstance(kind, types.LiteralType):
        return f"one of {', '.join(map(repr, kind.values))}"
    cls = getattr(kind, "cls", None)
    if cls is not None:
        return str(getattr(cls, "__name__", cls))
    name = type(kind).__name__.removesuffix("Type").lower()
    return _OF_CLASSES.get(name, name)


# --- Pydantic


def from_pydantic(error: Any, expected: Any) -> ConversionError:
    """Translate the first fault that a pydantic.ValidationError reports in data that is not `expected`."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = first["loc"]
    field = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")
    kind = _declared_to_pydantic(expected, place)
    if first["type"] == "missing":
        return ConversionError(field, kind, _expectation(kind, NOTHING))
    said = first["msg"]
    return ConversionError(field, kind, f"expected {kind}: {said}" if kind else said)


def _declared_to_pydantic(kind: Any, place: Sequence[int | str]) -> str:
    """Name the annotation at a place in models, lists, dicts and unions; "" anywhere else."""
    for key in place:
        kind = _inside_model(kind, key)
    return _name(kind) if kind is not None else ""


def _name(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _name(annotation.__origin__)
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(map(_name, get_args(annotation)))
    if annotation is type(None):
        return "None"
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return repr(annotation).replace("typing.", "")


def _inside_model(kind: Any, key: int | str) -> Any:
    if get_origin(kind) is Annotated:
        return _inside_model(kind.__origin__, key)
    among = [each for each in get_args(kind) if each is not type(None)]
    if get_origin(kind) in (Union, UnionType):
        if len(among) == 1:
            return _inside_model(among[0], key)
        # In a union, the key is the name of the model that Pydantic tried, or the tag in one of its fields.
        return next(
            (each for each in among if getattr(each, "__name__", None) == key or _has_tag(each, key)), None
        )
    fields = getattr(kind, "__pydantic_fields__", None)
    if fields is None:
        return among[-1] if among else None
    field = fields.get(str(key)) or next((each for each in fields.values() if each.alias == key), None)
    return field.annotation if field is not None else None


def _has_tag(kind: Any, tag: int | str) -> bool:
    fields = getattr(kind, "__pydantic_fields__", {})
    return any(tag in get_args(field.annotation) for field in fields.values())
