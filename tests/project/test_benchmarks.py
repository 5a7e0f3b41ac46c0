"""The pure parts of the benchmarks: no figure counts if a message was lost, altered or out of order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cases import CASES, SHAPES
from benchmarks.control import Facts, Order
from benchmarks.judgement import BenchmarkError, Run, judge, percentile
from benchmarks.party import turns
from benchmarks.payloads import Inbox, payloads
from benchmarks.results import Circumstances, Record, Result, ratio
from benchmarks.rounds import Extent

SIZES = [10, 100, 1024, 5000]


def inbox(senders: list[int], count: int, size_bytes: int) -> tuple[Inbox, list[bool]]:
    """An inbox, and what is not empty once it is done."""
    done: list[bool] = []
    return Inbox(senders, count, size_bytes, lambda: done.append(True)), done


def order(**changes: object) -> Order:
    first = Order(pattern="one", verb="nowait", handler="plain", size_bytes=10, count=5, pids=[7, 8])
    return msgspec.structs.replace(first, **changes)


@pytest.mark.parametrize("size_bytes", SIZES)
def test_payloads_are_all_different_and_of_their_size(size_bytes: int) -> None:
    sent = [message for sender in range(3) for message in payloads(sender, 100, size_bytes)]
    assert len(set(sent)) == 300
    assert {len(message) for message in sent} == {size_bytes}


def test_a_payload_without_room_for_its_number_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 10 bytes, not 9"):
        payloads(0, 1, 9)


@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize("count", [1, 2, 50])
def test_an_inbox_is_done_with_the_last_message_and_not_before(count: int, size_bytes: int) -> None:
    box, done = inbox([0], count, size_bytes)
    for number, message in enumerate(payloads(0, count, size_bytes)):
        assert (box.taken, box.ended_ns, done) == (number, 0, [])
        box.take(message)
    assert (box.taken, box.wrong, done) == (count, 0, [True])
    assert box.ended_ns > 0


@pytest.mark.parametrize("size_bytes", SIZES)
def test_an_async_handler_judges_alike(size_bytes: int) -> None:
    async def take(box: Inbox) -> None:
        for message in payloads(0, 20, size_bytes):
            await box.take_async(message)

    box, done = inbox([0], 20, size_bytes)
    asyncio.run(take(box))
    assert (box.taken, box.wrong, done) == (20, 0, [True])
    box, done = inbox([1], 20, size_bytes)
    asyncio.run(take(box))
    assert (box.taken, box.wrong) == (20, 20)


def altered(messages: list[bytes]) -> list[bytes]:
    return [*messages[:4], messages[4][:-1] + b"~", *messages[5:]]


def swapped(messages: list[bytes]) -> list[bytes]:
    return [*messages[:4], messages[5], messages[4], *messages[6:]]


def lost(messages: list[bytes]) -> list[bytes]:
    return [*messages[:4], *messages[5:]]


def repeated(messages: list[bytes]) -> list[bytes]:
    return [*messages[:4], messages[3], *messages[4:-1]]


def cut(messages: list[bytes]) -> list[bytes]:
    return [*messages[:4], messages[4][:-1], *messages[5:]]


@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize("fault", [altered, swapped, lost, repeated, cut])
def test_an_inbox_finds_every_fault(fault: Callable[[list[bytes]], list[bytes]], size_bytes: int) -> None:
    box, done = inbox([0], 10, size_bytes)
    for message in fault(list(payloads(0, 10, size_bytes))):
        box.take(message)
    assert box.wrong > 0
    assert box.wrong_at[0] == 4
    assert bool(done) == (box.taken == 10)


def test_the_last_message_is_compared_as_well() -> None:
    box, done = inbox([0], 3, 10)
    *first, last = payloads(0, 3, 10)
    for message in (*first, last[:-1] + b"~"):
        box.take(message)
    assert (box.wrong, box.wrong_at, done) == (1, [2], [True])


def test_a_message_behind_the_last_is_wrong() -> None:
    box, _ = inbox([0], 2, 10)
    for message in (*payloads(0, 2, 10), b"A000000001", b"A000000002"):
        box.take(message)
    assert (box.taken, box.wrong) == (2, 2)


@given(st.permutations([0] * 6 + [1] * 6 + [2] * 6))
def test_an_inbox_of_several_senders_keeps_them_apart(turn_of: list[int]) -> None:
    box, done = inbox([0, 1, 2], 6, 10)
    sent = {sender: iter(payloads(sender, 6, 10)) for sender in (0, 1, 2)}
    for sender in turn_of:
        assert not done
        box.take(next(sent[sender]))
    assert (box.taken, box.wrong, done) == (18, 0, [True])


def test_an_inbox_without_senders_is_done_at_once() -> None:
    assert inbox([], 10, 10)[1] == [True]


@given(st.lists(st.binary(max_size=3), max_size=50), st.integers(1, 10))
def test_turns_are_the_messages_in_pieces(messages: list[bytes], length: int) -> None:
    pieces = [list(piece) for piece in turns(messages, length)]
    assert [message for piece in pieces for message in piece] == messages
    assert all(len(piece) == length for piece in pieces[:-1])


def test_a_run_is_measured_from_the_first_send_to_the_last_handler_call() -> None:
    facts = [
        Facts(started_ns=1_000, ended_ns=9_000, taken=10, cpu_from_ns=50_000),
        Facts(started_ns=1_500, ended_ns=6_000, taken=10, cpu_from_ns=70_000),
        Facts(started_ns=2_000, ended_ns=11_000, taken=10, cpu_from_ns=90_000),
    ]
    run = judge(order(pattern="all", pids=[7, 8, 9]), facts, [60_000, 82_000, 98_000])
    assert (run.senders, run.receivers, run.duration_ns) == ([7, 8, 9], [7, 8, 9], 10_000)
    assert run.per_second == pytest.approx(3_000_000)
    # Of all three, for each of 30 deliveries.
    assert run.cpu_us == pytest.approx(1)


SENT, GOT = Facts(started_ns=1), Facts(ended_ns=9, taken=5)


@pytest.mark.parametrize(
    ("change", "facts", "complaint"),
    [
        ({}, [SENT, Facts(ended_ns=9, taken=4)], "party 1 .* got 4 of 5"),
        ({}, [SENT, Facts(ended_ns=9, taken=5, wrong=2, wrong_at=[3])], "2 messages altered .* at .3"),
        ({}, [SENT, Facts(ended_ns=9, taken=5, troubles={"gap": 1})], "dropped or failed: .'gap': 1"),
        ({}, [Facts(started_ns=9), Facts(ended_ns=9, taken=5)], "before the first send"),
        ({}, [Facts(), GOT], "before the first send"),
        ({"pids": [7, 7]}, [SENT, GOT], "not a process for each"),
        ({"pattern": "ask"}, [Facts(times_ns=[1] * 4), Facts()], "4 replies to 5 questions"),
    ],
)  # fmt: skip
def test_a_run_that_is_not_as_it_must_be_does_not_count(
    change: dict[str, object], facts: list[Facts], complaint: str
) -> None:
    assert judge(order(), [SENT, GOT], [0, 0]).per_second > 0
    with pytest.raises(BenchmarkError, match=complaint):
        judge(order(**change), facts, [0, 0])


def test_round_trips_are_told_by_their_percentiles() -> None:
    times_ns = [number * 1000 for number in range(100, 0, -1)]
    run = judge(order(pattern="ask", count=100), [Facts(times_ns=times_ns), Facts()], [0, 0])
    assert (run.p50_us, run.p99_us) == (50.0, 99.0)
    assert percentile([1, 2, 3], 50) == 2


@given(st.integers(1, 40), st.integers(1, 40))
def test_runs_are_spread_over_the_starts_and_no_start_is_without(runs: int, starts: int) -> None:
    shares = Extent(runs, starts, 0.1).runs_of_starts
    assert sum(shares) == runs
    assert len(shares) == min(runs, starts)
    assert 1 <= min(shares) <= max(shares) <= min(shares) + 1


def test_names_are_given_once() -> None:
    for names in ([case.name for case in CASES], [shape.name for shape in SHAPES]):
        assert len(set(names)) == len(names)


def result(subject: str, rates: list[float]) -> Result:
    runs = [Run([1], [2], 1, rate) for rate in rates]
    return Result(subject=subject, loop="", case="x", shape="x", group=3, count=1, runs=runs)


def test_ratios_are_taken_within_a_round() -> None:
    # A machine that slows down to a tenth from round to round.
    assert ratio(result("a", [200.0, 20.0, 2.0]), result("b", [100.0, 10.0, 1.0])) == 2.0


def test_a_record_is_read_as_it_was_written() -> None:
    where = Circumstances("now", "c0ffee", False, "a cpu", 2, "Linux", 0.1, {"python": "3"})
    record = Record(where, [result("a", [1.0, 2.0])])
    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record
    assert record.find("a", "", "x") is record.results[0]
    assert record.find("a", "", "x", group=4) is None
