"""Who is told when a worker joins or has gone: in what order, how often, and with what."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Any

import pytest

from asgi_ipc import IPC, Worker
from asgi_ipc.fleet.words import Joined, encode_word
from asgi_ipc.wire.packet import BATCH, encode_packet
from asgi_ipc.wire.payload import join_batch
from asgi_ipc.worker.endpoint import Endpoint
from tests.encoding import encode_message
from tests.inprocess import COOKIE, MIB, Member, fleet, until


def watch(member: Member) -> list[tuple[Any, ...]]:
    """What this member is told from now on, in a list that grows; its notes stand there, too."""
    told: list[tuple[Any, ...]] = []
    member.ipc.on_join(lambda worker: told.append(("join", worker)))
    member.ipc.on_leave(lambda worker, reason, lost: told.append(("leave", worker, reason, lost)))
    member.ipc.receive("note", lambda data: told.append(("note", data)))
    return told


# --- who is told


async def test_every_member_is_told_once_of_every_join_and_every_departure() -> None:
    async with fleet(2) as (launcher, (a, b)):
        told = {member.pid: watch(member) for member in (a, b)}
        c, d = launcher.new(slot=2), launcher.new(slot=3)
        told[c.pid], told[d.pid] = watch(c), watch(d)
        async with launcher.joined(c):
            async with launcher.joined(d):
                launcher.kill(b)
                await until(lambda: all(("leave", b.worker, "killed", 0) in told[m.pid] for m in (a, c, d)))
            launcher.bury(d, "replaced")
            await until(lambda: told[c.pid][-1][0:2] == ("leave", d.worker))
        launcher.bury(c, "left")
        await until(lambda: told[a.pid][-1][0:2] == ("leave", c.worker))
    joined_c, joined_d = ("join", c.worker), ("join", d.worker)
    left_b, left_d = ("leave", b.worker, "killed", 0), ("leave", d.worker, "replaced", 0)
    assert told[a.pid] == [joined_c, joined_d, left_b, left_d, ("leave", c.worker, "left", 0)]
    assert told[b.pid] == [joined_c, joined_d]
    # Nobody is told of itself, nor a newcomer of those who are here.
    assert told[c.pid] == [joined_d, left_b, left_d]
    assert told[d.pid] == [left_b]


async def test_who_joins_while_this_one_joins_is_told_of_when_it_can_be_addressed() -> None:
    async with fleet(1) as (launcher, (a,)):
        loop = asyncio.get_running_loop()
        first, second = launcher.new(slot=1), launcher.new(slot=2)
        told: list[Worker] = []

        @first.ipc.on_join
        def greet(worker: Worker) -> None:
            told.append(worker)
            first.ipc.send_nowait(worker, "note", "welcome")

        # Nobody has answered yet, so both are joining at the same time.
        loop.remove_reader(a.assignment.lifeline.fileno())
        async with asyncio.TaskGroup() as entering:
            entering.create_task(first.enter())
            await until(lambda: first.lifespan.is_entered and len(first.ipc.workers) == 2)
            entering.create_task(second.enter())
            await until(lambda: len(first.ipc.workers) == 3)
            assert told == []
            loop.add_reader(a.assignment.lifeline.fileno(), a.assignment.lifeline.drain)
        assert await second.until(1) == ["welcome"]
        assert told == [second.worker]
        await second.leave()
        await first.leave()


async def test_after_the_lifespan_nobody_is_told_and_no_write_end_is_kept() -> None:
    async with fleet(2) as (launcher, (a, b)):
        leaver = launcher.new(slot=2)
        told = watch(leaver)
        async with launcher.joined(leaver):
            endpoint: Endpoint = leaver.endpoint
        # Its process lives on, with the app's own shutdown; so does its lifeline.
        launcher.kill(b)
        await until(lambda: endpoint.outgoing.peers.find(b.worker.generation) is None)
        late = launcher.new(slot=3)
        read_end, write_end = os.pipe()
        socket.send_fds(leaver.lifeline, [encode_word(Joined(late.worker))], [write_end])
        os.close(write_end)
        leaver.assignment.lifeline.drain()
        assert os.read(read_end, 1) == b"", "its copy of the write end is closed"
        os.close(read_end)
        assert told == []
        launcher.bury(leaver, "left")
        await until(lambda: len(a.ipc.workers) == 1)


# --- in what order


async def test_a_departure_is_told_behind_the_last_message_however_late_that_is_read() -> None:
    async with fleet(2) as (launcher, (a, b)):
        told = watch(b)
        b.stop_reading()
        # As much as a pipe of the default size holds, or nearly.
        for number in range(500):
            await a.ipc.send(b.pid, "note", [number, bytes(50)])
        await until(a.endpoint.outgoing.is_empty)
        launcher.kill(a)
        await until(lambda: len(b.ipc.workers) == 1)
        assert told == []
        b.go_on_reading()
        await until(lambda: len(told) > 0 and told[-1][0] == "leave")
        assert [entry[1][0] for entry in told[:-1]] == list(range(500))
        assert told[-1] == ("leave", a.worker, "killed", 0)


async def test_a_departure_is_told_when_async_and_ordered_handlers_have_had_their_turn() -> None:
    async with fleet(2) as (launcher, (a, b)):
        begun: list[Any] = []
        gate = asyncio.Event()

        async def waits(data: Any) -> None:
            begun.append(data)
            await gate.wait()

        async def gone(worker: Worker, reason: str, lost: int) -> None:
            begun.append(worker)

        b.ipc.receive("any order", waits)
        b.ipc.receive("one by one", waits, ordered=True)
        b.ipc.on_leave(gone)
        for number in range(3):
            await a.ipc.send(b.pid, "any order", ("any order", number))
            await a.ipc.send(b.pid, "one by one", ("one by one", number))
        await until(a.endpoint.outgoing.is_empty)
        launcher.kill(a)
        await until(lambda: b.endpoint.outgoing.peers.find(a.worker.generation) is None and len(begun) == 4)
        for _ in range(20):
            await asyncio.sleep(0)
        # Two of the dead's messages wait for the first of their lane to finish.
        assert begun == [["any order", 0], ["one by one", 0], ["any order", 1], ["any order", 2]]
        gate.set()
        await until(lambda: len(begun) == 7)
        assert begun[4:] == [["one by one", 1], ["one by one", 2], a.worker]


async def test_a_newcomer_is_told_of_before_its_first_message_even_if_that_comes_first() -> None:
    async with fleet(1) as (launcher, (a,)):
        told = watch(a)
        newcomer = launcher.new(slot=1)
        read_end, write_end = os.pipe()
        # The word is on the lifeline, and the packet in hand, before the loop turns.
        socket.send_fds(launcher.members[1].lifeline, [encode_word(Joined(newcomer.worker))], [write_end])
        payload = join_batch([encode_message("note", "first", 1000)])
        packet = encode_packet(COOKIE, newcomer.worker.generation, 1, 0, BATCH, payload)
        a.endpoint.incoming._on_bytes(packet, True)
        await until(lambda: len(told) == 2)
        assert told == [("join", newcomer.worker), ("note", "first")]
        os.close(read_end)
        os.close(write_end)


# --- how many are lost


async def test_lost_counts_what_this_worker_had_accepted_for_it_and_nobody_elses() -> None:
    async with fleet(4, has_arena=False) as (launcher, (a, b, c, d)):
        told = {member.pid: watch(member) for member in (a, b)}
        c.stop_reading()
        d.stop_reading()
        # More than the pipe holds, so that the last ones stay in the outbox.
        for _ in range(3):
            a.ipc.send_nowait(c.pid, "note", bytes(MIB))
        small = 7
        for number in range(small):
            a.ipc.send_nowait(d.pid, "note", [number, bytes(20_000)])
        await b.ipc.broadcast("note", bytes(2 * MIB), include_self=False)
        await until(lambda: told[a.pid][-1:] == [("note", bytes(2 * MIB))])
        left = a.endpoint.outgoing.peers.meant_by(d.pid).outbox.messages
        assert 0 < left < small
        launcher.kill(c)
        launcher.kill(d)
        await until(lambda: all(news[-1][:2] == ("leave", d.worker) for news in told.values()))
        leaves = [[entry[1:] for entry in told[m.pid] if entry[0] == "leave"] for m in (a, b)]
        # A message that was written in part has not left.
        assert leaves[0] == [(c.worker, "killed", 3), (d.worker, "killed", left)]
        assert leaves[1] == [(c.worker, "killed", 1), (d.worker, "killed", 1)]
        assert a.ipc.stats().dropped == {"lost": 3 + left}
        assert b.ipc.stats().dropped == {"lost": 2}


async def test_what_was_never_accepted_is_not_lost() -> None:
    async with fleet(2, has_arena=False) as (launcher, (a, b)):
        told = watch(a)
        b.stop_reading()
        # An outbox of 32 MiB takes three, with what they are wrapped in.
        accepted = a.fill(b, 8 * MIB)
        assert accepted == 3
        waiting = asyncio.create_task(a.ipc.send(b.pid, "note", bytes(8 * MIB), timeout=None))
        await asyncio.sleep(0)
        launcher.kill(b)
        await until(lambda: bool(told))
        assert told == [("leave", b.worker, "killed", accepted)]
        await asyncio.gather(waiting, return_exceptions=True)


# --- what callbacks may be and do


async def test_what_a_callback_raises_is_logged_and_counted_and_the_others_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with fleet(1) as (launcher, (a,)):
        told: list[Any] = []

        @a.ipc.on_join
        def fails(worker: Worker) -> None:
            raise LookupError("a plain one")

        @a.ipc.on_join
        async def fails_too(worker: Worker) -> None:
            raise LookupError("an async one")

        a.ipc.on_leave(lambda worker, reason, lost: told.append(worker, reason))  # type: ignore[call-arg]
        a.ipc.on_join(told.append)
        a.ipc.on_leave(lambda *news: told.append(news))
        newcomer = launcher.new(slot=1)
        with caplog.at_level(logging.ERROR, "asgi_ipc"):
            async with launcher.joined(newcomer):
                pass
            launcher.bury(newcomer, "left")
            await until(lambda: len(told) == 2)
        assert told == [newcomer.worker, (newcomer.worker, "left", 0)]
        assert a.ipc.stats().handler_errors == 3
        assert [record.getMessage() for record in caplog.records] == [
            f"worker [{a.pid}]: on_join failed",
            f"worker [{a.pid}]: on_join failed",
            f"worker [{a.pid}]: on_leave failed",
        ]
        for text in ("LookupError: a plain one", "LookupError: an async one", "TypeError: "):
            assert text in caplog.text


async def test_a_callback_runs_outside_any_message_and_never_twice_for_being_registered_twice() -> None:
    async with fleet(1) as (launcher, (a,)):
        senders: list[int | None] = []

        def joined(worker: Worker) -> None:
            senders.append(a.ipc.sender)

        a.ipc.on_join(joined)
        a.ipc.on_join(joined)
        newcomer = launcher.new(slot=1)
        async with launcher.joined(newcomer):
            await newcomer.ipc.send(a.pid, "note", "behind the news")
            await a.until(1)
        launcher.bury(newcomer, "left")
        assert senders == [None]


def test_a_callback_comes_back_unchanged_and_anything_else_is_refused() -> None:
    here = IPC()

    def joined(worker: Worker) -> None:
        raise AssertionError("never called")

    async def left(worker: Worker, reason: str, lost: int) -> None:
        raise AssertionError("never called")

    assert here.on_join(joined) is joined
    assert here.on_leave(left) is left
    for register in (here.on_join, here.on_leave):
        with pytest.raises(TypeError, match="a callback is a function, not str"):
            register("joined")  # type: ignore[type-var]
