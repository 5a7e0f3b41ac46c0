"""Logs: nothing that somebody else has said can end a line, begin one, or change what is seen."""

from __future__ import annotations

import ast
import asyncio
import io
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc import InvalidNameError
from asgi_ipc.fleet.words import WordError, decode_for_launcher, decode_for_worker
from asgi_ipc.logs import error_text
from asgi_ipc.printable import MARGIN, MAX_SHOWN_CHARACTERS, printable, printable_lines
from asgi_ipc.wire.message import check_name
from asgi_ipc.wire.packet import BATCH, encode_packet
from asgi_ipc.wire.payload import join_batch
from tests.encoding import encode_unchecked
from tests.inprocess import COOKIE, Member, fleet, until
from tests.puppets import puppets
from tests.serving import serving

FORGED = "ERROR:    forged"
HOSTILE = {
    "newline": f"x\n{FORGED}",
    "carriage return": f"x\r\n{FORGED}",
    "ANSI colours and a cleared screen": f"\x1b[31mred\x1b[0m\x1b[2J\x1b[1;1H{FORGED}",
    "C1 controls": f"x\x85{FORGED}\x9b31m\x9d0;title\x9c",
    "Unicode's line and paragraph separators": f"x\u2028{FORGED}\u2029{FORGED}",
    "vertical tab, form feed, information separators": f"x\v{FORGED}\f{FORGED}\x1c{FORGED}\x1e{FORGED}",
    "text that runs backwards": "x\u202e\u2066\u2069\u200f" + FORGED[::-1],
    "backspaces and a bell": "x\b\b\b\b\a\x7f",
    "the end of a string": f"x\0{FORGED}",
    "nothing to be seen": "x\ufeff\u200b\u2060\U000e0041",
}
# What no message can carry, but an exception or a word can.
SURROGATES = f"x\ud800\udfff{FORGED}"
TEXTS = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())


