"""Typed data: a handler gets what it is annotated with, or is not called; and the same types can be sent."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import functools
import ipaddress
import logging
import os
import pathlib
import sys
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, NewType, Protocol, TypedDict, TypeVar

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc import InvalidDataError, IPCError, RemoteError, RequestError
from asgi_ipc.wire.message import MAX_DEPTH, Data, Packer
from asgi_ipc.worker.dispatch.conversion import answer_converter
from asgi_ipc.worker.dispatch.conversion_errors import ConversionError, from_msgspec
from asgi_ipc.worker.dispatch.registry import Registry
from tests import strategies
from tests.encoding import as_bytes
from tests.inprocess import fleet, until

NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
SOME_ID = uuid.UUID(int=7)
T = TypeVar("T")
Number = NewType("Number", int)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Item:
    label: str
    count: int = 1


@dataclass
class Order:
    number: int
    items: list[Item] = field(default_factory=list)
    colour: Colour = Colour.RED
    id: uuid.UUID | None = None
    price: decimal.Decimal | None = None
    at: datetime.datetime | None = None
    day: datetime.date | None = None
    tags: frozenset[str] = frozenset()
    raw: bytes = b""
    by_number: dict[int, Item] = field(default_factory=dict)
    host: ipaddress.IPv4Address | None = None
    path: pathlib.PurePosixPath | None = None


class Shape(msgspec.Struct, rename="camel", omit_defaults=True):
    side_count: int
    is_round: bool = False


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


class User(TypedDict):
    name: str
    age: int


class Place(NamedTuple):
    x: int
    y: int


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    name: str = pydantic.Field(alias="fullName")
    age: int
    id: uuid.UUID | None = None
    born: datetime.datetime | None = None
    favourite: Colour = Colour.RED
    raw: bytes = b""
    home: pydantic.HttpUrl | None = None
    friends: list[Person] = []

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def shout(self) -> str:
        return self.name.upper()


class Stock(pydantic.BaseModel):
    counts: dict[str, Annotated[int, pydantic.Field(gt=0)]] = {}
    notes: list[Any]

    @pydantic.field_validator("notes")
    @classmethod
    def refuse(cls, notes: list[Any]) -> list[Any]:
        if not notes:
            raise KeyError("no note")
        return notes


@dataclass
class Tree:
    label: str
    inner: list[Tree]


@dataclass
class Waits:
    label: str
    event: asyncio.Event


class Wheel(pydantic.BaseModel):
    kind: Literal["wheel"] = "wheel"
    radius: float


class Box(pydantic.BaseModel):
    kind: Literal["box"] = "box"
    side: int


@dataclass
class Team:
    boss: Person
    members: list[Person] = field(default_factory=list)


@dataclass
class Positive:
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("a number from 0 on")


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    a: int


@dataclass
class Picky:
    name: str

    def __post_init__(self) -> None:
        raise KeyError(self.name)


JOE = {"name": "Joe", "age": 1}
Wheel_or_box = Annotated[Wheel | Box, pydantic.Field(discriminator="kind")]


class Anything(Protocol):
    def run(self) -> None: ...


def carried(data: Any) -> Any:
    """What arrives without an annotation."""
    _, arrived = msgspec.msgpack.decode(as_bytes(Packer(2**24, 2**12).pack("name", data)))
    return arrived


def registered(function: Callable[..., Any]) -> Callable[..., Any]:
    """What is called for a message of that handler."""
    registry = Registry()
    registry.set("name", function, False)
    return registry.handlers["name"].function


def annotated(annotation: Any, function: Callable[[Any], Any] = lambda data: data) -> Callable[[Any], Any]:
    """A handler with that annotation."""

    def handler(data: Any) -> Any:
        return function(data)

    handler.__annotations__["data"] = annotation
    return handler


def fit(annotation: Any, data: Any) -> Any:
    """`data`, sent and received by such a handler."""
    return registered(annotated(annotation))(carried(data))


def never(data: Any) -> None:
    raise AssertionError("called")


def refusal(annotation: Any, data: Any) -> tuple[str, str, str]:
    with pytest.raises(ConversionError) as caught:
        registered(annotated(annotation, never))(carried(data))
    return caught.value.field, caught.value.expected, caught.value.reason


# --- what fits


@pytest.mark.parametrize(
    ("annotation", "sent", "arrives"),
    [
        (str, "x", "x"),
        (bytes, b"x", b"x"),
        (bytearray, b"x", bytearray(b"x")),
        (int, 5, 5),
        (float, 5, 5.0),
        (list, [1, "x"], [1, "x"]),
        (dict, {1: "x"}, {1: "x"}),
        (tuple[int, str], (1, "x"), (1, "x")),
        (Number, 3, 3),
        (int | None, None, None),
        (str | bytes, "eHg=", "eHg="),
        (str | bytes, b"eHg=", b"eHg="),
        (datetime.datetime | str | None, NOON, NOON),
        (datetime.datetime | str | None, NOON.isoformat(), NOON.isoformat()),
        (bytes | datetime.datetime, NOON, NOON),
        (bytearray | Item, b"x", bytearray(b"x")),
        (bytearray | str | Item, {"label": "x"}, Item("x")),
        (datetime.datetime, NOON, NOON),
        (datetime.datetime, NOON.isoformat(), NOON),
        (Place, [1, 2], Place(1, 2)),
        (User, {"name": "x", "age": 3}, {"name": "x", "age": 3}),
        (Annotated[int, msgspec.Meta(ge=0)], 3, 3),
        (Item | None, {"label": "x", "unknown": 1}, Item("x")),
        (Cat | Dog, Dog("x"), Dog("x")),
        (Shape, {"sideCount": 3}, Shape(3)),
        (Person, {"name": "x", "age": "3"}, Person(fullName="x", age=3)),
        (Person | None, None, None),
        (dict[str, Person], {"k": {"fullName": "x", "age": 3}}, {"k": Person(fullName="x", age=3)}),
        (Annotated[int, pydantic.Field(gt=0)], 1, 1),
        (Wheel | Box, Box(side=3), Box(side=3)),
        (pydantic.RootModel[list[int]], [1], pydantic.RootModel[list[int]]([1])),
        (Team, {"boss": {"name": "x", "age": 3}}, Team(Person(fullName="x", age=3))),
        (pathlib.PurePosixPath, "/tmp", pathlib.PurePosixPath("/tmp")),
    ],
    ids=str,
)
def test_what_fits_arrives_as_what_the_handler_says(annotation: Any, sent: Any, arrives: Any) -> None:
    got = fit(annotation, sent)
    assert type(got) is type(arrives)
    assert got == arrives


VALID_INTEGER = ": Input should be a valid integer, unable to parse string as an integer"
VALID_PERSON = ": Input should be a valid dictionary or instance of Person"


@pytest.mark.parametrize(
    ("annotation", "sent", "field", "expected", "fault"),
    [
        (str, b"x", "", "str", ", got bytes"),
        (bytes, "eHg=", "", "bytes", ", got str"),
        (int, True, "", "int", ", got bool"),
        (int, 1.0, "", "int", ", got float"),
        (list, {}, "", "list", ", got dict"),
        (int | None, "x", "", "int | None", ", got str"),
        (str | bytes, 3, "", "str | bytes", ", got int"),
        (bytes | datetime.datetime, "x", "", "bytes | datetime", ", got str"),
        (Item, "x", "", "Item", ", got str"),
        (Item, {"label": 3}, "label", "str", ", got int"),
        (Item, {}, "label", "str", ", got nothing"),
        (Order, {"number": 1, "items": [{"label": "x"}, {}]}, "items[1].label", "str", ", got nothing"),
        (Order, {"number": 1, "colour": "pink"}, "colour", "Colour", ": Invalid enum value 'pink'"),
        (Order, {"number": 1, "id": "x"}, "id", "UUID | None", ": Invalid UUID"),
        (dict[int, Item], {3: {"label": None}}, "[...].label", "str", ", got None"),
        (list[Item], [{"label": "x", "count": "y"}], "[0].count", "int", ", got str"),
        (tuple[int, str], [1], "", "list of length 2", ", got 1"),
        (tuple[int, str], [1, 2], "[1]", "str", ", got int"),
        (Shape, {"side_count": 3}, "sideCount", "int", ", got nothing"),
        (User, {"name": "x"}, "age", "int", ", got nothing"),
        (Literal["a"], "b", "", "one of 'a'", ": Invalid enum value 'b'"),
        (Annotated[int, msgspec.Meta(ge=0)], -1, "", "int >= 0", ""),
        (Positive, {"number": -1}, "", "Positive", ": a number from 0 on"),
        (Person, {"name": "x"}, "age", "int", ", got nothing"),
        (Person, {"name": "x", "age": "old"}, "age", "int", VALID_INTEGER),
        (list[Person], [JOE | {"friends": [{"name": "y"}]}], "[0].friends[0].age", "int", ", got nothing"),
        (Wheel_or_box, {"kind": "box"}, "box.side", "int", ", got nothing"),
        (Person | None, [], "", "Person | None", VALID_PERSON),
        (Stock, {}, "notes", "list[Any]", ", got nothing"),
        (Stock, {"notes": [1], "counts": {"a": 0}}, "counts.a", "int", ": Input should be greater than 0"),
        (Tree, {"label": "a", "inner": [{"label": "b"}]}, "inner[0].inner", "list", ", got nothing"),
        (Team, {"boss": {"name": "x"}}, "boss", "Person", ": age: expected int, got nothing"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told_by_field_and_expected_type(
    annotation: Any, sent: Any, field: str, expected: str, fault: str
) -> None:
    reason = f"{field}: expected {expected}{fault}".removeprefix(": ")
    assert refusal(annotation, sent) == (field, expected, reason)


@pytest.mark.parametrize(
    ("annotation", "sent", "told"),
    [
        (Stock, {"notes": []}, ("", "", "KeyError: 'no note'")),
        (
            Order,
            {"number": 1, "by_number": {"3": {}}},
            ("by_number", "int", "a key of by_number: expected int, got str"),
        ),
        (dict[str, int], {1: 1}, ("", "str", "a key of it: expected str, got int")),
        (Cat | Dog, {"type": "Cow"}, ("type", "", "type: Invalid value 'Cow'")),
        (Strict, {"a": 1, "b": 2}, ("b", "nothing", "b: there is no such field")),
        (Person, JOE | {"b": 2}, ("b", "", "b: Extra inputs are not permitted")),
        (Picky, {"name": "tea"}, ("", "", "KeyError: 'tea'")),
        (set[Any], [[1], {}], ("", "", "TypeError: unhashable type: 'list'")),
    ],
    ids=str,
)
def test_keys_tags_unknown_fields_and_the_apps_own_errors_are_told_in_other_words(
    annotation: Any, sent: Any, told: tuple[str, str, str]
) -> None:
    assert refusal(annotation, sent) == told


def test_an_answer_is_checked_by_whoever_knows_its_type() -> None:
    for expected, answer, place in ((Person, {}, "fullName"), (list[int], ["x"], "[0]")):
        with pytest.raises(ConversionError) as caught:
            answer_converter(expected)(answer)
        assert caught.value.field == place


@pytest.mark.parametrize("text", ["Something new: int", "Something new at $.count\n", ""])
def test_a_text_of_msgspec_that_is_unknown_is_quoted_as_it_is(text: str) -> None:
    error = from_msgspec(text, msgspec.inspect.type_info(Item))
    assert (error.field, error.expected, error.reason) == ("", "Item", f"expected Item: {text}")


# --- where nothing is checked


def unannotated(data):  # type: ignore[no-untyped-def]
    return data


def of_whatever(data: T) -> T:
    return data


SAYS_NOTHING = [Any, object, None, Data, Annotated[Any, "x"]]
NOT_ANNOTATED: list[Any] = [unannotated, of_whatever, print, [].append, len, int, dict, lambda *data: None]
# A wrapper that passes on its arguments, to a function that takes none.
NOT_ANNOTATED.append(functools.wraps(lambda: None)(lambda *data: None))


@pytest.mark.parametrize(
    "function",
    [*map(annotated, SAYS_NOTHING), *NOT_ANNOTATED],
    ids=[*map(str, SAYS_NOTHING), *(function.__name__ for function in NOT_ANNOTATED)],
)
def test_where_nothing_is_to_be_checked_the_handler_itself_is_called(function: Callable[..., Any]) -> None:
    assert registered(function) is function


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        (Literal, "Literal"),
        (Item | User, "more than one dict-like type"),
        (Anything, "runtime_checkable"),
        (3, "3"),
        ("of what you like", "must be an expression"),
        ("Undefined | None", "'Undefined' is not defined"),
    ],
    ids=str,
)
def test_an_annotation_that_nobody_can_check_is_told_once_and_not_checked(
    annotation: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "asgi_ipc"):
        function = registered(annotated(annotation))
        assert function({"label": 3}) == {"label": 3}
        assert function("x") == "x"
    (record,) = caplog.records
    assert record.getMessage().startswith(f"worker [{os.getpid()}]: data for handler 'name' is not checked: ")
    assert why in record.getMessage()


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (asyncio.Event, "Event"),
        (complex, "complex"),
        (deque, "deque"),
        (list[asyncio.Event], "Event"),
        (Waits, "Event"),
        (Waits | list[complex], "Event"),
        (asyncio.Event | None, ""),
    ],
    ids=str,
)
def test_what_no_message_can_become_is_refused_when_it_is_registered(annotation: Any, name: str) -> None:
    if not name:
        assert fit(annotation, None) is None
        return
    with pytest.raises(TypeError, match=f"handler 'name' takes {name}, which no data of a message can be"):
        registered(annotated(annotation, print))


# --- kinds of handlers


class Receiver:
    def method(self, item: Item) -> Item:
        return item

    def __call__(self, item: Item, more: int = 0) -> Item:
        return item

    @staticmethod
    def static(item: Item) -> Item:
        return item

    @classmethod
    def of_class(cls, item: Item) -> Item:
        return item


def two(prefix: str, item: Item) -> tuple[str, Item]:
    return prefix, item


def passes_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def around(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return around


def decoded(data: bytes) -> Item:
    return msgspec.json.decode(data, type=Item)


# Wrappers with a parameter of their own, though functools.wraps gives them the annotations of a handler.


@functools.wraps(Receiver.static)
def annotated_itself(data: bytes) -> Any:
    return decoded(data)


@functools.wraps(Receiver.static)
def annotated_by_the_same_name(item: bytes) -> Any:
    return decoded(item)


@functools.wraps(Receiver.static)
def not_annotated(data):  # type: ignore[no-untyped-def]
    return decoded(data)


@functools.wraps(two)
def of_another_parameter(data):  # type: ignore[no-untyped-def]
    return decoded(data)


WRAPPERS = [annotated_itself, annotated_by_the_same_name, not_annotated, of_another_parameter]


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=["itself", "same name", "not", "another parameter"])
def test_a_wrapper_with_a_parameter_of_its_own_says_itself_what_it_takes(wrapper: Any) -> None:
    function = registered(wrapper)
    assert function is wrapper
    assert function(b'{"label": "x"}') == Item("x")


@pytest.mark.parametrize(
    ("function", "data", "result"),
    [
        (Receiver.static, {"label": "x"}, Item("x")),
        (Receiver().static, {"label": "x"}, Item("x")),
        (Receiver().of_class, {"label": "x"}, Item("x")),
        (Receiver().method, {"label": "x"}, Item("x")),
        (Receiver(), {"label": "x"}, Item("x")),
        (functools.partial(two, "p"), {"label": "x"}, ("p", Item("x"))),
        (passes_on(Receiver.static), {"label": "x"}, Item("x")),
        (Item, "x", Item("x")),
    ],
    ids=["static", "static of one", "of class", "method", "callable", "partial", "decorated", "class"],
)
def test_methods_partials_callables_classes_and_decorated_functions_are_looked_through(
    function: Callable[..., Any], data: Any, result: Any
) -> None:
    called = registered(function)
    assert called(data) == result
    with pytest.raises(ConversionError):
        called(None)


# --- names that are defined elsewhere, or later


def takes_later(data: Later) -> Any:
    return data


registered_before = registered(takes_later)


@dataclass
class Later:
    number: int
    inner: Even_later | None = None


@dataclass
class Even_later:  # noqa: N801
    text: str


def test_what_is_defined_further_down_is_known_with_the_first_message() -> None:
    assert registered_before({"number": 1, "inner": {"text": "x"}}) == Later(1, Even_later("x"))
    with pytest.raises(ConversionError):
        registered_before({"number": 1, "inner": {"text": 3}})


def test_what_is_defined_in_a_function_is_known_to_the_handlers_there() -> None:
    @dataclass
    class Local:
        number: int

    def register() -> Callable[..., Any]:
        def handler(data: list[Local]) -> Any:
            return data

        return registered(handler)

    function = register()
    assert function([{"number": 1}]) == [Local(1)]
    with pytest.raises(ConversionError):
        function([{}])


def test_other_annotations_may_be_for_type_checkers_alone() -> None:
    def handler(data: Item, more: OnlyForTypeCheckers = None) -> OnlyForTypeCheckers:  # type: ignore[name-defined]  # noqa: F821
        return data

    assert registered(handler)({"label": "x"}) == Item("x")


# --- the same types, sent

items = st.builds(Item, label=st.text(), count=st.integers(-(2**63), 2**64 - 1))
zones = st.sampled_from([datetime.UTC, datetime.timezone(datetime.timedelta(hours=5, minutes=30))])
moments = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1), timezones=zones)
orders = st.builds(
    Order,
    number=st.integers(-(2**63), 2**64 - 1),
    items=st.lists(items, max_size=3),
    colour=st.sampled_from(Colour),
    id=st.none() | st.uuids(),
    price=st.none() | st.decimals(allow_nan=False),
    at=st.none() | moments,
    day=st.none() | st.dates(),
    tags=st.frozensets(st.text(), max_size=3),
    raw=st.binary(),
    by_number=st.dictionaries(st.integers(-(2**63), 2**64 - 1), items, max_size=3),
    host=st.none() | st.ip_addresses(v=4),
    path=st.none() | st.just(pathlib.PurePosixPath("/a/b")),
)


@given(orders)
def test_a_dataclass_arrives_as_it_was_sent(order: Order) -> None:
    assert fit(Order, order) == order
    assert fit(list[Order], [order]) == [order]


@given(st.integers(-(2**63), 2**64 - 1), st.booleans())
def test_a_struct_arrives_as_it_was_sent_by_the_names_that_it_has_on_the_wire(
    sides: int, is_round: bool
) -> None:
    shape = Shape(sides, is_round)
    assert carried(shape) == {"sideCount": sides} | ({"isRound": True} if is_round else {})
    assert fit(Shape, shape) == shape


@given(
    st.builds(
        Person,
        fullName=st.text(),
        age=st.integers(-(2**63), 2**63 - 1),
        id=st.none() | st.uuids(),
        born=st.none() | moments,
        favourite=st.sampled_from(Colour),
        raw=st.binary(),
        home=st.none() | st.just(pydantic.HttpUrl("http://example.org/")),
        friends=st.just([Person(fullName="a friend", age=1)]),
    )
)
def test_a_pydantic_model_arrives_as_it_was_sent(person: Person) -> None:
    assert fit(Person, person) == person
    assert fit(Team, Team(person, [person])) == Team(person, [person])
    assert "shout" not in carried(person)


@given(strategies.data)
def test_other_data_beside_typed_data_is_what_it_was(data: Any) -> None:
    assert strategies.same(carried([data, {"key": Item("x")}]), [data, {"key": {"label": "x", "count": 1}}])


def test_typed_data_arrives_as_fields_where_nothing_is_annotated() -> None:
    order = Order(1, [Item("x")], id=SOME_ID, at=NOON, raw=b"\xff", tags=frozenset({"t"}))
    assert carried({"orders": (order,)}) == {
        "orders": [
            {
                "number": 1,
                "items": [{"label": "x", "count": 1}],
                "colour": "red",
                "id": str(SOME_ID),
                "price": None,
                "at": NOON,
                "day": None,
                "tags": ["t"],
                "raw": b"\xff",
                "by_number": {},
                "host": None,
                "path": None,
            }
        ]
    }
    assert carried(pydantic.RootModel[list[int]]([1])) == [1]
    assert carried(User(name="x", age=1)) == {"name": "x", "age": 1}


@dataclass
class Holder:
    inner: Any


class SubInt(int): ...


def _endless() -> Holder:
    holder = Holder([])
    holder.inner.append(holder)
    return holder


def _deep(levels: int) -> Holder:
    holder = Holder(1)
    for _ in range(levels - 1):
        holder = Holder(holder)
    return holder


def _endless_beside() -> list[Any]:
    endless: list[Any] = [Holder(1)]
    endless.append(endless)
    return endless


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (Holder(SubInt(1)), TypeError),
        (Holder(object()), TypeError),
        (Holder({(1, 2): 3}), TypeError),
        (Holder(datetime.datetime(2026, 1, 1)), ValueError),
        (Holder(2**64), OverflowError),
        (Holder("\ud800"), ValueError),
        (Holder(pydantic.SecretStr("x")), TypeError),
        (_endless(), ValueError),
        (_endless_beside(), ValueError),
        (_deep(MAX_DEPTH + 1), ValueError),
        ([Holder(1), Colour.RED], TypeError),
        ([Holder(1), SOME_ID], TypeError),
        ({Shape: 1}, TypeError),
        (Holder, TypeError),
        (Person, TypeError),
        (Place(1, 2), TypeError),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_typed_data_cannot_carry_raises_in_the_sender(data: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Packer(2**24, 2**12).pack("name", data)
    with pytest.raises(error):
        Packer(2**24, 2**12).wrap("name", (), data)


def test_typed_data_may_be_as_deep_as_any() -> None:
    assert fit(Holder, _deep(MAX_DEPTH)).inner == carried(_deep(MAX_DEPTH))["inner"]


# --- in a fleet


@pytest.mark.parametrize("kind", ["plain", "async", "ordered", "plain that gives back a coroutine"])
async def test_what_does_not_fit_is_counted_and_told_once_and_answered_and_the_next_arrives(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet(2) as (_, (a, b)):
        got: list[Item] = []

        async def answer(item: Item) -> Item:
            await asyncio.sleep(0)
            got.append(item)
            return Item(item.label, item.count + 1)

        def plain(item: Item) -> Any:
            if "coroutine" in kind:
                return answer(item)
            got.append(item)
            return Item(item.label, item.count + 1)

        b.ipc.receive("item", plain if kind.startswith("plain") else answer, ordered=kind == "ordered")
        misfit = {"label": "x\n", "count": "y"}
        for message in (misfit, Item("message"), misfit):
            await a.ipc.send(b.pid, "item", message)
        questions = [a.ipc.request(b.pid, "item", data) for data in (Item("x"), misfit, Item("x", 2))]
        first, wrong, last = await asyncio.gather(*questions, return_exceptions=True)
        assert (first, last) == ({"label": "x", "count": 2}, {"label": "x", "count": 3})
        assert isinstance(wrong, InvalidDataError)
        assert isinstance(wrong, IPCError | RequestError | ValueError)
        assert (wrong.pid, wrong.name, wrong.field, wrong.expected) == (b.pid, "item", "count", "int")
        reason = "count: expected int, got str"
        assert str(wrong) == f"data does not fit handler 'item' of worker {b.pid}: {reason}"
        assert got == [Item("message"), Item("x"), Item("x", 2)]
        stats = b.ipc.stats()
        assert stats.dropped == {"invalid_data": 3}
        assert (stats.received, stats.discarded, stats.handler_errors) == (6, 0, 0)
        assert a.ipc.stats().dropped == {}
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage() == (
            f"worker [{b.pid}]: data from worker {a.pid} does not fit handler 'item': {reason}"
        )


async def test_what_is_told_of_wrong_data_is_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async with fleet(2) as (_, (a, b)):
        b.ipc.receive("colour", annotated(Colour, never))
        await a.ipc.send(b.pid, "colour", "x\n\x1b[31m" + "y" * 10_000)
        await until(lambda: bool(caplog.records))
        message = caplog.records[0].getMessage()
        assert message.isprintable()
        assert len(message) < 2000


async def test_where_messages_must_be_small_less_is_told() -> None:
    async with fleet(2, max_message_bytes=400) as (_, (a, b)):
        b.ipc.receive("colour", annotated(Colour, never))
        with pytest.raises(InvalidDataError) as caught:
            await a.ipc.request(b.pid, "colour", "\n" * 370)
        assert (caught.value.expected, caught.value.reason) == ("Colour", "")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (lambda: msgspec.convert({"label": 3}, Item), "msgspec.ValidationError"),
        (lambda: Person.model_validate({}), "pydantic_core._pydantic_core.ValidationError"),
        (lambda: int("x"), "ValueError"),
    ],
    ids=["msgspec", "pydantic", "another"],
)
async def test_an_error_of_the_handlers_own_is_none_of_conversion(
    fault: Callable[[], Any], kind: str
) -> None:
    async with fleet(2) as (_, (a, b)):

        async def waits(item: Item) -> Any:
            return fault()

        b.ipc.receive({"plain": annotated(Item, lambda item: fault()), "async": waits})
        for name in ("plain", "async"):
            with pytest.raises(RemoteError) as caught:
                await a.ipc.request(b.pid, name, Item("x"))
            assert caught.value.type_name == kind
        await until(lambda: b.ipc.stats().handler_errors == 2)
        assert b.ipc.stats().dropped == {}


async def test_every_verb_takes_typed_data() -> None:
    async with fleet(2) as (_, (a, b)), a.ipc.subscribe("item") as publications:
        got: list[Item] = []

        async def ask(item: Item) -> Person:
            await b.ipc.reply("item", item)
            b.ipc.reply_nowait("item", item)
            return Person(fullName=item.label, age=item.count)

        for member in (a, b):
            member.ipc.receive("item", annotated(Item, got.append))
        b.ipc.receive({"ask": ask, "echo": lambda data: data})
        item = Item("x", 3)
        await a.ipc.send(b.pid, "item", item)
        a.ipc.send_nowait(b.pid, "item", item)
        await a.ipc.broadcast("item", item)
        a.ipc.broadcast_nowait("item", item)
        await a.ipc.send_any("item", item)
        await b.ipc.publish("item", item)
        assert Person.model_validate(await a.ipc.request(b.pid, "ask", item), by_name=True).age == 3
        assert (await a.ipc.gather("item", item)) == {a.pid: None, b.pid: None}
        assert (await anext(publications)).data == {"label": "x", "count": 3}
        await until(lambda: len(got) == 11)
        assert got == [item] * 11
        # These are here for the type checker, too.
        user: User = {"name": "x", "age": 3}
        assert await a.ipc.request(b.pid, "echo", user) == user
        assert await a.ipc.request(b.pid, "echo", Shape(3)) == {"sideCount": 3}


def test_pydantic_is_nobodys_to_import() -> None:
    code = "import sys, asgi_ipc; sys.exit('pydantic' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
