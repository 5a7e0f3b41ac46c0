"""The demo's chat: the rules for a line, the number that is kept, and their order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.room import (
    MAX_LINES,
    MAX_LINES_AT_ONCE,
    MAX_LINES_PER_S,
    MAX_NAME_CHARS,
    MAX_TEXT_CHARS,
    MAX_WORD_CHARS,
    Conversation,
    Line,
    Pace,
    Said,
    read,
)

ID = "0123456789abcdef" * 2


def word(**changes: Any) -> str:
    return json.dumps({"id": ID, "name": "Otter", "hue": 120, "text": "hello"} | changes)


def line(number: int, at_us: int, pid: int = 1) -> Line:
    return Line(id=f"{number:032x}", name="Otter", hue=120, text="hello", at_us=at_us, pid=pid, slot=0)


def test_what_a_page_says_is_read_without_the_space_around_it() -> None:
    assert read(word(name=" Otter ", text=" <b>hi</b>\n🙂 ")) == Said(ID, "Otter", 120, "<b>hi</b>\n🙂")


def test_the_longest_line_is_read_however_json_writes_it() -> None:
    said = read(word(name="\U0001f642" * MAX_NAME_CHARS, text="\U0001f642" * MAX_TEXT_CHARS))
    assert said is not None
    assert len(said.text) == MAX_TEXT_CHARS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "hello",
        "[" * 1500,
        word() + " " * MAX_WORD_CHARS,
        word(id=ID[1:]),
        word(id=ID.upper()),
        word(id=7),
        word(name=" "),
        word(name="x" * (MAX_NAME_CHARS + 1)),
        word(hue=360),
        word(hue=-1),
        word(hue=1.5),
        word(hue="red"),
        word(text=""),
        word(text=" \n"),
        word(text="x" * (MAX_TEXT_CHARS + 1)),
        word(text=None),
        word(text="\ud800"),
        word(name="\udfff"),
        json.dumps({"id": ID, "text": "nobody says this"}),
    ],
)
def test_what_no_page_of_ours_sends_is_no_line(text: str) -> None:
    assert read(text) is None


@given(st.data())
def test_all_who_hear_the_same_show_the_same_in_whichever_order_they_hear_it(data: st.DataObject) -> None:
    """Also of a line sent twice, through two workers, at two times."""
    said = data.draw(st.lists(st.builds(line, st.integers(0, 9), st.integers(0, 9), st.integers(1, 3))))
    one, other = Conversation(), Conversation()
    for each in said:
        one.add(each)
    for each in data.draw(st.permutations(said)):
        other.add(each)
    assert one.since(0) == other.since(0)
    times = [each["at_us"] for each in one.since(0)]
    assert times == sorted(times)
    assert {each["id"] for each in one.since(0)} == {each["id"] for each in said}


def test_the_oldest_are_forgotten_and_do_not_come_back() -> None:
    room = Conversation()
    for number in range(MAX_LINES + 1):
        assert room.add(line(number, 1000 + number))
    assert [each["at_us"] for each in room.since(0)] == [1000 + number for number in range(1, MAX_LINES + 1)]
    assert line(0, 1000)["id"] not in room
    assert not room.add(line(0, 1000))
    assert len(room.since(0)) == MAX_LINES


def test_a_page_is_told_only_what_is_new_to_it() -> None:
    room = Conversation()
    room.add(line(1, 10))
    told = room.count
    assert not room.add(line(1, 10))
    assert not room.add(line(1, 11))
    assert room.since(told) == []
    # It was said earlier than was thought: that is news.
    assert room.add(line(1, 9))
    assert room.add(line(2, 5))
    assert [each["at_us"] for each in room.since(told)] == [5, 9]


def test_an_answer_comes_behind_what_it_answers_whatever_the_clock_says() -> None:
    room = Conversation()
    room.add(line(1, 5000))
    assert room.stamp(4000) == 5001
    assert room.stamp(4000) == 5002
    assert room.stamp(9000) == 9000


def test_a_page_that_says_too_much_waits_and_the_others_do_not() -> None:
    fast, slow = Pace(), Pace()
    waits = [fast.wait_s(100.0) for _ in range(MAX_LINES_AT_ONCE + 2)]
    assert waits[:MAX_LINES_AT_ONCE] == pytest.approx([0.0] * MAX_LINES_AT_ONCE)
    assert waits[MAX_LINES_AT_ONCE:] == pytest.approx([1 / MAX_LINES_PER_S, 2 / MAX_LINES_PER_S])
    assert [slow.wait_s(100.0 + number / MAX_LINES_PER_S) for number in range(1000)] == pytest.approx(
        [0.0] * 1000
    )
