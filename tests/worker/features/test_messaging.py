"""Messaging: a task that sends in a loop lets the others run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from asgi_ipc.worker.features.messaging import MESSAGES_PER_TURN, RECEIVERS_AS_ONE_MESSAGE
from tests.inprocess import Member, fleet

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
        for _ in range(MESSAGES_PER_TURN - 1):
            await VERBS[verb](a, b)
        assert ran == []
        await VERBS[verb](a, b)
        assert ran == [0]


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
