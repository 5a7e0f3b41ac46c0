"""Messaging: a task that sends in a loop lets the others run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from asgi_ipc import IPC, NotRunningError, SendTimeoutError
from asgi_ipc.worker.transport.sender import MESSAGES_PER_TURN, RECEIVERS_AS_ONE_MESSAGE
from tests.inprocess import DEADLINE_S, MIB, Member, fleet

VERBS: dict[str, Callable[[Member, Member], Awaitable[object]]] = {
    "send": lambda a, b: a.ipc.send(b.pid, "note"),
    "send_any": lambda a, b: a.ipc.send_any("note"),
    "broadcast": lambda a, b: a.ipc.broadcast("note", include_self=False),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_after_so_many_messages_of_a_turn_others_run(verb: str) -> None:
    async with fleet(2) as (_, (a, b)):
        await asyncio.sleep(0)
        ran: list[int] = []
        asyncio.get_running_loop().call_soon(ran.append, 0)
        sent = 0
        while not ran:
            await VERBS[verb](a, b)
            sent += 1
        # A first message that was written at once does not count.
        assert sent in (MESSAGES_PER_TURN, MESSAGES_PER_TURN + 1)


async def test_a_receiver_of_a_broadcast_counts_as_a_fraction_of_a_message() -> None:
    async with fleet(1 + 2 * RECEIVERS_AS_ONE_MESSAGE) as (_, (a, *_others)):
        await asyncio.sleep(0)
        ran: list[int] = []
        asyncio.get_running_loop().call_soon(ran.append, 0)
        sent = 0
        while not ran:
            await a.ipc.broadcast("note", include_self=False)
            sent += 1
        # Each counts as three messages: one, and two for its receivers.
        assert sent == -(-MESSAGES_PER_TURN // 3)


@pytest.mark.parametrize("include_self", [True, False])
async def test_a_broadcast_that_does_not_wait_includes_the_sender_or_not(include_self: bool) -> None:
    async with fleet(3) as (_, (a, b, c)):
        took = a.ipc.broadcast_nowait("note", 1, include_self=include_self)
        assert took == ((a.pid, b.pid, c.pid) if include_self else (b.pid, c.pid))


async def test_a_message_for_any_worker_waits_for_room_as_long_as_it_may() -> None:
    async with fleet(2, has_arena=False, max_message_bytes=MIB) as (_, members):
        a, _b = members
        for member in members:
            member.stop_reading()
            a.fill(member, MIB - 100)
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(SendTimeoutError):
                await a.ipc.send_any("note", bytes(MIB - 100), timeout=0.01)
        for member in members:
            member.go_on_reading()


def test_a_verb_on_another_loop_of_the_thread_is_refused() -> None:
    ipc = IPC()

    async def send() -> None:
        await ipc.send(ipc.pid, "note")

    with asyncio.Runner() as own, asyncio.Runner() as other:
        lifespan = ipc.lifespan()
        own.run(lifespan.__aenter__())
        with pytest.raises(NotRunningError, match="another event loop"):
            other.run(send())
        own.run(lifespan.__aexit__(None, None, None))
