"""claim and once: who is first, who waits, and what happens to who waits."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Literal

import pytest

from asgi_ipc import IPC, InvalidNameError, NotRunningError, TooManyKeysError
from asgi_ipc.fleet.claims import MAX_KEYS
from tests.inprocess import Fleet, Member, fleet, until

Periods = pytest.mark.parametrize("per", ["restart", "server"])
Per = Literal["restart", "server"]


class Block:
    """A worker's way through the block of a key: what it was told, and when it leaves."""

    def __init__(self, member: Member, key: str = "migrate", per: Per = "restart") -> None:
        self.told: bool | None = None
        self._gate = asyncio.Event()
        self._error: Exception | None = None
        self._member, self._key, self._per = member, key, per
        self.task = asyncio.create_task(self._pass())

    async def _pass(self) -> None:
        async with self._member.ipc.once(self._key, per=self._per) as first:
            self.told = first
            await self._gate.wait()
            if self._error is not None:
                raise self._error

    async def is_told(self) -> bool:
        await until(lambda: self.told is not None)
        assert self.told is not None
        return self.told

    async def leave(self, error: Exception | None = None) -> None:
        self._error = error
        self._gate.set()
        await asyncio.wait([self.task])


async def asked(launcher: Fleet, *waiting: Member) -> None:
    """Wait until the launcher has heard what these ask for."""
    await until(lambda: all(has_claim(launcher, member) for member in waiting))


def has_claim(launcher: Fleet, member: Member) -> bool:
    """Whether the launcher knows of a claim of this one that is not over."""
    return any(claim.generation == member.worker.generation for claim in launcher.relay._claims._open)


async def in_line(launcher: Fleet, *members: Member, per: Per = "restart") -> list[Block]:
    """A block for each of these, in this order; the first one is inside."""
    blocks = []
    for member in members:
        blocks.append(Block(member, per=per))
        await asked(launcher, member)
    assert await blocks[0].is_told()
    return blocks


# --- claim


async def test_a_claim_is_true_in_exactly_one_worker() -> None:
    async with fleet(3) as (_, members):
        told = await asyncio.gather(*(member.ipc.claim("job") for member in members for _ in range(2)))
        assert sorted(told) == [False] * 5 + [True]
        assert await members[1].ipc.claim("other") is True
        assert await members[1].ipc.claim("other") is False


async def test_a_claim_stays_decided_when_the_first_dies_and_across_restarts() -> None:
    async with fleet(2) as (launcher, (a, b)):
        assert await a.ipc.claim("job")
        launcher.kill(a)
        assert not await b.ipc.claim("job")
        async with launcher.joined(launcher.new(slot=0, restart_round=1)) as c:
            assert not await c.ipc.claim("job")


async def test_an_answer_that_nobody_has_waited_for_does_not_count() -> None:
    async with fleet(2) as (launcher, (a, b)):
        asking = asyncio.create_task(a.ipc.claim("job"))
        await asked(launcher, a)
        # The answer is under way.
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: not has_claim(launcher, a))
        assert await b.ipc.claim("job")


# --- once


@Periods
async def test_the_others_wait_until_the_first_has_left_the_block(per: Per) -> None:
    async with fleet(3) as (launcher, (a, b, c)):
        first, *others = await in_line(launcher, a, b, c, per=per)
        assert [block.told for block in others] == [None, None]
        await first.leave()
        assert [await block.is_told() for block in others] == [False, False]
        for block in others:
            await block.leave()
        late = Block(b, per=per)
        assert not await late.is_told()
        await late.leave()


@Periods
async def test_who_waits_longest_is_first_if_the_block_failed_or_its_worker_died(per: Per) -> None:
    async with fleet(3) as (launcher, (a, b, c)):
        blocks = await in_line(launcher, a, b, c, per=per)
        await blocks[0].leave(ValueError("broken on purpose"))
        assert isinstance(blocks[0].task.exception(), ValueError)
        assert await blocks[1].is_told()
        assert blocks[2].told is None
        launcher.kill(b)
        assert await blocks[2].is_told()
        await blocks[2].leave()
        await blocks[1].leave()


async def test_a_worker_that_leaves_inside_the_block_holds_it_until_it_has_left_or_ended() -> None:
    async with fleet(1) as (launcher, (a,)):
        b = launcher.new(slot=1)
        async with launcher.joined(b):
            first = Block(b)
            assert await first.is_told()
        second = Block(a)
        await asked(launcher, a)
        assert second.told is None
        # Its lifespan is over, its lifeline is not.
        await first.leave()
        assert not await second.is_told()
        await second.leave()


# --- what goes wrong


async def test_when_the_launcher_dies_whoever_waits_is_told_so_and_the_block_goes_on() -> None:
    async with fleet(2) as (launcher, (a, b)):
        first, second = await in_line(launcher, a, b)
        launcher.die()
        with pytest.raises(NotRunningError, match="the launcher is gone"):
            await second.task
        with pytest.raises(NotRunningError, match="the launcher is gone"):
            await b.ipc.claim("job")
        await first.leave()
        assert first.task.exception() is None


async def test_who_waits_when_its_lifespan_has_ended_is_told_so() -> None:
    async with fleet(1) as (launcher, (a,)):
        first = Block(a)
        assert await first.is_told()
        b = launcher.new(slot=1)
        async with launcher.joined(b):
            second = Block(b)
            await asked(launcher, b)
        with pytest.raises(NotRunningError, match="has ended"):
            await second.task
        await until(lambda: not has_claim(launcher, b))
        await first.leave()


async def test_outside_the_lifespan_nothing_is_decided() -> None:
    ipc = IPC()
    with pytest.raises(NotRunningError):
        await ipc.claim("job")
    with pytest.raises(NotRunningError):
        await ipc.once("migrate").__aenter__()


@pytest.mark.parametrize("key", ["", "a\nb", "x" * 255, 7])
async def test_a_key_is_checked_as_a_name_is(key: Any) -> None:
    ipc = IPC()
    async with ipc.lifespan():
        with pytest.raises(InvalidNameError, match="invalid key "):
            await ipc.claim(key)
        with pytest.raises(InvalidNameError):
            await ipc.once(key).__aenter__()
        with pytest.raises(ValueError, match="'restart' or 'server', not 'claim'"):
            await ipc.once("migrate", per="claim").__aenter__()  # type: ignore[arg-type]


# --- a fleet of one


async def test_a_fleet_of_one_decides_by_the_same_rules() -> None:
    ipc = IPC()
    async with ipc.lifespan():
        assert [await ipc.claim("job") for _ in range(3)] == [True, False, False]
        with suppress(ZeroDivisionError):
            async with ipc.once("migrate") as first:
                assert first
                raise ZeroDivisionError
        order: list[bool] = []

        async def migrate() -> None:
            async with ipc.once("migrate") as first:
                order.append(first)
                await asyncio.sleep(0)
                order.append(first)

        await asyncio.gather(migrate(), migrate())
        assert order == [True, True, False, False]


async def test_beyond_ten_thousand_keys_the_bound_is_named_and_those_that_are_known_are_decided() -> None:
    ipc = IPC()
    async with ipc.lifespan():
        for number in range(MAX_KEYS - 1):
            assert await ipc.claim(f"key {number}")
        async with ipc.once("migrate") as first:
            assert first
        with pytest.raises(TooManyKeysError, match=r"10,000 keys, which is the limit; 'one more' would"):
            await ipc.claim("one more")
        with pytest.raises(TooManyKeysError, match="10,000 keys"):
            await ipc.once("one more").__aenter__()
        assert not await ipc.claim("key 0")
        async with ipc.once("migrate") as first:
            assert not first
