"""The leader: who it is, what runs there, and what becomes of that when it goes."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from asgi_ipc import IPC, NotRunningError
from asgi_ipc.fleet.slots import backoff_s
from asgi_ipc.worker.features import leader
from tests.inprocess import Member, fleet, until


class Runs:
    """A leader task of all members of a fleet, and where it runs."""

    def __init__(self) -> None:
        self.running: list[int] = []
        self.most = 0
        self.ended: list[int] = []

    def register(self, *members: Member) -> None:
        for member in members:
            member.ipc.leader_task(functools.partial(self._run, member))

    async def _run(self, member: Member) -> None:
        self.running.append(member.pid)
        self.most = max(self.most, len(self.running))
        try:
            await asyncio.Event().wait()
        finally:
            self.running.remove(member.pid)
            self.ended.append(member.pid)


async def leads(*members: Member, leader: Member | None) -> None:
    """Wait until all of these know that this one leads."""
    pid = leader.pid if leader is not None else None
    await until(lambda: all(member.ipc.leader == pid for member in members))


async def begun(member: Member, tasks: int = 1) -> None:
    """Wait until so many leader tasks of this member have begun."""
    await until(lambda: len(member.endpoint.leading.running) == tasks)
    await asyncio.sleep(0)


# --- who


async def test_the_first_leads_and_everybody_knows_it() -> None:
    async with fleet(3) as (_, (a, b, c)):
        assert [member.ipc.leader for member in (a, b, c)] == [a.pid] * 3
        assert [member.ipc.is_leader for member in (a, b, c)] == [True, False, False]


async def test_between_a_death_and_the_next_leader_there_is_none() -> None:
    async with fleet(2) as (launcher, (a, b)):
        b.endpoint.leading.gone(a.worker.generation)
        assert b.ipc.leader is None
        launcher.kill(a)
        await leads(b, leader=b)


async def test_nobody_leads_when_nobody_is_left_to() -> None:
    async with fleet(2) as (_, (a, b)):
        await asyncio.gather(a.endpoint.leave.resign(), b.endpoint.leave.resign())
        await leads(a, b, leader=None)


async def test_outside_the_lifespan_there_is_no_leader_to_ask_for() -> None:
    ipc = IPC()
    for attribute in ("leader", "is_leader"):
        with pytest.raises(NotRunningError):
            getattr(ipc, attribute)


async def test_a_fleet_of_one_leads_itself_and_runs_its_tasks_when_verbs_may_be_used() -> None:
    ipc = IPC()
    seen, ended = asyncio.Event(), asyncio.Event()
    leads: list[Any] = []

    @ipc.leader_task
    async def sweep() -> None:
        leads.append(await ipc.broadcast("name"))
        leads.append((ipc.is_leader, ipc.sender))
        seen.set()
        try:
            await asyncio.Event().wait()
        finally:
            leads.append(ipc.is_leader)
            ended.set()

    for _ in range(2):
        async with ipc.lifespan():
            assert ipc.is_leader
            assert ipc.leader == ipc.pid
            assert not seen.is_set()
            await seen.wait()
        assert ended.is_set()
        seen.clear()
        ended.clear()
    assert leads == [(ipc.pid,), (True, None), False] * 2


# --- what runs there


async def test_a_task_runs_in_the_leader_only_and_moves_when_it_is_killed() -> None:
    async with fleet(3) as (launcher, (a, b, c)):
        runs = Runs()
        runs.register(a, b, c)
        await until(lambda: runs.running == [a.pid])
        launcher.kill(a)
        await until(lambda: runs.running == [c.pid])
        launcher.kill(c)
        await until(lambda: runs.running == [b.pid])
    assert runs.ended == [a.pid, c.pid, b.pid]


async def test_a_task_has_ended_before_another_worker_leads() -> None:
    async with fleet(2) as (_, (leader, other)):
        runs = Runs()
        runs.register(leader, other)
        gate, cleaning = asyncio.Event(), asyncio.Event()

        @leader.ipc.leader_task
        async def slow() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cleaning.set()
                await gate.wait()

        await begun(leader, 2)
        leaves = asyncio.create_task(leader.leave())
        await cleaning.wait()
        # It is a member meanwhile, and hears what others say.
        await other.ipc.send(leader.pid, "note", "still here")
        await leader.until(1)
        assert not leader.ipc.is_leader
        assert other.ipc.leader == leader.pid
        assert runs.running == []
        gate.set()
        await until(lambda: runs.running == [other.pid])
        await leaves
    assert runs.most == 1


async def test_the_end_of_a_task_may_use_every_verb() -> None:
    async with fleet(2) as (_, (leader, other)):
        took: list[Any] = []
        running = asyncio.Event()
        other.ipc.receive("question", lambda data: "answer")

        @leader.ipc.leader_task
        async def sweep() -> None:
            running.set()
            try:
                await asyncio.Event().wait()
            finally:
                took.append(await leader.ipc.broadcast("note", "the end"))
                took.append(await leader.ipc.claim("the end"))
                took.append(await leader.ipc.request(other.pid, "question"))

        await running.wait()
        await leader.leave()
        assert took == [(leader.pid, other.pid), True, "answer"]
        assert leader.seen == other.seen == [("note", leader.pid, "the end")]


async def test_a_task_that_is_registered_later_starts_in_the_leader_at_once_and_once() -> None:
    async with fleet(2) as (_, members):
        starts: list[int] = []

        async def sweep(pid: int) -> None:
            starts.append(pid)

        for member in members:
            task = functools.partial(sweep, member.pid)
            for _ in range(3):
                assert member.ipc.leader_task(task) is task
                # From any thread.
                await asyncio.to_thread(member.ipc.leader_task, task)
        a, b = members
        await until(lambda: bool(starts))
        # Whatever else were to start would have come before this.
        await a.ipc.send(b.pid, "note", "behind")
        await b.until(1)
        assert starts == [a.pid]


@pytest.mark.parametrize("task", [None, "sweep", lambda: None, print])
def test_a_leader_task_is_an_async_function(task: Any) -> None:
    with pytest.raises(TypeError, match="a leader task is a"):
        IPC().leader_task(task)


async def test_a_lifespan_that_ends_at_once_starts_nothing() -> None:
    ipc = IPC()
    started: list[str] = []

    @ipc.leader_task
    async def sweep() -> None:
        started.append("sweep")

    async with ipc.lifespan():
        pass
    await asyncio.sleep(0)
    assert started == []


# --- what goes wrong


async def test_a_task_that_fails_is_logged_counted_and_restarted_later_and_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    def pause_s(deaths: int) -> float:
        asked.append(deaths)
        return 0.0

    monkeypatch.setattr(leader, "backoff_s", pause_s)
    ipc = IPC()
    done = asyncio.Event()

    @ipc.leader_task
    async def sweep() -> None:
        match len(asked):
            case 1:
                # Nobody has cancelled it.
                raise asyncio.CancelledError
            case 2:
                # Foreign code cancels it.
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.Event().wait()
            case 3:
                # From here on, each run is a long one.
                monkeypatch.setattr(leader, "SOUND_AFTER_S", -1.0)
            case 5:
                done.set()
                return
        raise ValueError("broken on purpose")

    async with ipc.lifespan():
        await done.wait()
        assert ipc.stats().handler_errors == 5
    assert asked == [2, 3, 4, 2, 2]
    assert [backoff_s(deaths) for deaths in (2, 3, 4, 9)] == [0.5, 1.0, 2.0, 30.0]
    assert len(re.findall(r"worker \[\d+\]: leader task 'sweep' failed", caplog.text)) == 5
    assert "broken on purpose" in caplog.text


async def test_a_task_that_fails_while_it_is_cancelled_is_logged_and_has_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with fleet(2) as (_, (a, b)):
        runs = Runs()
        runs.register(b)

        @a.ipc.leader_task
        async def sweep() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("broken on purpose")

        await begun(a)
        await a.endpoint.leave.resign()
        await leads(a, b, leader=b)
        await until(lambda: runs.running == [b.pid])
    assert "leader task 'sweep' failed" in caplog.text


def never_ends(gate: asyncio.Event) -> Callable[[], Coroutine[Any, Any, None]]:
    """A task that takes no cancellation for an answer before the gate is open."""

    async def endless() -> None:
        while not gate.is_set():
            with suppress(asyncio.CancelledError):
                await gate.wait()

    return endless


async def test_who_can_not_end_its_tasks_leads_until_its_process_has_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    gate = asyncio.Event()
    async with fleet(2, drain_timeout=0.3) as (launcher, (leader, other)):
        runs = Runs()
        runs.register(other)
        leader.ipc.leader_task(never_ends(gate))
        await begun(leader)
        began = loop.time()
        await leader.leave()
        # The leave has had no time of its own.
        assert 0.3 <= loop.time() - began < 0.6
        await until(lambda: len(other.ipc.workers) == 1)
        assert other.ipc.leader == leader.pid
        assert runs.running == []
        launcher.bury(leader, "drain_timeout")
        await until(lambda: runs.running == [other.pid])
        gate.set()
    assert "drain timeout: leader task 'endless' not ended" in caplog.text


async def test_a_lifespan_that_is_cancelled_while_its_tasks_end_closes_everything_and_has_not_resigned() -> (
    None
):
    gate = asyncio.Event()
    async with fleet(1) as (launcher, (a,)):
        launcher.kill(a)
        b = launcher.new(slot=1)
        b.ipc.leader_task(never_ends(gate))
        ending = asyncio.Event()

        async def life() -> None:
            async with launcher.joined(b):
                await begun(b)
                ending.set()

        living = asyncio.create_task(life())
        await ending.wait()
        endpoint = b.endpoint
        assert endpoint.leading.running
        living.cancel()
        with pytest.raises(asyncio.CancelledError):
            await living
        assert not endpoint.incoming._reader.is_open
        assert launcher.relay._leadership.leader == b.worker.generation
        gate.set()
        await until(lambda: not endpoint.leading.running)


async def test_when_the_launcher_dies_the_leader_stays_until_it_leaves() -> None:
    async with fleet(2) as (launcher, (a, b)):
        runs = Runs()
        runs.register(a, b)
        await until(lambda: runs.running == [a.pid])
        launcher.die()
        await until(lambda: not a.assignment.lifeline.is_open and not b.assignment.lifeline.is_open)
        assert a.ipc.is_leader
        assert b.ipc.leader == a.pid
        assert runs.running == [a.pid]
    assert runs.ended == [a.pid]
