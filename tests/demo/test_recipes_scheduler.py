"""The recipe scheduler: each tick once in the whole server, with any leader."""

from __future__ import annotations

import re

from tests.serving import Server
from tests.visiting import client, recipe

TICK = r"tick (\d+) in worker (\d+)"


def ticks(server: Server) -> list[tuple[int, int]]:
    """The ticks so far, and in which worker."""
    found = [re.search(TICK, line) for line in server.found(TICK)]
    return [(int(each[1]), int(each[2])) for each in found if each is not None]


async def ticks_from(server: Server, pids: set[int], count: int = 3) -> int:
    """Wait for that many more from one of these workers; which one."""
    seen = len(ticks(server))
    while True:
        seen += 1
        await server.said(TICK, seen)
        in_turn = [pid for _, pid in ticks(server)]
        last = in_turn[-1]
        if last in pids and in_turn[-count:] == [last] * count:
            return last


async def test_each_tick_runs_once_and_goes_on_when_the_leader_dies_or_is_restarted() -> None:
    async with recipe("scheduler", RECIPES_PERIOD="0.25") as server:
        pids = set(server.workers())
        leader = await ticks_from(server, pids)
        async with client(server) as visitor:
            assert (await visitor.get("/")).json()["leader"] == leader
        now = set(await server.kill(leader))
        await ticks_from(server, now)
        later = set(await server.restart())
        assert not later & now
        await ticks_from(server, later)
        numbers = [tick for tick, _ in ticks(server)]
        assert numbers == sorted(set(numbers))


async def test_a_tick_that_the_dead_leader_has_begun_is_not_repeated() -> None:
    # Another one leads within the period, as a rule.
    async with recipe("scheduler", RECIPES_PERIOD="1") as server:
        leader = await ticks_from(server, set(server.workers()), count=1)
        begun = ticks(server)[-1][0]
        now = set(await server.kill(leader))
        await ticks_from(server, now, count=1)
        assert [tick for tick, _ in ticks(server)].count(begun) == 1
        assert ticks(server)[-1][0] > begun
