"""Endpoints: several in one process, so that the order of events can be chosen."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from functools import partial
from typing import Any

import pytest

from asgi_ipc import (
    DeliveryError,
    LifespanError,
    NotRunningError,
    SendTimeoutError,
    UnknownWorkerError,
    Worker,
    WorkerGoneError,
    WouldBlockError,
)
from asgi_ipc.fleet.words import Gone, Joined, encode_word
from asgi_ipc.wire import reassembler
from asgi_ipc.wire.packet import BATCH, FRAGMENT_FIRST, encode_packet
from asgi_ipc.wire.payload import first_fragment, join_batch
from asgi_ipc.worker.dispatch import dispatcher
from asgi_ipc.worker.dispatch.delivery import current_delivery
from tests.encoding import encode_message
from tests.inprocess import COOKIE, MIB, Fleet, Forger, Member, fleet, settings, until


@pytest.mark.parametrize("max_packet_bytes", [128, 4096])
async def test_every_pair_reaches_each_other_with_data_of_every_size(max_packet_bytes: int) -> None:
    sizes = [0, 1, 50, 80, 90, 91, 100, 127, 128, 1000, 100_000]
    async with fleet(4, max_packet_bytes=max_packet_bytes) as (_, members):
        pids = [member.pid for member in members]
        for member in members:
            assert [worker.pid for worker in member.ipc.workers] == pids
            for size in sizes:
                assert sorted(await member.ipc.broadcast("note", "x" * size)) == pids
        for member in members:
            await member.until(len(pids) * len(sizes))
            for pid in pids:
                assert [len(data) for _, sender, data in member.seen if sender == pid] == sizes
            assert member.ipc.stats().dropped == {}


async def test_a_full_outbox_waits_until_its_deadline_and_then_says_who() -> None:
    async with fleet(2) as (_, (a, b)):
        b.stop_reading()
        count = a.fill(b, 4 * MIB)
        with pytest.raises(SendTimeoutError) as caught:
            await a.ipc.send(b.pid, "note", bytes(4 * MIB), timeout=0.01)
        assert caught.value.pid == b.pid
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(SendTimeoutError):
            await a.ipc.send(b.pid, "note", bytes(4 * MIB), timeout=0)
        b.go_on_reading()
        assert [len(data) for data in await b.until(count)] == [4 * MIB] * count
        await a.ipc.send(b.pid, "note", "after")
        assert (await b.until(count + 1))[-1] == "after"


async def test_those_who_wait_are_served_in_order_and_nobody_overtakes() -> None:
    async with fleet(2) as (_, (a, b)):
        b.stop_reading()
        count = a.fill(b, 4 * MIB)
        waits = [
            asyncio.create_task(a.ipc.send(b.pid, "note", [n, bytes(size)], timeout=None))
            for n, size in enumerate([8 * MIB, 1, 2 * MIB, 1])
        ]
        broadcast = asyncio.create_task(a.ipc.broadcast("note", [4, b""], timeout=None))
        await asyncio.sleep(0)
        # Small as it is, it would overtake those who wait.
        with pytest.raises(WouldBlockError):
            a.ipc.send_nowait(b.pid, "note", b"")
        with pytest.raises(WouldBlockError):
            a.ipc.broadcast_nowait("note", b"")
        last = asyncio.create_task(a.ipc.send(b.pid, "note", [5, b""], timeout=None))
        await asyncio.sleep(0)
        b.go_on_reading()
        await asyncio.gather(*waits, last)
        assert sorted(await broadcast) == [a.pid, b.pid]
        arrived = await b.until(count + 6)
        assert [data[0] for data in arrived[count:]] == list(range(6))


async def test_a_wait_that_is_cancelled_withdraws_its_message_whole() -> None:
    async with fleet(2) as (_, (a, b)):
        b.stop_reading()
        count = a.fill(b, 4 * MIB)
        large = bytes(4 * MIB)
        first = asyncio.create_task(a.ipc.send(b.pid, "note", ["first", large], timeout=None))
        everyone = a.ipc.broadcast("note", ["all", large], include_self=False, timeout=None)
        all_at_once = asyncio.create_task(everyone)
        second = asyncio.create_task(a.ipc.send(b.pid, "note", "second", timeout=None))
        await asyncio.sleep(0)
        first.cancel()
        all_at_once.cancel()
        await asyncio.gather(first, all_at_once, return_exceptions=True)
        b.go_on_reading()
        await second
        assert (await b.until(count + 1))[count:] == ["second"]


async def test_a_broadcast_returns_those_who_took_it_and_raises_nothing_for_the_slow() -> None:
    async with fleet(3) as (_, (a, b, c)):
        b.stop_reading()
        count = a.fill(b, 4 * MIB)
        assert sorted(await a.ipc.broadcast("note", bytes(4 * MIB), timeout=0.01)) == [a.pid, c.pid]
        assert await c.until(1) == [bytes(4 * MIB)]
        with pytest.raises(WouldBlockError) as caught:
            a.ipc.broadcast_nowait("note", bytes(4 * MIB))
        assert caught.value.pid == b.pid
        await a.ipc.send(c.pid, "note", "one full outbox, and none has got it")
        assert (await c.until(2))[1].startswith("one full")
        b.go_on_reading()
        await b.until(count)


async def test_who_waits_for_a_worker_that_dies_is_told_at_once() -> None:
    async with fleet(3) as (launcher, (a, b, c)):
        b.stop_reading()
        accepted = a.fill(b, 4 * MIB)
        waits = [
            asyncio.create_task(a.ipc.send(b.pid, "note", bytes(4 * MIB), timeout=None)),
            asyncio.create_task(a.ipc.send(b.worker, "note", bytes(4 * MIB), timeout=None)),
        ]
        everyone = asyncio.create_task(a.ipc.broadcast("note", bytes(4 * MIB), timeout=None))
        await asyncio.sleep(0)
        launcher.kill(b)
        for wait in waits:
            with pytest.raises(WorkerGoneError) as caught:
                await wait
            assert caught.value.pid == b.pid
        assert sorted(await everyone) == [a.pid, c.pid]
        with pytest.raises(UnknownWorkerError):
            await a.ipc.send(b.pid, "note", "too late")
        assert [worker.pid for worker in a.ipc.workers] == [a.pid, c.pid]
        lost = a.endpoint.outgoing.lost
        # What had left the outbox was in the pipe, or in the dead one's hands.
        assert accepted - 1 <= lost <= accepted
        assert a.ipc.stats().dropped == {"lost": lost}


async def test_the_budget_of_all_outboxes_is_shared_but_does_not_close_the_way_to_the_healthy() -> None:
    async with fleet(6) as (_, (a, b, *stopped)):
        for member in stopped:
            member.stop_reading()
        counts = [a.fill(member) for member in stopped]
        # Four full outboxes: the budget is used up, and the fifth gets no large message,
        with pytest.raises(WouldBlockError):
            a.ipc.send_nowait(b.pid, "note", bytes(8 * MIB))
        # but small ones pass.
        await a.ipc.send(b.pid, "note", "small")
        assert await b.until(1) == ["small"]
        waiting = asyncio.create_task(a.ipc.send(b.pid, "note", bytes(8 * MIB), timeout=None))
        await asyncio.sleep(0)
        stopped[0].go_on_reading()
        await waiting
        for member, count in zip(stopped, counts, strict=True):
            member.go_on_reading()
            await member.until(count)


async def test_a_nowait_broadcast_that_fits_only_some_outboxes_budget_is_accepted_by_none() -> None:
    async with fleet(3, has_arena=False) as (_, (a, b, c)):
        for member in (b, c):
            member.stop_reading()
            # More than the reserve, so that the shared budget counts.
            a.ipc.send_nowait(member.pid, "note", bytes(MIB))
        budget = a.endpoint.outgoing._budget
        size = len(encode_message("note", "small", MIB))
        # Room for the loopback and for one of the two.
        budget.limit_bytes = budget.used_bytes + 2 * size
        with pytest.raises(WouldBlockError):
            a.ipc.broadcast_nowait("note", "small")
        budget.limit_bytes += size
        assert sorted(a.ipc.broadcast_nowait("note", "small")) == [a.pid, b.pid, c.pid]
        for member in (b, c):
            member.go_on_reading()
            assert (await member.until(2))[1] == "small"


async def test_a_worker_addresses_one_incarnation_and_a_pid_whoever_has_it() -> None:
    async with fleet(2) as (launcher, (a, b)):
        old = b.worker
        launcher.kill(b)
        successor = launcher.new(slot=1)
        async with launcher.joined(successor):
            with pytest.raises(UnknownWorkerError):
                await a.ipc.send(old, "note", "to the dead")
            await a.ipc.send(successor.worker, "note", "hello")
            assert await successor.until(1) == ["hello"]


async def test_a_reply_to_a_sender_that_has_gone_is_refused_and_never_reaches_its_successor() -> None:
    async with fleet(2) as (launcher, (a, b)):
        go_on = asyncio.Event()
        outcome: list[Any] = []

        async def answer_late(data: Any) -> None:
            outcome.append("begun")
            await go_on.wait()
            try:
                await b.ipc.reply("note", data)
            except DeliveryError as error:
                outcome.append((type(error), error.pid))
            a.arrived.set()

        b.ipc.receive("late", answer_late)
        await a.ipc.send(b.pid, "late", "for the first only")
        await until(lambda: bool(outcome))
        launcher.kill(a)
        successor = launcher.new(slot=0)
        async with launcher.joined(successor):
            go_on.set()
            await b.endpoint.dispatcher.idle()
            assert outcome == ["begun", (UnknownWorkerError, a.pid)]
            await b.ipc.send(successor.pid, "note", "end")
            assert await successor.until(1) == ["end"]


async def test_a_packet_that_comes_before_the_word_makes_its_receiver_read_its_lifeline_first() -> None:
    async with fleet(1) as (launcher, (a,)):
        newcomer = launcher.new(slot=1)
        heard = asyncio.Event()
        a.ipc.receive("early", lambda data: heard.set())
        # The word is on a's lifeline and the packet is in its pipe before its loop turns.
        read_end, write_end = os.pipe()
        socket.send_fds(launcher.members[1].lifeline, [encode_word(Joined(newcomer.worker))], [write_end])
        forger = Forger(a, newcomer.worker)
        forger.batch(("early", "data"))
        a.endpoint.incoming._reader._readable()
        async with asyncio.timeout(10):
            await heard.wait()
        assert newcomer.pid in [worker.pid for worker in a.ipc.workers]
        assert a.ipc.stats().dropped == {}
        forger.close()
        os.close(read_end)
        os.close(write_end)


async def test_what_a_message_carries_beside_its_data_is_known_to_its_handler_only() -> None:
    async with fleet(1) as (_, (a,)):
        known: list[object] = []

        def note(data: Any) -> None:
            delivery = current_delivery.get()
            assert delivery is not None
            known.append((data, delivery.sender, delivery.extra))

        a.ipc.receive("extra", note)
        extras = (None, {"k": 1}, None)
        messages = [encode_message("extra", place, 1000, extra) for place, extra in enumerate(extras)]
        a.endpoint.incoming._on_bytes(encode_packet(COOKIE, 1, 1, 0, BATCH, join_batch(messages)), True)
        await until(lambda: len(known) == 3)
        assert known == [(0, a.worker, None), (1, a.worker, {"k": 1}), (2, a.worker, None)]


async def test_a_death_told_between_its_packets_waits_for_them() -> None:
    async with fleet(1) as (launcher, (a,)):
        gone: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        a.ipc.on_leave(lambda worker, reason, lost: gone.set_result(worker))
        newcomer = Worker(12_345, 1, 7)
        # Its packet has been read, with nothing behind it; both words about it are on the lifeline.
        launcher.members[1].lifeline.sendall(
            encode_word(Joined(newcomer)) + encode_word(Gone(newcomer.generation, "killed"))
        )
        forger = Forger(a, newcomer)
        forger.batch(("note", "last words"))
        forger.close()
        a.endpoint.incoming._reader._readable()
        assert a.seen == [("note", newcomer.pid, "last words")]
        async with asyncio.timeout(10):
            assert await gone == newcomer
        assert a.endpoint.outgoing.peers.find(newcomer.generation) is None
        assert a.ipc.stats().dropped == {}


async def test_what_a_dead_sender_left_unfinished_is_dropped_when_its_last_byte_has_been_read() -> None:
    async with fleet(2, has_arena=False) as (launcher, (a, b)):
        b.stop_reading()
        forger = Forger(b, a.worker)
        forger.batch(("note", "whole"))
        forger.packet(FRAGMENT_FIRST, first_fragment(5000, memoryview(bytes(3000))))
        forger.close()
        launcher.kill(a)
        await asyncio.sleep(0)
        b.endpoint._launcher.drain()
        assert b.endpoint.outgoing.peers.find(1) is not None
        b.go_on_reading()
        assert await b.until(1) == ["whole"]
        assert b.endpoint.outgoing.peers.find(1) is None
        assert b.ipc.stats().reassembly_bytes == 0
        assert b.ipc.stats().dropped == {"partial": 1}


async def test_two_workers_that_flood_each_other_from_inside_handlers_make_progress() -> None:
    async with fleet(2) as (_, members):
        rounds = 3000
        counts = {member.pid: 0 for member in members}
        finished = asyncio.Event()

        for member in members:

            async def flood(data: Any, member: Member = member) -> None:
                counts[member.pid] += 1
                if min(counts.values()) >= rounds:
                    finished.set()
                if counts[member.pid] < rounds:
                    for _ in range(2):
                        await member.ipc.reply("flood", data, timeout=30)

            member.ipc.receive("flood", flood)
        body = bytes(20_000)
        for sender, receiver in (members, members[::-1]):
            for _ in range(100):
                await sender.ipc.send(receiver.pid, "flood", body)
        async with asyncio.timeout(60):
            await finished.wait()
        for member in members:
            member.ipc.receive("flood", None)


async def test_leaving_delivers_what_was_accepted_on_both_sides_while_all_leave_at_once() -> None:
    async with fleet(3) as (_, members):
        for member in members:
            for number in range(2000):
                for other in members:
                    await member.ipc.send(other.pid, "note", [member.pid, number, bytes(number % 500)])
    for member in members:
        assert len(member.seen) == 6000
        for other in members:
            assert [data[1] for _, _, data in member.seen if data[0] == other.pid] == list(range(2000))


async def test_while_it_ends_verbs_are_refused_but_a_handler_that_drains_may_reply() -> None:
    async with fleet(2) as (launcher, (a, _)):
        leaver = launcher.new(slot=2)
        outcome: list[str] = []
        async with launcher.joined(leaver):

            async def drains(data: Any) -> None:
                await leaver.endpoint.departing.wait()
                for verb in (leaver.ipc.send(a.pid, "note"), leaver.ipc.broadcast("note")):
                    try:
                        await verb
                    except NotRunningError as error:
                        outcome.append(str(error))
                await leaver.ipc.reply("note", "drained")

            leaver.ipc.receive("drains", drains)
            await a.ipc.send(leaver.pid, "drains")
            leaver.ipc.receive("begun", lambda data: leaver.arrived.set())
            await a.ipc.send(leaver.pid, "begun")
            await leaver.arrived.wait()
        assert await a.until(1) == ["drained"]
        assert outcome == ["ipc.lifespan has not been entered yet, or is ending"] * 2
        await until(lambda: len(a.ipc.workers) == 2)


async def test_when_the_launcher_dies_all_deliver_what_they_accepted_and_leave() -> None:
    async with fleet(3) as (launcher, members):
        for member in members:
            for other in members:
                await member.ipc.send(other.pid, "note", bytes(100_000))
        launcher.die()
    for member in members:
        assert sorted(sender or 0 for _, sender, _ in member.seen) == [each.pid for each in members]
    launcher.members.clear()


async def test_a_member_that_does_not_answer_holds_a_newcomer_up_only_until_it_is_known_as_stalled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with fleet(2) as (launcher, (a, b)):
        with b.deaf():
            newcomer = launcher.new(slot=2)
            entering = asyncio.create_task(newcomer.enter())
            await until(lambda: newcomer.lifespan.is_entered and len(newcomer.ipc.workers) == 3)
            assert not entering.done()
            with caplog.at_level(logging.WARNING, "asgi_ipc"):
                launcher.relay.stalled(b.worker.generation, True)
                launcher.pump()
                async with asyncio.timeout(5):
                    await entering
            assert f"workers [{b.pid}] have not answered" in caplog.text
            # It is known by name all the same, and a message to it waits for its answer.
            await newcomer.ipc.send(b.pid, "note", "early")
        assert await b.until(1) == ["early"]
        await a.ipc.send(newcomer.pid, "note", "hello")
        assert await newcomer.until(1) == ["hello"]
        await newcomer.leave()


async def test_threads_send_at_the_same_time_and_each_in_its_order() -> None:
    async with fleet(2) as (_, (a, b)):

        def send(thread: int) -> None:
            for number in range(500):
                while True:
                    try:
                        a.ipc.send_nowait(b.pid, "note", [thread, number])
                        break
                    except WouldBlockError:
                        continue

        await asyncio.gather(*(asyncio.to_thread(send, thread) for thread in range(4)))
        arrived = await b.until(2000)
        for thread in range(4):
            assert [number for who, number in arrived if who == thread] == list(range(500))


@pytest.mark.parametrize("timeout", [-1, float("nan")])
async def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    async with fleet(1) as (_, (a,)):
        with pytest.raises(ValueError, match="a timeout is a number of seconds"):
            await a.ipc.send(a.pid, "note", timeout=timeout)
        with pytest.raises(ValueError, match="a timeout is a number of seconds"):
            await a.ipc.broadcast("note", timeout=timeout)


async def test_large_messages_of_one_turn_let_the_others_have_theirs() -> None:
    async with fleet(2) as (_, (a, b)):
        for _ in range(8):
            ran: list[int] = []
            asyncio.get_running_loop().call_soon(ran.append, 0)
            await a.ipc.send(b.pid, "note", bytes(MIB))
            assert ran == [0]
        await b.until(8)


async def test_a_worker_that_has_left_cannot_join_again() -> None:
    launcher = Fleet(partial(Member, run=settings(), has_arena=True))
    member = launcher.new()
    async with launcher.joined(member):
        assert member.ipc.slot == 0
        assert member.ipc.worker == member.worker
        assert member.ipc.pid == member.pid
    with pytest.raises(LifespanError, match="has left the fleet"):
        async with launcher.joined(member):
            raise AssertionError("joined twice")
    launcher.close()


async def test_messages_that_wait_in_an_arena_hold_their_block_until_the_turn_in_which_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "MESSAGES_PER_TURN", 10)
    monkeypatch.setattr(reassembler, "ACKNOWLEDGED_BYTES", 1)
    async with fleet(2, has_arena=True) as (_, (a, b)):
        arena = a.endpoint.outgoing._budget.arena
        await until(lambda: arena.is_open(b.worker.generation))
        used_bytes: list[int] = []

        def look(data: bytes) -> None:
            assert data == bytes([len(used_bytes)]) * 1000
            used_bytes.append(arena.used_bytes)

        b.ipc.receive("look", look)
        for number in range(100):
            a.ipc.send_nowait(b.pid, "look", bytes([number]) * 1000)
        await until(lambda: len(used_bytes) == 100)
        assert min(used_bytes) >= 100_000
        await until(lambda: arena.used_bytes == 0)


async def test_what_waits_in_the_arena_of_a_killed_worker_is_copied_and_handled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "MESSAGES_PER_TURN", 1)
    async with fleet(2, has_arena=True) as (_, (a, b)):
        memory = a.endpoint.incoming.arenas._own.memory
        arena = a.endpoint.outgoing._budget.arena
        await until(lambda: arena.is_open(b.worker.generation))
        arrived: list[bytes] = []

        def take(data: bytes) -> None:
            if len(arrived) == 5:
                # The rest is still in the block.
                b.endpoint.incoming.forget(a.worker.generation)
                memory[: len(memory) // 8] = bytes(len(memory) // 8)
            arrived.append(data)

        b.ipc.receive("take", take)
        sent = [bytes([number]) * 1000 for number in range(50)]
        for data in sent:
            a.ipc.send_nowait(b.pid, "take", data)
        await until(lambda: len(arrived) == 50)
        assert arrived == sent
        assert b.endpoint.incoming.dropped()["corrupt"] == 0


async def test_what_was_copied_from_an_arena_is_acknowledged_with_the_next_beat_if_it_is_little() -> None:
    async with fleet(2, has_arena=True) as (_, (a, b)):
        arena = a.endpoint.outgoing._budget.arena
        assert arena is not None
        await until(lambda: arena.is_open(b.worker.generation))
        await a.ipc.send(b.pid, "note", bytes(20_000))
        await b.until(1)
        assert arena.used_bytes
        # What is larger than all that may be under way does not wait for that.
        await a.ipc.send(b.pid, "note", bytes(15 * MIB))
        await b.until(2)
        await a.ipc.send(b.pid, "note", bytes(20_000))
        await b.until(3)
        b.endpoint.heartbeat._beat()
        await until(lambda: not arena.used_bytes)


async def test_a_beat_behind_the_end_of_a_worker_does_nothing() -> None:
    async with fleet(1, has_arena=True) as (launcher, (a,)):
        other = launcher.new(slot=1)
        async with launcher.joined(other):
            endpoint = other.endpoint
            arena = endpoint.outgoing._budget.arena
            assert arena is not None
            await until(lambda: arena.is_open(a.worker.generation))
            await other.ipc.send(a.pid, "note", bytes(MIB))
            await until(lambda: not arena.used_bytes)
        # It would give back the memory that is used no more, if it were its own still.
        for _ in range(2):
            endpoint.heartbeat._beat()
