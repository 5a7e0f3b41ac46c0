"""Plain data: what can't be sent says what could be, in its place."""

from __future__ import annotations

import datetime
import decimal
import enum
import ipaddress
import pathlib
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest

from asgi_ipc.wire.message import Packer


class Name(str): ...


class Colour(enum.StrEnum):
    RED = "red"


class Basket: ...


@dataclass
class Holder:
    inside: Any


TEXT = "send its str(), or put it into a dataclass, Struct or model"
CLASS = "send plain data, or make it a dataclass, msgspec.Struct or Pydantic model"


@pytest.mark.parametrize(
    ("data", "instead"),
    [
        (uuid.UUID(int=1), TEXT),
        (decimal.Decimal("1.5"), TEXT),
        (datetime.date(2026, 1, 2), TEXT),
        (datetime.timedelta(1), TEXT),
        (pathlib.PurePosixPath("/"), TEXT),
        (ipaddress.IPv4Address(1), TEXT),
        (Colour.RED, "send its value, or put it into a dataclass, Struct or model"),
        ({1, 2}, "send a list"),
        ({"a": 1}.keys(), "send a list"),
        (Name("x"), "send str() of it"),
        (OrderedDict(a=1), "send dict() of it"),
        (Basket(), CLASS),
        (Holder(Basket()), CLASS),
        (Basket, CLASS),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_no_message_can_carry_says_what_could_be_sent(data: Any, instead: str) -> None:
    inner = data.inside if isinstance(data, Holder) else data
    for sent in (data, [data]):
        with pytest.raises(TypeError) as caught:
            Packer(2**24, 2**12).pack("name", sent)
        assert (
            str(caught.value) == f"a message can't carry data of type {type(inner).__qualname__}: {instead}"
        )


def test_a_coroutine_that_was_not_awaited_says_so() -> None:
    async def answer() -> int:
        return 1

    coroutine = answer()
    with pytest.raises(TypeError, match="type coroutine: await it first"):
        Packer(2**24, 2**12).pack("name", coroutine)
    coroutine.close()
