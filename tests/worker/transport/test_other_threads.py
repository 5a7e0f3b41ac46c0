"""Messages of other threads: handed over, counted, in order, and within the bounds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from asgi_ipc import NotRunningError, UnknownWorkerError, WouldBlockError
from asgi_ipc.wire.outbox import SHORT_BYTES, Budget, Outbox
from asgi_ipc.worker.transport import outgoing
from tests.inprocess import MIB, Member, fleet, until


def in_thread(call: Callable[..., Any], *arguments: Any) -> None:
    """Run a call in another thread while the event loop stands still."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001  # raised below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in errors:
        raise error


async def send(a: Member, b: Member) -> None:
    await a.ipc.send(b.pid, "note", "behind")


async def send_nowait(a: Member, b: Member) -> None:
    a.ipc.send_nowait(b.pid, "note", "behind")


async def send_to_worker(a: Member, b: Member) -> None:
    a.ipc.send_nowait(b.worker, "note", "behind")


async def broadcast(a: Member, b: Member) -> None:
    await a.ipc.broadcast("note", "behind")


async def broadcast_nowait(a: Member, b: Member) -> None:
    a.ipc.broadcast_nowait("note", "behind")


async def send_any_data(a: Member, b: Member) -> None:
    a.ipc.send_nowait(b.pid, "note", ["behind"])


async def send_large(a: Member, b: Member) -> None:
    a.ipc.send_nowait(b.pid, "note", b"x" * MIB)


@pytest.mark.parametrize(
    "verb", [send, send_nowait, send_to_worker, broadcast, broadcast_nowait, send_any_data, send_large]
)
@pytest.mark.parametrize("size_bytes", [5, SHORT_BYTES + 1])
async def test_what_a_thread_sent_is_not_overtaken(verb: Callable[..., Any], size_bytes: int) -> None:
    async with fleet(2) as (_, (a, b)):
        # The pipe has arrived, and nothing is under way.
        await a.ipc.send(b.pid, "note", "first")
        await b.until(1)
        in_thread(a.ipc.send_nowait, b.pid, "note", b"t" * size_bytes)
        await verb(a, b)
        first, second, _ = await b.until(3)
        assert (first, second) == ("first", b"t" * size_bytes)


async def test_what_was_handed_over_is_counted_at_once_and_sent_before_the_leave() -> None:
    async with fleet(2) as (launcher, (a, b)):
        await until(lambda: a.endpoint.is_settled)
        before = a.ipc.stats().sent
        in_thread(a.ipc.broadcast_nowait, "note", "all")
        assert a.ipc.stats().sent == before + 2
        assert all(a.ipc.stats().outbox_bytes.values())
        assert not a.endpoint.outgoing.is_empty()
        launcher.stop(a)
        await b.until(1)


async def test_what_was_handed_over_for_a_member_that_dies_is_counted_as_lost() -> None:
    async with fleet(2) as (launcher, (a, b)):
        await until(lambda: a.endpoint.is_settled)
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        a.ipc.on_leave(lambda worker, reason, lost: told.set_result(lost))
        peer = a.endpoint.outgoing.peers.by_pid[b.pid]
        in_thread(a.ipc.send_nowait, b.pid, "note", "late")
        a.endpoint.outgoing.lose(peer)
        with pytest.raises(UnknownWorkerError):
            in_thread(a.ipc.send_nowait, b.pid, "note", "too late")
        launcher.kill(b)
        assert await told == 1
        assert a.ipc.stats().dropped == {"lost": 1}
        await until(lambda: a.endpoint.is_settled)


async def test_a_large_message_of_a_thread_to_all_counts_once_in_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget = partial(Budget, 8 * MIB)
    monkeypatch.setattr(outgoing, "Budget", budget)
    async with fleet(4) as (_, (a, *others)):
        for member in others:
            member.stop_reading()
        in_thread(a.ipc.broadcast_nowait, "note", bytes(6 * MIB))
        with pytest.raises(WouldBlockError):
            in_thread(a.ipc.broadcast_nowait, "note", bytes(3 * MIB))
        for member in others:
            member.go_on_reading()
        for member in others:
            await member.until(1)
        await until(lambda: a.endpoint.is_settled)
        in_thread(a.ipc.broadcast_nowait, "note", bytes(6 * MIB))
        for member in others:
            await member.until(2)


async def test_threads_and_the_loop_together_keep_to_the_bound_and_each_to_its_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit_bytes = 4 * SHORT_BYTES
    monkeypatch.setattr(outgoing, "Outbox", partial(Outbox, limit_bytes=limit_bytes))
    async with fleet(2) as (_, (a, b)):
        outbox = a.endpoint.outgoing.peers.by_pid[b.pid].outbox
        most_bytes = 0
        each = 150

        def flood(who: int, size_bytes: int) -> None:
            nonlocal most_bytes
            for number in range(each):
                while True:
                    try:
                        a.ipc.send_nowait(b.pid, "note", f"{who} {number} ".ljust(size_bytes))
                        break
                    except WouldBlockError:
                        most_bytes = max(most_bytes, outbox.backlog_bytes)

        async def flood_here(who: int) -> None:
            nonlocal most_bytes
            for number in range(each):
                await a.ipc.send(b.pid, "note", f"{who} {number} ".ljust(3000 + 100 * number))
                most_bytes = max(most_bytes, outbox.backlog_bytes)

        threads = [asyncio.to_thread(flood, who, 20_000 - 6000 * who) for who in range(3)]
        await asyncio.gather(*threads, flood_here(3))
        arrived = [data.split()[:2] for data in await b.until(4 * each)]
        for who in range(4):
            assert [int(number) for by, number in arrived if int(by) == who] == list(range(each))
        assert most_bytes <= limit_bytes
        await until(lambda: a.endpoint.is_settled)
        assert (outbox.messages, outbox.backlog_bytes, outbox.handed, outbox.handed_bytes) == (0, 0, 0, 0)


async def test_a_send_nowait_that_was_kept_refuses_after_the_lifespan() -> None:
    async with fleet(2) as (launcher, (a, b)):
        kept = a.ipc.send_nowait
        kept(b.pid, "note", data="first")
        await b.until(1)
        launcher.stop(a)
        await a.leave()
        for call in (kept, a.ipc.send_nowait):
            with pytest.raises(NotRunningError):
                call(b.pid, "note", "late")
            with pytest.raises(NotRunningError):
                in_thread(call, b.pid, "note", "late")
