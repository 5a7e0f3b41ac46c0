"""Texts: whatever Python has as a str goes over a lifeline and comes back the same."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc.fleet.texts import carried, restored

# With lone surrogates, as os.fsdecode makes them of bytes that are no UTF-8.
_any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
_plain = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.binary(max_size=5) | _any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(_plain)
def test_what_is_carried_is_restored_from_its_bytes(value: Any) -> None:
    assert restored(msgspec.msgpack.decode(msgspec.msgpack.encode(carried(value)))) == value


def test_what_is_utf_8_travels_as_it_is() -> None:
    assert carried(["caf\u00e9", {"a": (1, "b")}]) == ["caf\u00e9", {"a": [1, "b"]}]
