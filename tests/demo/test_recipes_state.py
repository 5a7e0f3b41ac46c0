"""The recipes cache and settings: what one worker has changed is so in all of them, newcomers included."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_ipc import ipc
from demo.recipes import cache, database, settings
from tests.serving import DEADLINE_S
from tests.visiting import client, recipe, visits


class Slow:
    """A database in whose reads something may happen; a read gives back what was there when it began."""

    def __init__(self) -> None:
        self.value = "old"
        self.reads = 0
        self.reading = asyncio.Event()
        self.go_on = asyncio.Event()

    async def read(self, key: str) -> str:
        self.reads += 1
        value = self.value
        self.reading.set()
        await self.go_on.wait()
        return value


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    slow = Slow()
    monkeypatch.setattr(database, "read", slow.read)
    yield slow
    cache.cache.clear()
    assert not cache.loading


async def test_a_value_that_changes_while_it_is_read_is_not_kept(slow: Slow) -> None:
    async with ipc.lifespan():
        early = asyncio.create_task(cache.get("k"))
        await slow.reading.wait()
        slow.value = "new"
        assert (await ipc.gather("cache.forget", "k")).complete
        # It asks again at once, and does not wait for the read that may have seen the old value.
        late = asyncio.create_task(cache.get("k"))
        await asyncio.sleep(0)
        assert slow.reads == 1
        slow.reading.clear()
        await slow.reading.wait()
        slow.go_on.set()
        assert (await early, await late) == ("old", "new")
        assert await cache.get("k") == "new"
        assert slow.reads == 2


async def test_many_who_read_at_once_read_once_and_one_that_is_cancelled_ends_nothing(slow: Slow) -> None:
    readers = [asyncio.create_task(cache.get("k")) for _ in range(10)]
    await slow.reading.wait()
    readers[0].cancel()
    slow.go_on.set()
    assert await asyncio.gather(*readers[1:]) == ["old"] * 9
    assert slow.reads == 1


async def test_an_old_value_expires_and_a_full_cache_forgets_the_oldest(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow.go_on.set()
    monkeypatch.setattr(cache, "MAX_KEYS", 2)
    for key in ("a", "b", "c", "b"):
        await cache.get(key)
    assert list(cache.cache) == ["b", "c"]
    monkeypatch.setattr(cache, "TTL_S", -1.0)
    cache.clear(None)
    for reads in (4, 5):
        await cache.get("a")
        assert slow.reads == reads


async def test_what_is_written_in_one_worker_is_read_in_all_and_a_stalled_one_is_named(
    tmp_path: Path,
) -> None:
    file = str(tmp_path / "items.sqlite3")
    async with recipe("cache", RECIPES_DATABASE=file) as server:
        pids = server.workers()
        async with visits(server, pids) as visitors:
            writer, *_ = visitors.values()

            async def everywhere() -> list[Any]:
                return [(await each.get("/items/k")).json()["value"] for each in visitors.values()]

            assert await everywhere() == [None] * 3
            for value in ("1", "2"):
                assert (await writer.put("/items/k", params={"value": value})).json() == {"late": []}
                assert await everywhere() == [value] * 3
            stalled = pids[2]
            os.kill(stalled, signal.SIGSTOP)
            assert (await writer.put("/items/k", params={"value": "3"})).json() == {"late": [stalled]}
            answer = (await writer.delete("/cache")).json()
            assert (set(answer["told"]), answer["not_told"]) == (set(pids), [])
            os.kill(stalled, signal.SIGCONT)
            # It forgets before it reads on: the message has been waiting, the request comes now.
            async with asyncio.timeout(DEADLINE_S):
                while await everywhere() != ["3"] * 3:
                    pass
            survivors = pids[:2]
            now = await server.kill(stalled)
        async with visits(server, now) as visitors:
            assert (await visitors[survivors[0]].put("/items/k", params={"value": "4"})).json() == {
                "late": []
            }
            assert await everywhere() == ["4"] * 3


# --- settings


async def test_a_change_is_made_everywhere_and_newcomers_have_it_before_their_first_request() -> None:
    async with recipe("settings") as server:
        pids = server.workers()
        async with visits(server, pids) as visitors:
            one, other, _ = visitors.values()
            change = {"log_level": "DEBUG", "page_size": 7}
            answer = (await one.patch("/settings", json=change)).json()
            assert set(answer["told"]) == set(pids) - {next(iter(visitors))}
            # Of two that were made at the same time all keep the same one.
            await asyncio.gather(
                one.patch("/settings", json={"page_size": 8}), other.patch("/settings", json={"page_size": 9})
            )
            found: set[tuple[str, int]] = set()
            async with asyncio.timeout(DEADLINE_S):
                while len(found) != 1:
                    answers = [(await each.get("/settings")).json() for each in visitors.values()]
                    found = {(each["log_level"], each["page_size"]) for each in answers}
            (expected,) = found
            assert expected in {("DEBUG", 8), ("DEBUG", 9)}
            for wrong in ({"page_size": 0}, {"log_level": "LOUD"}, {"colour": "red"}):
                assert (await one.patch("/settings", json=wrong)).status_code == 422
        await server.said("DEBUG:shop:somebody looks", 3)
        await server.kill(pids[0])
        now = await server.restart()
        assert not set(now) & set(pids)
        seen: set[int] = set()
        async with asyncio.timeout(DEADLINE_S):
            while seen < set(now):
                async with client(server) as visitor:
                    answer = await visitor.get("/settings")
                    seen.add(int(answer.headers["x-worker"]))
                    assert (answer.json()["log_level"], answer.json()["page_size"]) == expected


def test_the_later_change_wins_in_whichever_order_they_arrive() -> None:
    now_ns = time.monotonic_ns()
    level = logging.getLogger().level
    try:
        settings.apply({"page_size": (now_ns, 2, 20), "of an older release": (now_ns, 2, 1)})
        settings.apply({"page_size": (now_ns - 1, 9, 30)})
        settings.apply({"page_size": (now_ns, 1, 40), "maintenance": (now_ns, 1, True)})
        assert (settings.settings.page_size, settings.settings.maintenance) == (20, True)
        assert settings.tell(None).keys() == {"page_size", "maintenance"}
    finally:
        settings.changed.clear()
        settings.settings = settings.Settings()
        logging.getLogger().setLevel(level)
