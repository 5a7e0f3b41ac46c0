"""Stats: every counter moves when it should, and at a drain deadline both sides account for everything."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import Any

import pytest

from asgi_ipc import IPC, NotRunningError, Stats, Worker
from asgi_ipc.fleet import settings
from asgi_ipc.wire.message import ANSWER
from asgi_ipc.wire.packet import BATCH, FRAGMENT_FIRST, FRAGMENT_MORE
from asgi_ipc.wire.payload import first_fragment
from asgi_ipc.worker.dispatch import backpressure
from tests.encoding import encode_message
from tests.inprocess import MIB, Forger, fleet, until


async def test_messages_are_counted_where_they_are_accepted_and_where_they_arrive() -> None:
    async with fleet(3) as (_, (a, b, c)):

        def fails(data: Any) -> None:
            raise ValueError(data)

        b.ipc.receive("fails", fails)
        await a.ipc.broadcast("note", "to all")
        await a.ipc.send(b.pid, "fails")
        await a.ipc.send(b.pid, "nobody listens to this")
        await a.ipc.send(b.pid, "note", "last")
        await b.until(2)
        await c.until(1)
        assert (a.ipc.stats().sent, a.ipc.stats().received) == (6, 1)
        assert (c.ipc.stats().sent, c.ipc.stats().received) == (0, 1)
        stats = b.ipc.stats()
        assert (stats.sent, stats.received, stats.discarded, stats.handler_errors) == (0, 4, 1, 1)
        assert stats.dropped == {}


async def test_an_outbox_shows_what_waits_for_its_receiver_and_for_no_other() -> None:
    async with fleet(3, has_arena=False) as (_, (a, b, c)):
        b.stop_reading()
        await a.ipc.broadcast("note", bytes(MIB))
        await c.until(1)
        await a.until(1)
        waiting = a.ipc.stats().outbox_bytes
        assert waiting[b.pid] > MIB
        assert waiting == {a.pid: 0, b.pid: waiting[b.pid], c.pid: 0}
        b.go_on_reading()
        await b.until(1)
        assert a.ipc.stats().outbox_bytes == {a.pid: 0, b.pid: 0, c.pid: 0}


async def test_a_large_message_under_way_shows_its_bytes_until_it_is_complete() -> None:
    async with fleet(2, has_arena=False) as (_, (a, b)):
        forger = Forger(b, a.worker)
        data = memoryview(encode_message("note", bytes(5000), MIB))
        forger.packet(FRAGMENT_FIRST, first_fragment(len(data), data[:3000]))
        await until(lambda: b.ipc.stats().reassembly_bytes > 0)
        assert b.ipc.stats().reassembly_bytes == 3000
        forger.packet(FRAGMENT_MORE, bytes(data[3000:]))
        forger.close()
        assert await b.until(1) == [bytes(5000)]
        assert b.ipc.stats().reassembly_bytes == 0


async def test_a_blocked_loop_shows_at_once_and_stays_as_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "BEAT_S", 0.02)
    async with fleet(2) as (_, (a, b)):
        b.ipc.receive("block", time.sleep)
        seen: list[Stats] = []
        b.ipc.receive("look", lambda data: seen.append(b.ipc.stats()))
        # The sleep is the fault: both handlers run in one turn, so nothing of the loop is between them.
        a.ipc.send_nowait(b.pid, "block", 0.3)
        a.ipc.send_nowait(b.pid, "look")
        await until(lambda: bool(seen))
        assert seen[0].loop_lag_s >= 0.2
        await until(lambda: b.ipc.stats().loop_lag_s < 0.2)
        assert b.ipc.stats().max_loop_lag_s >= 0.2


async def test_every_drop_has_its_reason_and_every_reason_is_documented() -> None:
    async with fleet(3, has_arena=False, max_message_bytes=MIB) as (launcher, (a, b, c)):
        forger = Forger(b, a.worker)

        def takes(number: int) -> None:
            raise AssertionError("never called")

        b.ipc.receive("a number", takes)
        forger.write(b"stray bytes")
        forger.batch(("note", "good"))
        forger.packet(BATCH, b"\xdc\x00\x01 no message")
        forger.packet(FRAGMENT_MORE, b"it continues nothing")
        forger.batch(("note", "a repeat"), number=0)
        forger.batch(("note", "three are missing"), number=6)
        forger.packet(FRAGMENT_FIRST, first_fragment(2 * MIB, memoryview(b"piece")), number=7)
        forger.packet(FRAGMENT_FIRST, first_fragment(5000, memoryview(b"never completed")), number=8)
        answer = (ANSWER, [1, 0, "to what nobody has asked"])
        forger.batch(("line\nbreak", 1), ("", 2), ("nobody listens to this", 3), answer, number=9)
        forger.batch(("a number", "text"), number=10)
        forger.batch(("note", "to somebody else"), number=11, receiver=77)
        forger.close()
        stranger = Forger(b, Worker(77, 7, 77))
        stranger.batch(("note", "from nobody"))
        stranger.close()
        await until(lambda: b.ipc.stats().dropped.get("stale") == 2)
        assert [data for _, _, data in b.seen] == ["good", "three are missing"]
        c.stop_reading()
        await b.ipc.send(c.pid, "note", bytes(MIB // 2))
        launcher.kill(c)
        launcher.kill(a)
        await until(lambda: len(b.ipc.workers) == 1)
        async with b.ipc.subscribe("t", overflow="drop_oldest", max_messages=2):
            for number in range(3):
                b.ipc.publish_nowait("t", number)
            await until(lambda: b.ipc.stats().dropped.get("overflow") == 1)
            b.ipc.publish_nowait("t", "to somebody who leaves first")
        await until(lambda: b.ipc.stats().dropped.get("unsubscribed") == 1)
        dropped = b.ipc.stats().dropped
        assert dropped == {
            "corrupt": 3,
            "repeat": 1,
            "gap": 3,
            "too_large": 1,
            "partial": 1,
            "invalid_name": 2,
            "invalid_data": 1,
            "late_answer": 1,
            "overflow": 1,
            "unsubscribed": 1,
            "stale": 2,
            "lost": 1,
        }
        assert b.ipc.stats().discarded == 1
        documented = (Stats.__doc__ or "").split("dropped:")[1].split("outbox_bytes:")[0]
        assert set(re.findall(r"`(\w+)`", documented)) - {"max_message_bytes"} == {*dropped, "unhandled"}


async def test_at_a_drain_deadline_what_was_accepted_is_what_was_handled_or_counted_on_either_side(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backpressure, "MAX_IN_FLIGHT", 10)
    async with fleet(2, has_arena=False, drain_timeout=0.2) as (launcher, (a, stopped)):
        leaver = launcher.new(slot=2)
        begun: list[Any] = []
        told: list[Any] = []
        a.ipc.on_leave(lambda *news: told.append(news))

        async def hangs(data: Any) -> None:
            begun.append(data)
            await asyncio.Event().wait()

        leaver.ipc.receive("any order", hangs)
        leaver.ipc.receive("one by one", hangs, ordered=True)
        with caplog.at_level(logging.WARNING, "asgi_ipc"):
            async with launcher.joined(leaver):
                stopped.stop_reading()
                # More than handlers in flight, its queue, a read, its pipe and an outbox's packets hold.
                sent = 1000
                for number in range(sent):
                    a.ipc.send_nowait(leaver.pid, ("any order", "one by one")[number % 2], bytes(1000))
                await until(lambda: leaver.endpoint.dispatcher.is_full)
                to_itself, to_stopped = 3, 2
                for _ in range(to_itself):
                    leaver.ipc.send_nowait(leaver.pid, "note")
                for _ in range(to_stopped):
                    leaver.ipc.send_nowait(stopped.pid, "note", bytes(MIB))
            launcher.bury(leaver, "drain_timeout")
            await until(lambda: bool(told))
        ((worker, reason, lost),) = told
        assert (worker, reason) == (leaver.worker, "drain_timeout")
        assert lost == a.ipc.stats().dropped["lost"] > 0
        after = leaver.ipc.stats()
        assert len(begun) == after.handler_errors <= 10
        assert after.dropped["unhandled"] > 100
        assert len(begun) + after.dropped["unhandled"] + lost == sent
        assert after.dropped["lost"] == to_itself + to_stopped
        assert (
            f"drain timeout: {after.dropped['lost']} messages not sent, {after.dropped['unhandled']} "
            f"not handled, {len(begun)} handlers cancelled"
        ) in caplog.text
        stopped.go_on_reading()
        # The other one has seen the beginning of a large message.
        await until(lambda: stopped.ipc.stats().dropped == {"partial": 1})


async def test_a_leave_that_cannot_hear_of_a_death_any_more_counts_the_unfinished_all_the_same() -> None:
    async with fleet(1, has_arena=False) as (launcher, (a,)):
        leaver = launcher.new(slot=1)
        async with launcher.joined(leaver):
            forger = Forger(leaver, a.worker)
            forger.packet(FRAGMENT_FIRST, first_fragment(5000, memoryview(b"never completed")))
            forger.close()
        assert leaver.ipc.stats().dropped == {"partial": 1}
        assert leaver.ipc.stats().reassembly_bytes == 0
        launcher.bury(leaver, "left")


async def test_stats_are_there_from_the_lifespan_on_and_stay_when_it_has_ended() -> None:
    here = IPC()
    with pytest.raises(NotRunningError):
        here.stats()
    async with here.lifespan():
        assert here.stats().sent == 0
        await here.send(here.pid, "nobody listens to this")
    assert (here.stats().sent, here.stats().received, here.stats().discarded) == (1, 1, 1)
    async with here.lifespan():
        assert here.stats().sent == 0
