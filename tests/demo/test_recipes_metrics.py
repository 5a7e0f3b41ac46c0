"""The recipe metrics: counters of all workers, which never go down whatever becomes of these."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from asgi_ipc import Worker, ipc
from demo.recipes import metrics
from tests.serving import DEADLINE_S, Server
from tests.visiting import client, recipe, visits

Series = tuple[str, frozenset[tuple[str, str]]]


def requests(method: str, route: str, status: int) -> Series:
    labels = {"method": method, "route": route, "status": str(status)}
    return "http_requests_total", frozenset(labels.items())


HELLO = requests("GET", "/", 200)
INCOMPLETE: Series = ("scrape_incomplete", frozenset())


def samples(answer: httpx.Response) -> dict[Series, float]:
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    # The parser is kinder than the format.
    assert answer.text.endswith("\n")
    families = text_string_to_metric_families(answer.text)
    found = [sample for family in families for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}


class Scraper:
    """Prometheus: every worker is as good as another, and no counter may go down."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.last: dict[Series, float] = {}

    async def scrape(self, visitor: httpx.AsyncClient | None = None) -> dict[Series, float]:
        if visitor is None:
            async with client(self.server) as anybody:
                return await self.scrape(anybody)
        found = samples(await visitor.get("/metrics"))
        for name, value in self.last.items():
            assert name == INCOMPLETE or found[name] >= value
        self.last = found
        return found


async def test_a_sum_over_all_workers_survives_kills_stalls_and_restarts() -> None:
    async with recipe("metrics") as server:
        pids = server.workers()
        prometheus = Scraper(server)
        async with visits(server, pids) as visitors:
            for visitor in visitors.values():
                await asyncio.gather(*(visitor.get("/") for _ in range(20)))
            # Through the one that is killed next: what it shows, the others know.
            found = await prometheus.scrape(visitors[pids[0]])
            assert (found[HELLO], found[INCOMPLETE]) == (60, 0)
            assert found[requests("GET", "", 404)] >= 3

            # No worker knows its later counts when it is killed; the shown counts stay.
            victim, stalled, other = pids
            await visitors[victim].get("/")
            survivors = await server.kill(victim)
            assert (await prometheus.scrape(visitors[stalled]))[HELLO] == 60

            os.kill(stalled, signal.SIGSTOP)
            await visitors[other].get("/")
            found = await prometheus.scrape(visitors[other])
            assert (found[HELLO], found[INCOMPLETE]) == (61, 1)
            os.kill(stalled, signal.SIGCONT)
            async with asyncio.timeout(DEADLINE_S):
                while (await prometheus.scrape())[INCOMPLETE]:
                    pass
            # Never scraped before they leave: handed over.
            for pid in (stalled, other):
                await visitors[pid].get("/")
        for round_number in range(2):
            survivors = await server.restart()
            assert (await prometheus.scrape())[HELLO] == 63 + round_number * len(survivors)
            async with visits(server, survivors) as visitors:
                for visitor in visitors.values():
                    await visitor.get("/")


async def test_scrapes_while_requests_come_and_workers_are_replaced_never_go_down() -> None:
    async with recipe("metrics", workers=2) as server:
        done = asyncio.Event()
        sent = 0

        async def load() -> None:
            nonlocal sent
            while not done.is_set():
                async with client(server) as visitor:
                    await visitor.get("/")
                sent += 1

        async def scrapes() -> None:
            prometheus = Scraper(server)
            while not done.is_set():
                await prometheus.scrape()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load())
            tasks.create_task(scrapes())
            await server.restart()
            done.set()
        assert (await Scraper(server).scrape())[HELLO] == sent


@pytest.fixture
def nothing_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, empty in {"own": Counter(), "rows": {}, "summed": Counter(), "summed_to": 0}.items():
        monkeypatch.setattr(metrics, name, empty)


@pytest.mark.usefixtures("nothing_counted")
def test_series_are_escaped_bounded_and_count_what_fails() -> None:
    assert metrics.series("n", a='b"\\\n', c="d") == 'n{a="b\\"\\\\\\n",c="d"}'
    with TestClient(metrics.app) as visitor:
        for method, path in (("GET", "/"), ("BREW", "/"), ("GET", "/made-up"), ("GET", "/made-up-too")):
            visitor.request(method, path)
        found = samples(visitor.get("/metrics"))  # type: ignore[arg-type]
    assert found == {
        HELLO: 1,
        requests("other", "/", 405): 1,
        requests("GET", "", 404): 2,
        INCOMPLETE: 0,
    }


@pytest.mark.usefixtures("nothing_counted")
async def test_rows_of_those_who_have_gone_are_added_up_and_come_back_from_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(rows: dict[int, dict[str, int]], summed: dict[str, int], summed_to: int) -> dict[str, Any]:
        return {"rows": rows, "summed": summed, "summed_to": summed_to}

    metrics.learn(told({1: {"a": 1}, 2: {"a": 5}, 150: {"a": 1}}, {}, 0))
    members: tuple[Worker, ...] = (Worker(10, 0, 2), Worker(ipc.pid, 1, 300))
    monkeypatch.setattr(type(ipc), "workers", property(lambda _: members))
    metrics.add_up_old_rows()
    # The second lives; what is behind it waits for it.
    assert (metrics.summed, metrics.summed_to, set(metrics.rows)) == ({"a": 1}, 1, {2, 150})
    members = (Worker(ipc.pid, 1, 300),)
    metrics.add_up_old_rows()
    assert (metrics.summed, metrics.summed_to, metrics.rows) == ({"a": 7}, 150, {})
    metrics.learn(told({2: {"a": 5}, 160: {"a": 1}}, {"a": 1}, 1))
    assert (metrics.summed, set(metrics.rows)) == ({"a": 7}, {160})
    metrics.learn(told({}, {"a": 8}, 160))
    assert (metrics.summed, metrics.summed_to, metrics.rows) == ({"a": 8}, 160, {})
