"""Misfits: data that is not what its handler takes, and how that is told.

Law: words only. What does not fit is msgspec's or Pydantic's to say; here it
is put in the words of the handler's own annotation: which field, what was
expected there, what came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from msgspec import inspect as types

# What is not there at all.
NOTHING: Final = "nothing"

_PLACE: Final = re.compile(r"(.*?)(?: - at (`key` in )?`\$([^`]*)`)?", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[]+)|\[([^\]]+)\]")
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")
_EXPECTED: Final = re.compile(r"Expected (`[^`]*`)(.*?)(?:, got `?([^`]*)`?)?")

# msgspec's words are JSON's; and its names of types, in lower case, are Python's but for these.
_OF_JSON: Final = {"object": "dict", "array": "list", "null": "None"}
_OF_TYPES: Final = {"none": "None", "any": "Any", "vartuple": "tuple", "uuid": "UUID", "decimal": "Decimal"}


class MisfitError(Exception):
    """Instead of a call: this data does not fit its handler.

    Attributes:
        field: where, as "age" or "items[0].age"; "" for all of it.
        expected: the type that it should have, "" if that can't be said.
        reason: all of that in words.
    """

    def __init__(self, field: str, expected: str, reason: str, *, in_key: bool = False) -> None:
        where = f"a key of {field or 'it'}" if in_key else field
        super().__init__(f"{where}: {reason}" if where else reason)
        self.field = field
        self.expected = expected
        self.reason = str(self)


def of_app(error: Exception) -> MisfitError:
    """What the type itself, or what is in it, has raised while it was made."""
    return MisfitError("", "", f"{type(error).__qualname__}: {error}")


# --- msgspec's


def of_msgspec(text: str, expected: types.Type) -> MisfitError:
    """What msgspec has said of data that is not `expected`, which was the only element of an array."""
    found = _PLACE.fullmatch(text)
    assert found is not None
    said, in_key, path = found[1], found[2] is not None, (found[3] or "").removeprefix("[0]")
    if (unknown := _UNKNOWN.fullmatch(said)) is not None:
        return MisfitError(f"{path}.{unknown[1]}".lstrip("."), NOTHING, "there is no such field")
    missing = _MISSING.fullmatch(said)
    if missing is not None:
        path = f"{path}.{missing[1]}"
    declared = None if in_key else _declared(expected, path)
    kind = _shown(declared) if declared is not None else ""
    field = path.lstrip(".")
    if missing is not None:
        return MisfitError(field, kind, _expectation(kind, NOTHING))
    mismatch = _EXPECTED.fullmatch(said)
    if mismatch is None:
        return MisfitError(field, kind, f"expected {kind}: {said}" if kind else said)
    if mismatch[2] or not kind:
        # A bound, or a length, of which the type alone says nothing.
        kind = _python(mismatch[1]) + mismatch[2]
    return MisfitError(field, kind, _expectation(kind, _python(mismatch[3] or "")), in_key=in_key)


def _expectation(expected: str, got: str) -> str:
    return f"expected {expected or 'a value'}" + (f", got {got}" if got else "")


def _python(words: str) -> str:
    """msgspec's names of types as Python's."""
    return " | ".join(_OF_JSON.get(word, word) for word in words.strip("`").split(" | "))


def _declared(expected: types.Type, path: str) -> types.Type | None:
    """The type at the end of a path of `.name` and `[place]`."""
    here: types.Type | None = expected
    for name, place in _STEP.findall(path):
        inner = (_inside(each, name, place) for each in arms(here)) if here is not None else ()
        here = next((each for each in inner if each is not None), None)
    return here


def arms(kind: types.Type) -> Iterator[types.Type]:
    """The types of which one is meant, without what is said of them."""
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
    """A type as an annotation has it, without what is in it."""
    if isinstance(kind, types.Metadata | types.UnionType):
        return " | ".join(dict.fromkeys(_shown(each) for each in arms(kind)))
    if isinstance(kind, types.LiteralType):
        return f"one of {', '.join(map(repr, kind.values))}"
    cls = getattr(kind, "cls", None)
    if cls is not None:
        return str(getattr(cls, "__name__", cls))
    name = type(kind).__name__.removesuffix("Type").lower()
    return _OF_TYPES.get(name, name)


# --- Pydantic's


def of_pydantic(error: Any, expected: Any) -> MisfitError:
    """The first thing that a pydantic.ValidationError says of data that is not `expected`."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = first["loc"]
    field = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")
    kind = _declared_to_pydantic(expected, place)
    if first["type"] == "missing":
        return MisfitError(field, kind, _expectation(kind, NOTHING))
    said = first["msg"]
    return MisfitError(field, kind, f"expected {kind}: {said}" if kind else said)


def _declared_to_pydantic(kind: Any, place: Sequence[int | str]) -> str:
    """The annotation at a place in models, and in lists, dicts and unions of them; "" anywhere else."""
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
        # Pydantic says which of them it has tried: by name, or by the tag that one of its fields has.
        return next(
            (each for each in among if getattr(each, "__name__", None) == key or _has_tag(each, key)), None
        )
    fields = _fields(kind)
    if fields is None:
        return among[-1] if among else None
    field = fields.get(str(key)) or next((each for each in fields.values() if each.alias == key), None)
    return field.annotation if field is not None else None


def _fields(kind: Any) -> dict[str, Any] | None:
    return getattr(kind, "__pydantic_fields__", None)


def _has_tag(kind: Any, tag: int | str) -> bool:
    return any(tag in get_args(field.annotation) for field in (_fields(kind) or {}).values())
