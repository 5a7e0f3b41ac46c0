"""Batches by both engines: whatever the bytes are, and whatever becomes of them, both show the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc.wire.arena import BLOCK_HEADER_BYTES, block_header
from asgi_ipc.wire.payload import join_batch
from tests import strategies
from tests.encoding import encode_message
from tests.engines import variant

MODULE = "asgi_ipc.wire.batch"
MIB = 1024 * 1024
SERIAL = 7

_data = st.text(max_size=40) | st.binary(max_size=300) | st.integers(-(2**63), 2**64 - 1) | strategies.data
_extras = st.none() | st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2)
_messages = st.tuples(st.sampled_from(["a", "\u00e9"]) | strategies.names, _data, _extras)


@pytest.fixture(scope="module")
def both() -> tuple[Any, Any]:
    return variant(MODULE, "pure"), variant(MODULE, "native")


def seen(batch: Any) -> str:
    """All that a batch shows, with the types."""
    return repr(
        (
            (batch.name, batch.data, batch.extra, batch.left),
            (batch.each_bytes, batch.spoilt, batch.is_overwritten, batch.is_in_block),
        )
    )


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A batch in which some bytes were changed, cut out or put in."""
    sent = draw(st.lists(_messages, max_size=6))
    payload = bytearray(
        join_batch([encode_message(name, data, MIB, extra or None) for name, data, extra in sent])
    )
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(payload)))
        until = min(place + draw(st.integers(0, 3)), len(payload))
        payload[place:until] = draw(st.binary(max_size=3))
    return bytes(payload)


def opened(batch: Any, way: str, memory: bytearray, place: tuple[int, int], length: int) -> bool:
    """Open the batch that lies there, behind a block's header."""
    offset, announced_bytes = place
    start = offset + BLOCK_HEADER_BYTES
    if way == "block":
        result = batch.open_block(memoryview(memory), SERIAL, offset, announced_bytes)
    else:
        content = bytes(memory) if way == "bytes" else memoryview(memory)
        result = batch.open(content, start, start + length)
    assert type(result) is bool
    return bool(result)


@given(st.data())
def test_both_show_the_same_of_a_batch_that_changes_while_it_is_read(
    both: tuple[Any, Any], data: st.DataObject
) -> None:
    batches = [each.Batch() for each in both]
    for _ in range(data.draw(st.integers(1, 3))):
        payload = data.draw(mutated())
        offset, behind = data.draw(st.integers(0, 20)), data.draw(st.integers(0, 20))
        announced_bytes = len(payload) + data.draw(st.sampled_from([0, 0, 0, 1, 100]))
        memory = bytearray(offset) + block_header(SERIAL, announced_bytes) + payload + bytes(behind)
        way = data.draw(st.sampled_from(["bytes", "view", "block"]))
        results = [opened(batch, way, memory, (offset, announced_bytes), len(payload)) for batch in batches]
        assert results[0] is results[1]
        assert seen(batches[0]) == seen(batches[1])
        for step in data.draw(st.lists(st.sampled_from(["next"] * 8 + ["overwrite", "copy", "drop"]))):
            if step == "overwrite":
                place = data.draw(st.integers(0, len(memory) - 1))
                some = data.draw(st.binary(max_size=8))[: len(memory) - place]
                memory[place : place + len(some)] = some
            elif step == "copy":
                assert [batch.copy_rest() for batch in batches] == [None, None]
            elif step == "drop":
                assert [batch.drop_rest() for batch in batches] == [None, None]
            else:
                found = [batch.next() for batch in batches]
                assert found[0] is found[1]
            assert seen(batches[0]) == seen(batches[1])


@given(st.integers(-3, 20), st.integers(-3, 20))
def test_both_refuse_a_range_beyond_the_content_with_the_same_words(
    both: tuple[Any, Any], start: int, stop: int
) -> None:
    content = join_batch([encode_message("name", 1, MIB)])
    if 0 <= start <= stop <= len(content):
        opens = [each.Batch().open(content, start, stop) for each in both]
        assert opens == [start == 0 and stop == len(content)] * 2
        return
    words = set()
    for each in both:
        batch = each.Batch.of([("other", 1, None)])
        with pytest.raises(ValueError, match="have no batch from") as caught:
            batch.open(content, start, stop)
        words.add(str(caught.value))
        assert not batch.next()
    assert len(words) == 1
