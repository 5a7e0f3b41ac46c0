"""Joins and departures of real processes: what every survivor is told, and why."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from asgi_ipc.worker.dispatch.backpressure import MAX_IN_FLIGHT
from tests.puppets import Puppets, puppets
from tests.serving import eventually

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


async def told_of(strings: Puppets, pid: int, gone: int) -> list[tuple[Any, ...]]:
    """What the worker `pid` was told of the one that has gone."""
    news: list[tuple[Any, ...]] = await strings.call(pid, "told", "leave", gone)
    return [each for each in news if each[1] == gone]


@LOOPS
async def test_a_killed_worker_is_told_as_killed_with_what_was_lost_to_it(loop: str, tmp_path: Path) -> None:
    async with puppets(tmp_path, "--loop", loop, workers=3) as (strings, (a, b, c)):
        # Who does not run does not read: the arena takes a few, the outbox keeps the rest.
        os.kill(c, signal.SIGSTOP)
        await strings.call(a, "post", c, "note", 20, 1024 * 1024)
        os.kill(c, signal.SIGKILL)
        *told, lost = (await told_of(strings, a, c))[-1]
        assert told == ["leave", c, "killed"]
        # What is announced lies in its pipe, and is no more to be seen from here.
        assert 10 < lost <= 20
        assert (await told_of(strings, b, c))[-1] == ("leave", c, "killed", 0)
        await strings.server.started(4)
        (successor,) = set(strings.server.workers()) - {a, b}
        for survivor in (a, b):
            news = await strings.call(survivor, "told", "join", successor)
            assert [each[:2] for each in news[-2:]] == [("leave", c), ("join", successor)]
        assert (await strings.call(a, "stats"))["dropped"] == {"lost": lost}


@LOOPS
async def test_a_restart_replaces_and_scaling_down_leaves(loop: str, tmp_path: Path) -> None:
    async with puppets(tmp_path, "--loop", loop, workers=2) as (strings, (a, b)):
        server = strings.server
        await server.restart()
        await eventually(lambda: not {a, b} & set(server.workers()), "the old ones have ended")
        c, d = (pid for pid, _, _ in await strings.call(server.workers()[0], "members", 2))
        # c has joined before both of them left, d at least before b did.
        assert await told_of(strings, c, a) == [("leave", a, "replaced", 0)]
        assert await told_of(strings, c, b) == [("leave", b, "replaced", 0)]
        assert await told_of(strings, d, b) == [("leave", b, "replaced", 0)]
        server.signal(signal.SIGTTIN)
        await server.started(5)
        (e,) = set(server.workers()) - {c, d}
        for survivor in (c, d):
            await strings.call(survivor, "told", "join", e)
        server.signal(signal.SIGTTOU)
        for survivor in (c, d):
            assert await told_of(strings, survivor, e) == [("join", e), ("leave", e, "left", 0)]


async def test_a_worker_that_is_not_wanted_any_more_is_never_told_as_killed(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=1) as (strings, (a,)):
        server = strings.server
        for more in range(1, 6):
            server.signal(signal.SIGTTIN)
            await server.said("Increasing the number of workers to 2", more)
            await eventually(lambda: len(server.workers()) == 2, "it has been started")
            (b,) = set(server.workers()) - {a}
            # At any point of its start: while it imports the app, joins, or serves.
            if more >= 4:
                await strings.call(a, "told", "join", b)
            server.signal(signal.SIGTTOU)
            await server.said("Decreasing the number of workers to 1", more)
            await eventually(lambda: server.workers() == [a], "one is left")
        # The last one has joined and gone, so word of all that went before has come.
        news = await strings.call(a, "told", "leave", b)
        assert {each[2:] for each in news if each[0] == "leave"} == {("left", 0)}


async def test_a_worker_whose_loop_stands_still_is_told_as_stalled(tmp_path: Path) -> None:
    async with puppets(tmp_path, "--worker-hang-timeout", "4", workers=3) as (strings, (a, b, c)):
        await strings.call(a, "send", b, "block", 60)
        for survivor in (a, c):
            assert (await told_of(strings, survivor, b))[-1] == ("leave", b, "stalled", 0)


@LOOPS
async def test_a_leave_that_reaches_its_deadline_is_told_so_and_both_sides_account_for_it(
    loop: str, tmp_path: Path
) -> None:
    async with puppets(tmp_path, "--loop", loop, "--drain-timeout", "1") as (strings, (a, b)):
        server = strings.server
        # Handlers that do not end stop the reader. Then arena, pipe and outbox fill, with more than
        # the leaver reads in the end.
        sent = await strings.call(a, "post", b, "slow", MAX_IN_FLIGHT, 5)
        assert await strings.call(b, "counted", "slow before", sent) == MAX_IN_FLIGHT
        sent += await strings.call(a, "post", b, "slow", 30_000, 1000)
        server.signal(signal.SIGTTOU)
        leave = (await told_of(strings, a, b))[-1]
        lost = leave[3]
        assert leave == ("leave", b, "drain_timeout", lost)
        assert (await strings.call(a, "stats"))["dropped"] == {"lost": lost}
        (line,) = await server.said("drain timeout: ")
        counts = re.search(r"drain timeout: 0 messages not sent, (\d+) not handled, (\d+) handlers", line)
        assert counts is not None
        unhandled, cancelled = int(counts[1]), int(counts[2])
        assert min(lost, unhandled, cancelled) > 0
        # What is written between the leaver's last read and its close is in doubt: at most what a pipe holds.
        assert sent - 64 <= lost + unhandled + cancelled <= sent
        await server.said(f"reached its drain timeout with 0 messages not sent and {unhandled} not handled")
