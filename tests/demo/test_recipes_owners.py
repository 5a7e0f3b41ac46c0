"""The recipes rate_limit and sessions: what one worker has, asked for through any other."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import AsyncExitStack

import httpx
import pytest

from asgi_ipc import Worker, ipc
from demo.recipes import rate_limit, sessions
from tests.serving import DEADLINE_S, Server
from tests.visiting import client, recipe, visits

BURST = int(rate_limit.BURST)


async def ask(server: Server, address: str, pids: Collection[int], count: int) -> list[httpx.Response]:
    """That many requests from one client, through all of these workers at once."""
    async with visits(server, pids, address) as visitors:
        turns = itertools.islice(itertools.cycle(visitors.values()), count)
        return await asyncio.gather(*(visitor.get("/") for visitor in turns))


class Bucket:
    """Return the most that one client may have been granted since it began."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.granted = 0

    def add(self, answers: list[httpx.Response]) -> None:
        assert {each.status_code for each in answers} <= {200, 429}
        self.granted += sum(each.status_code == 200 for each in answers)

    @property
    def most(self) -> int:
        return BURST + math.ceil((time.monotonic() - self.began) * rate_limit.RATE)


async def test_a_limit_holds_across_workers_and_a_rolling_restart() -> None:
    async with recipe("rate_limit") as server:
        pids = server.workers()
        # As many buckets as it takes to have one in each worker, most likely.
        addresses = [f"127.0.0.{number}" for number in range(2, 10)]
        buckets = {address: Bucket() for address in addresses}
        for address, bucket in buckets.items():
            answers = await ask(server, address, pids, 3 * BURST)
            bucket.add(answers)
            assert BURST <= bucket.granted <= bucket.most
            refused = next(each for each in answers if each.status_code == 429)
            assert 1 <= int(refused.headers["retry-after"]) <= math.ceil(1 / rate_limit.RATE)
        now = await server.restart()
        for address, bucket in buckets.items():
            bucket.add(await ask(server, address, now, BURST))
            assert bucket.granted <= bucket.most


async def test_a_killed_or_stalled_owner_refuses_nobody() -> None:
    async with recipe("rate_limit") as server:
        pids = server.workers()
        async with AsyncExitStack() as stack:
            # Present workers and a new one: any may own the bucket.
            visitors = [await stack.enter_async_context(client(server)) for _ in range(5 * BURST)]
            os.kill(pids[0], signal.SIGSTOP)
            os.kill(pids[1], signal.SIGKILL)
            answers = await asyncio.gather(*(visitor.get("/") for visitor in visitors))
            assert {each.status_code for each in answers} == {200, 429}
            assert sum(each.status_code == 200 for each in answers) >= BURST
            os.kill(pids[0], signal.SIGCONT)


@pytest.fixture
def no_buckets() -> Iterator[None]:
    rate_limit.buckets.clear()
    yield
    rate_limit.buckets.clear()


@pytest.mark.usefixtures("no_buckets")
def test_a_bucket_fills_with_time_and_the_number_of_buckets_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limit, "MAX_CLIENTS", 2)
    a_while_ago = time.monotonic() - 2 / rate_limit.RATE
    rate_limit.inherit([("a", 0.0, a_while_ago), ("b", 0.5, time.monotonic())])
    # Tokens taken here meanwhile are not given back.
    rate_limit.inherit([("b", 5.0, time.monotonic())])
    assert [rate_limit.take_here("a") for _ in range(2)] == [0.0, 0.0]
    assert 0 < rate_limit.take_here("a") <= 1 / rate_limit.RATE
    assert rate_limit.take_here("b") > 0
    assert rate_limit.take_here("c") == 0.0
    assert list(rate_limit.buckets) == ["b", "c"]


def test_few_owners_change_when_a_slot_goes_and_none_in_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    members: list[Worker] = []
    monkeypatch.setattr(type(ipc), "workers", property(lambda _: tuple(members)))
    clients = [f"client {number}" for number in range(300)]

    def owners() -> list[int]:
        return [rate_limit.owner_of(each).pid for each in clients]

    members[:] = [Worker(pid=slot + 10, slot=slot, generation=slot + 1) for slot in range(3)]
    before = owners()
    assert min(before.count(pid) for pid in (10, 11, 12)) > 50
    members.insert(1, Worker(pid=20, slot=0, generation=9))
    assert owners() == before
    del members[0]
    assert owners() == [20 if pid == 10 else pid for pid in before]
    del members[0]
    assert all(old in (10, new) for old, new in zip(before, owners(), strict=True))


# --- sessions


async def test_a_session_is_found_from_every_worker_and_gone_with_its_own() -> None:
    async with recipe("sessions") as server:
        pids = server.workers()
        async with visits(server, pids) as visitors:
            home, *others = visitors.values()
            started = await home.post("/games")
            cookies = dict(started.cookies)
            assert "httponly" in started.headers["set-cookie"].lower()
            home.cookies.clear()

            async def guess(
                number: int, visitor: httpx.AsyncClient, cookie: str = cookies["session"]
            ) -> httpx.Response:
                return await visitor.post(f"/games/{number}", headers={"cookie": f"session={cookie}"})

            # Through all of them, in turn: the hints of one game lead to its number.
            low, high, says = 1, 100, ""
            turn = 0
            while not says.startswith("yes"):
                number = (low + high) // 2
                answer = await guess(number, list(visitors.values())[turn % 3])
                says = answer.json()["says"]
                low, high = (number + 1, high) if says == "more" else (low, number - 1)
                turn += 1
            assert says == f"yes, after {turn} tries"
            assert (await guess(1, home)).status_code == 410
            generation, secret = cookies["session"].split(".")
            for made_up in (
                "",
                ".",
                generation,
                f"{generation}.",
                f"99.{secret}",
                f"{generation}.{secret[:-1]}",
            ):
                assert (await guess(1, others[0], made_up)).status_code == 410
            for wrong in ("0", "101", "x", "9" * 30):
                assert (await others[0].post(f"/games/{wrong}")).status_code == 422

            # Two steps at once: one after the other.
            cookie = (await home.post("/games")).cookies["session"]
            home.cookies.clear()
            both = await asyncio.gather(*(guess(1, each, cookie) for each in others))
            assert {each.status_code for each in both} <= {200, 410}
            os.kill(next(iter(visitors)), signal.SIGSTOP)
            asking = [asyncio.create_task(guess(50, each, cookie)) for each in others]
            await server.kill(next(iter(visitors)))
            # Asked before it died, or after.
            async with asyncio.timeout(DEADLINE_S):
                assert [(await each).status_code for each in asking] == [410, 410]
            cookie = (await others[0].post("/games")).cookies["session"]
        await server.restart()
        async with client(server) as visitor:
            assert (await guess(50, visitor, cookie)).status_code == 410


async def test_idle_sessions_expire_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    transport = httpx.ASGITransport(sessions.app)
    async with ipc.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://test") as visitor:
        cookies = []
        for _ in range(3):
            cookies.append((await visitor.post("/games")).cookies["session"])
            visitor.cookies.clear()

        async def status(cookie: str) -> int:
            return (await visitor.post("/games/1", headers={"cookie": f"session={cookie}"})).status_code

        assert [await status(cookie) for cookie in cookies] == [410, 200, 200]
        monkeypatch.setattr(sessions, "IDLE_S", -1.0)
        assert await status(cookies[2]) == 410
        assert len(sessions.sessions) == 1
        sessions.sessions.clear()
