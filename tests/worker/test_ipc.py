"""The verbs, through real worker processes: everything that the original does, and each error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.puppets import Puppets, RefusedError, puppets

Fleet = tuple[Puppets, list[int]]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["asyncio", "uvloop"])
async def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    folder = tmp_path_factory.mktemp("puppets")
    async with puppets(folder, "--loop", request.param, workers=3) as started:
        yield started
        assert await started[0].server.stop() == 0


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(server: Fleet) -> Fleet:
    strings, pids = server
    for pid in pids:
        await strings.call(pid, "reset")
    return server


async def _growth(strings: Puppets, pid: int, before: dict[str, Any], counter: str) -> int:
    after = await strings.call(pid, "stats")
    return int(after[counter] - before[counter])


async def test_a_message_reaches_that_worker_and_no_other_from_oneself_and_a_thread_too(fleet: Fleet) -> None:
    strings, (a, b, c) = fleet
    await strings.call(a, "send", b, "note", "hello")
    assert await strings.call(b, "received", 1) == [("note", a, "hello")]
    await strings.call(a, "send", a, "note", {"to": "me"})
    assert await strings.call(a, "received", 1) == [("note", a, {"to": "me"})]
    await strings.call(a, "thread_send", c, "from a thread")
    assert await strings.call(c, "received", 1) == [("note", a, "from a thread")]


async def test_broadcast_reaches_everyone_and_the_sender_and_says_who_took_it(fleet: Fleet) -> None:
    strings, pids = fleet
    took = await strings.call(pids[1], "broadcast", "note", b"\x00data")
    assert sorted(took) == sorted(pids)
    for pid in pids:
        assert await strings.call(pid, "received", 1) == [("note", pids[1], b"\x00data")]
    took = await strings.call(pids[1], "broadcast", "note", 2, include_self=False)
    assert sorted(took) == sorted({*pids} - {pids[1]})


async def test_broadcasts_without_waiting_all_arrive_and_so_does_what_comes_after(fleet: Fleet) -> None:
    strings, (a, b, c) = fleet
    await strings.call(a, "broadcast_nowait", "note", 3)
    for pid in (a, b, c):
        assert await strings.call(pid, "received", 3) == [("note", a, number) for number in range(3)]
    await strings.call(a, "send", c, "note", "after")
    assert (await strings.call(c, "received", 4))[-1] == ("note", a, "after")


async def test_reply_goes_to_the_sender_of_the_message_being_handled(fleet: Fleet) -> None:
    strings, (a, b, _) = fleet
    await strings.call(a, "send", b, "ask", "how")
    assert await strings.call(a, "received", 1) == [("note", b, ["answer", "how"])]
    await strings.call(b, "send", b, "ask", "self")
    assert (await strings.call(b, "received", 3))[1:] == [
        ("ask", b, "self"),
        ("note", b, ["answer", "self"]),
    ]


async def test_reply_outside_a_handler_raises_and_there_is_no_sender(fleet: Fleet) -> None:
    strings, (a, *_) = fleet
    with pytest.raises(RefusedError, match="OutsideHandlerError"):
        await strings.call(a, "reply", "note", "nobody")
    assert await strings.call(a, "outside") == [None, a, 0]


async def test_sender_survives_await_task_and_thread_and_two_handlers_at_once(fleet: Fleet) -> None:
    strings, (a, b, c) = fleet
    await strings.call(a, "send", c, "slow", "from a")
    await strings.call(b, "send", c, "slow", "from b")
    await strings.call(c, "received", 2)
    await strings.call(c, "open_gate")
    journal = await strings.call(c, "received", 8)
    for sender, data in ((a, "from a"), (b, "from b")):
        mine = [entry for entry in journal if entry[1] == sender]
        assert [(name, seen) for name, _, seen in mine] == [
            ("slow before", data),
            ("slow task", data),
            ("slow thread", sender),
            ("slow after", data),
        ]


async def test_a_handler_can_be_replaced_and_deleted_and_the_rest_is_discarded(fleet: Fleet) -> None:
    strings, (a, b, _) = fleet
    before = await strings.call(b, "stats")
    await strings.call(b, "redefine", "replace")
    await strings.call(a, "send", b, "note", 1)
    assert await strings.call(b, "received", 1) == [("plain", a, ["replaced", 1])]
    await strings.call(b, "redefine", "delete")
    await strings.call(a, "send", b, "note", 2)
    await strings.call(a, "send", b, "nobody listens", 3)
    await strings.call(a, "send", b, "plain", 4)
    assert (await strings.call(b, "received", 2))[1:] == [("plain", a, 4)]
    await strings.server.said(rf"worker \[{b}\] has no handler for messages named 'nobody listens'")
    assert await _growth(strings, b, before, "discarded") == 2


async def test_a_handler_that_raises_is_counted_and_the_next_message_arrives(fleet: Fleet) -> None:
    strings, (a, b, _) = fleet
    before = await strings.call(b, "stats")
    await strings.call(a, "send", b, "fail", "on purpose")
    await strings.call(a, "send", b, "note", "next")
    assert await strings.call(b, "received", 1) == [("note", a, "next")]
    assert await _growth(strings, b, before, "handler_errors") == 1
    await strings.server.said("ValueError: on purpose")
    await strings.server.said(rf"worker \[{b}\]: handler 'fail' of a message from worker {a} failed")


async def test_what_is_sent_is_what_arrives(fleet: Fleet) -> None:
    strings, (a, b, _) = fleet
    everything = ["", b"", "ünï\u2028code\n", b"\xff\x00", 0, -(2**63), 2**64 - 1, 1.5, None, True, [], {}]
    everything += [[1, ["two", {"three": [None]}]], {1: "int", b"k": "bytes", "k": {"nested": b"v"}}]
    for data in everything:
        await strings.call(a, "send", b, "note", data)
    journal = await strings.call(b, "received", len(everything))
    assert [(data, type(data)) for _, _, data in journal] == [(data, type(data)) for data in everything]


async def test_data_around_and_far_above_a_packet_arrives_whole_and_in_order(fleet: Fleet) -> None:
    strings, (a, b, _) = fleet
    sizes = [1, 4000, *range(4040, 4070), 8192, 65_536, 1_000_003, 3]
    for size in sizes:
        await strings.call(a, "sized", b, size)
    journal = await strings.call(b, "received", len(sizes))
    assert [(sender, len(data), set(data)) for _, sender, data in journal] == [
        (a, size, {"x"}) for size in sizes
    ]


async def test_the_largest_message_arrives_and_one_byte_more_is_refused(fleet: Fleet) -> None:
    strings, (a, b, _) = fleet
    largest = 16 * 1024 * 1024 - len(b"\x92\xa4note\xdb....")
    await strings.call(a, "sized", b, largest)
    with pytest.raises(RefusedError, match="MessageTooLargeError"):
        await strings.call(a, "sized", b, largest + 1)
    await strings.call(a, "send", b, "note", "still there")
    journal = await strings.call(b, "received", 2)
    assert [len(data) for _, _, data in journal] == [largest, len("still there")]


BAD_NAMES: list[Any] = ["", "n" * 255, "é" * 128, "tab\t", "nul\x00", 7, ["list"]]
BAD_DATA: list[tuple[Any, str]] = [
    ({1, 2}, "TypeError"),
    (2**64, "OverflowError"),
    ("\ud800", "UnicodeEncodeError"),
]


async def test_what_is_refused_in_the_sender_costs_nothing_else(fleet: Fleet) -> None:
    strings, (a, b, _) = fleet
    launcher = strings.server.pid
    refused: list[tuple[Any, Any, Any, str]] = [
        *((b, name, "data", "InvalidNameError") for name in BAD_NAMES),
        *((b, "note", data, error) for data, error in BAD_DATA),
        (launcher, "note", "x", f"UnknownWorkerError: no worker {launcher} is here now"),
        ("everyone", "note", "x", "TypeError"),
    ]
    for to, name, data, error in refused:
        with pytest.raises(RefusedError, match=error):
            await strings.call(a, "send", to, name, data)
    before = await strings.call(b, "stats")
    longest = "é" * 127
    await strings.call(a, "send", b, longest, "data")
    await strings.call(a, "send", b, "note", "good")
    assert await strings.call(b, "received", 1) == [("note", a, "good")]
    assert await _growth(strings, b, before, "discarded") == 1


async def test_a_receiver_that_does_not_read_gives_a_deadline_error_and_hurts_nobody(fleet: Fleet) -> None:
    strings, (a, b, c) = fleet
    before = await strings.call(a, "stats")
    await strings.call(a, "send", b, "block", 3.0)
    errors = await strings.call(a, "flood", b, 100_000, 100_000)
    assert errors == ["SendTimeoutError"]
    assert (await strings.call(a, "stats"))["outbox_bytes"][b] <= 32 * 1024 * 1024
    await strings.call(a, "send", c, "note", "meanwhile")
    assert await strings.call(c, "received", 1) == [("note", a, "meanwhile")]
    # Everything that was accepted arrives, in order.
    accepted = await _growth(strings, a, before, "sent") - len(["block", "meanwhile"])
    journal = await strings.call(b, "received", accepted)
    assert [int(data) for _, _, data in journal] == list(range(accepted))
