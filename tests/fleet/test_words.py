"""Lifeline words: there and back over any chunking, and what is no word."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc.fleet import words
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.fleet.words import (
    MAX_WORD_BYTES,
    ToLauncher,
    ToWorker,
    WordError,
    WordParser,
    decode_for_launcher,
    decode_for_worker,
    encode_word,
)
from tests import strategies
from tests.strategies import chunked

_generations = st.integers(1, 2**32 - 1)
_workers = st.builds(Worker, st.integers(1, 2**22), st.integers(0, 1000), _generations)
_texts = st.text(max_size=50)

# With lone surrogates, as os.fsdecode makes them of bytes that are no UTF-8.
_any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
_plain = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.binary(max_size=5) | _any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)

to_worker: st.SearchStrategy[ToWorker] = st.one_of(
    st.builds(
        words.Handover,
        slot=st.integers(0, 1000),
        generation=_generations,
        settings=st.builds(Settings, cookie=strategies.cookies, drain_timeout=st.floats(0, 1e6)),
        interpreter=st.builds(words.Interpreter, st.lists(_texts, max_size=5), st.lists(_texts, max_size=5)),
        uvicorn=st.dictionaries(_texts, st.none() | st.booleans() | st.integers(0, 9) | _texts, max_size=5),
    ),
    st.builds(words.Welcome, st.lists(_workers, max_size=70)),
    st.builds(words.Joined, _workers),
    st.builds(words.WriteEnd, _generations),
    st.builds(words.Entered, st.lists(st.integers(1, 2**22), max_size=5)),
    st.builds(words.Left, _generations),
    st.builds(words.Gone, _generations, _texts),
    st.builds(words.Leads, st.none() | _workers),
    st.builds(words.Decided, st.integers(1, 2**40), st.none() | st.booleans()),
    st.builds(words.Stop, st.booleans()),
)
to_launcher: st.SearchStrategy[ToLauncher] = st.one_of(
    st.builds(words.Join),
    st.builds(words.Took, _generations, st.booleans(), st.booleans()),
    st.builds(words.Leaving),
    st.builds(words.Resigned),
    st.builds(words.Claim, st.integers(1, 2**40), st.sampled_from(["claim", "restart", "server"]), _texts),
    st.builds(words.Release, st.integers(1, 2**40), st.booleans()),
    st.builds(words.Drained, st.booleans(), st.integers(0, 2**40), st.integers(0, 2**40)),
    st.builds(words.Ready),
    st.builds(words.Failed, st.text()),
    st.builds(words.Retiring),
    st.builds(words.Beat),
    st.builds(words.Stuck, st.text()),
)


def heard(chunks: list[bytes]) -> list[bytes]:
    parser = WordParser()
    return [body for chunk in chunks for body in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("words_of", "decode"), [(to_worker, decode_for_worker), (to_launcher, decode_for_launcher)]
)
@given(data=st.data())
def test_words_are_heard_in_any_pieces(
    words_of: st.SearchStrategy[Any], decode: Callable[[bytes], Any], data: st.DataObject
) -> None:
    said = data.draw(st.lists(words_of, max_size=8))
    chunks = data.draw(chunked(b"".join(map(encode_word, said))))
    assert [decode(body) for body in heard(chunks)] == said


def test_a_word_longer_than_any_is_refused_before_it_is_read() -> None:
    assert WordParser().feed(struct.pack("<I", MAX_WORD_BYTES)) == []
    with pytest.raises(WordError, match="16777217 bytes"):
        WordParser().feed(struct.pack("<I", MAX_WORD_BYTES + 1))


def test_words_are_for_one_side_only() -> None:
    with pytest.raises(WordError):
        decode_for_launcher(encode_word(words.Left(1))[4:])
    with pytest.raises(WordError):
        decode_for_worker(encode_word(words.Ready())[4:])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\xc0",
        b"\x80",
        b"\x81\xa4word\xa6Nobody",
        b"\x81\xa4word\xa4Left",
        b"\x82\xa4word\xa4Left\xaageneration\xa1x",
        b"\x81\xa4word\xff",
        encode_word(words.Stop())[4:] + b"x",
        b"\x82\xa4word\xa6Failed\xa6reason\xa1\xff",
        b"\x82\xa4word\xa4Gone\xa6reason\xa1\xff",
    ],
)
def test_garbage_is_no_word_for_anybody(body: bytes) -> None:
    with pytest.raises(WordError):
        decode_for_worker(body)
    with pytest.raises(WordError):
        decode_for_launcher(body)


@given(_plain)
def test_any_text_of_python_goes_over_a_lifeline_and_comes_back_the_same(value: Any) -> None:
    said = words.Handover(
        0, 1, Settings(cookie=b"12345678"), words.Interpreter([]), words.encodable({"given": value})
    )
    heard_word = decode_for_worker(encode_word(said)[4:])
    assert isinstance(heard_word, words.Handover)
    assert heard_word.uvicorn == {"given": value}


def test_what_is_utf_8_travels_as_it_is_and_a_lone_surrogate_as_an_extension() -> None:
    assert words.encodable(["caf\u00e9", {"a": (1, "b")}]) == ["caf\u00e9", {"a": [1, "b"]}]
    assert words.encodable(["\udc80"]) == [msgspec.msgpack.Ext(1, b"\xed\xb2\x80")]


def test_another_extension_is_no_word() -> None:
    said = words.Handover(
        0, 1, Settings(cookie=b"12345678"), words.Interpreter([msgspec.msgpack.Ext(2, b"x")]), {}
    )
    with pytest.raises(WordError, match="extension 2"):
        decode_for_worker(encode_word(said)[4:])


@given(st.binary(max_size=60))
def test_whatever_the_bytes_are_the_answer_is_a_word_or_a_word_error(body: bytes) -> None:
    decode: Any
    for decode in (decode_for_worker, decode_for_launcher):
        try:
            word = decode(body)
        except WordError:
            continue
        assert decode(encode_word(word)[4:]) == word