@pytest.fixture
def heard() -> Iterator[io.StringIO]:
    """What a handler of the standard library writes for the records of the package."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.getLogger("asgi_ipc").addHandler(handler)
    yield stream
    logging.getLogger("asgi_ipc").removeHandler(handler)


def check_lines(text: str) -> None:
    """Every line is printable, however lines are told apart, and none is forged."""
    lines = text.removesuffix("\n").split("\n") if text else []
    assert lines == text.splitlines()
    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if line.startswith(FORGED)] == []


# --- the texts themselves


@given(st.text(st.characters(codec="utf-8", exclude_characters='\\"')))
def test_what_is_printable_is_left_as_it_is_and_the_rest_is_escaped_as_python_would(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()
    assert ast.literal_eval(f'"{shown}"') == text


def test_a_long_text_is_shown_by_its_beginning() -> None:
    assert printable("x" * MAX_SHOWN_CHARACTERS) == "x" * MAX_SHOWN_CHARACTERS
    assert (
        printable("x" * (MAX_SHOWN_CHARACTERS + 5))
        == "x" * MAX_SHOWN_CHARACTERS + "... and 5 characters more"
    )


def test_further_lines_have_a_margin() -> None:
    assert (
        printable_lines("Traceback:\n  File\r\n\nend")
        == f"Traceback:\n{MARGIN}  File\\r\n{MARGIN}\n{MARGIN}end"
    )


def _raised(first: Exception, second: Exception | None = None, cause: Exception | None = None) -> Exception:
    """The first error, raised; or the second one, raised while the first was handled."""
    with pytest.raises(Exception) as caught:  # noqa: PT011, PT012
        try:
            raise first
        except type(first):
            if second is None:
                raise
            if cause is None:
                raise second  # noqa: B904
            raise second from cause
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        ValueError("one line"),
        _raised(ValueError("it has a traceback")),
        _raised(ValueError("first"), LookupError("while it was handled")),
        _raised(ValueError("suppressed"), LookupError("from another"), cause=OSError(2, "the cause")),
        KeyError(),
    ],
    ids=repr,
)
def test_an_ordinary_error_looks_as_python_prints_it(error: Exception) -> None:
    assert error_text(error) == "".join(traceback.format_exception(error)).rstrip("\n")


def _noted(text: str) -> Exception:
    error = ValueError("noted")
    error.add_note(text)
    return error


def _misspelt(text: str) -> Exception:
    with pytest.raises(SyntaxError) as caught:
        compile(f"'{text}", text, "exec")
    return caught.value


MAKERS: dict[str, Callable[[str], Exception]] = {
    "its text": ValueError,
    "a note": _noted,
    "its cause": lambda text: _raised(ValueError("outer"), LookupError("outer"), cause=KeyError(text)),
    "its context": lambda text: _raised(ValueError(text), LookupError("outer")),
    "one of a group": lambda text: ExceptionGroup(
        text, [ValueError(text), ExceptionGroup("in", [OSError(text)])]
    ),
    "its class": lambda text: type(text.replace("\0", "").replace("\ud800\udfff", ""), (Exception,), {})("x"),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
@pytest.mark.parametrize("text", [*HOSTILE.values(), SURROGATES], ids=[*HOSTILE, "surrogates"])
def test_wherever_an_error_quotes_it_it_is_escaped(make: Callable[[str], Exception], text: str) -> None:
    shown = error_text(make(text))
    assert "x" in shown
    check_lines(shown)


@pytest.mark.parametrize("text", [text for text in HOSTILE.values() if "\0" not in text])
def test_source_that_is_no_python_is_escaped_too(text: str) -> None:
    check_lines(error_text(_misspelt(text)))


def test_of_an_error_that_cannot_be_shown_its_class_is() -> None:
    class EvilError(Exception):
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert "EvilError" in error_text(EvilError())


def test_a_group_of_many_and_a_deep_one_stay_readable() -> None:
    assert len(error_text(ExceptionGroup("many", [ValueError(n) for n in range(1000)])).split("\n")) < 50
    deep: Exception = ValueError("leaf")
    for _ in range(200):
        deep = ExceptionGroup("deeper", [deep])
    assert len(error_text(deep).split("\n")) < 50


# --- from the wire to the log


def _forge(receiver: Member, sender: int, *messages: tuple[str, Any]) -> None:
    """A packet with the run's cookie, as one write into the receiver's pipe."""
    payload = join_batch([encode_unchecked(name, data) for name, data in messages])
    os.write(receiver.write_end, encode_packet(COOKIE, sender, receiver.worker.generation, 0, BATCH, payload))


@TEXTS
async def test_a_name_from_the_wire_is_no_name_or_is_logged_escaped(text: str, heard: io.StringIO) -> None:
    async with fleet(2, has_arena=False) as (_, (a, b)):
        _forge(b, a.worker.generation, (text, "data"), ("note", "behind it"))
        await b.until(1)
        stats = b.ipc.stats()
        try:
            check_name(text)
        except InvalidNameError:
            assert (stats.dropped, heard.getvalue()) == ({"invalid_name": 1}, "")
        else:
            assert (stats.discarded, stats.dropped) == (1, {})
            assert f"named {text!r}" in heard.getvalue()
        check_lines(heard.getvalue())


@TEXTS
@pytest.mark.parametrize("kind", ["plain", "async", "cancelled"])
async def test_what_a_handler_raises_with_data_from_the_wire_is_logged_escaped(
    text: str, kind: str, heard: io.StringIO
) -> None:
    async with fleet(2, has_arena=False) as (_, (a, b)):

        def plain(data: Any) -> None:
            raise ValueError(data)

        async def later(data: Any) -> None:
            await asyncio.sleep(0)
            raise LookupError(data["key"]) from ValueError(data["key"])

        async def cancelled(data: Any) -> None:
            raise asyncio.CancelledError(data)

        b.ipc.receive({"plain": plain, "async": later, "cancelled": cancelled})
        data = {"key": text} if kind == "async" else text
        _forge(b, a.worker.generation, (kind, data), ("note", "behind it"))
        await b.until(1)
        await until(lambda: b.ipc.stats().handler_errors == 1)
        assert kind in heard.getvalue()
        assert kind == "cancelled" or "Error: " in heard.getvalue()
        check_lines(heard.getvalue())


async def test_the_error_itself_stays_with_the_record_for_those_who_send_it_elsewhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with fleet(1) as (_, (a,)):

        def fails(data: Any) -> None:
            raise ValueError(data)

        a.ipc.receive("fails", fails)
        await a.ipc.send(a.pid, "fails", "x\ny")
        await until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert record.exc_info is not None
    assert repr(record.exc_info[1]) == repr(ValueError("x\ny"))


async def test_a_servers_log_has_no_line_that_somebody_else_has_written(tmp_path: Path) -> None:
    async with puppets(tmp_path) as (strings, (a, b)):
        for text in HOSTILE.values():
            await strings.call(a, "send", b, "fail", text)
        named = HOSTILE["Unicode's line and paragraph separators"]
        await strings.call(a, "send", b, named)
        await strings.server.said("has no handler for messages named")
        assert await strings.server.stop() == 0
        assert strings.server.count("ValueError: ") == len(HOSTILE)
        check_lines(strings.server.text)


# --- between the launcher and its workers


@pytest.mark.parametrize("decode", [decode_for_launcher, decode_for_worker])
@TEXTS
def test_what_is_no_word_is_quoted_escaped(decode: Callable[[bytes], Any], text: str) -> None:
    with pytest.raises(WordError) as caught:
        decode(msgspec.msgpack.encode({"word": text}))
    assert "Invalid value" in str(caught.value)
    check_lines(str(caught.value))


async def test_why_an_app_cannot_start_is_told_with_a_margin_and_escaped(tmp_path: Path) -> None:
    reason = f"broken on purpose {''.join(HOSTILE[key] for key in HOSTILE if chr(0) not in HOSTILE[key])}"
    async with serving("tests.apps.broken_start:app", workers=2, env={"BROKEN_BECAUSE": reason}) as server:
        assert await server.ended() == 3
    assert server.count(r"RuntimeError: broken on purpose ") == 1
    assert server.count(r"\\x1b\[31mred") == 1
    check_lines(server.text)
