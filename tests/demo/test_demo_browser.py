"""The page in a real Chromium: what is sent appears under the right workers, and it follows the fleet."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.brokers import broker
from tests.browsing import WORKERS, browsing, card, demo  # noqa: F401  (the fixture "server")
from tests.needs import need
from tests.serving import Server, serving

pytestmark = pytest.mark.browser


@pytest.fixture
async def page(server: Server) -> AsyncIterator[Page]:
    """The demo's page, open and connected."""
    async with browsing(server) as open_page:
        page = await open_page()
        await expect(page.locator(".worker")).to_have_count(WORKERS)
        yield page


def hello(worker: Locator, text: str) -> Locator:
    """The messages `text` shown under a worker, without the answers."""
    return worker.locator(".message:not(.reply) .text").get_by_text(text, exact=True)


async def test_what_is_sent_in_the_page_appears_under_the_right_workers(server: Server, page: Page) -> None:
    one, *others = server.workers()
    text = 'for one <img src=x onerror="alert(1)">/../?#%41'
    await card(page, one).get_by_role("textbox").fill(text)
    await card(page, one).get_by_role("button", name="Send").click()
    await expect(hello(card(page, one), text)).to_have_count(1)
    await expect(card(page, one).locator(".outcome")).to_have_text(re.compile(rf"sent by \d+ to {one}"))

    await page.get_by_label("Message to all workers").fill("for all")
    await page.get_by_role("button", name="Broadcast").click()
    for pid in [one, *others]:
        await expect(hello(card(page, pid), "for all")).to_have_count(1)
    for pid in others:
        await expect(hello(card(page, pid), text)).to_have_count(0)

    # A page opened later shows the same, whichever worker answers.
    await page.reload()
    await expect(hello(card(page, one), text)).to_have_count(1)
    for pid in [one, *others]:
        await expect(hello(card(page, pid), "for all")).to_have_count(1)
    await expect(page.locator(".message img")).to_have_count(0)


async def test_a_killed_worker_goes_and_its_successor_comes(server: Server, page: Page) -> None:
    victim, *others = server.workers()
    slot = page.locator(".slot").filter(has=card(page, victim))
    number = await slot.get_attribute("data-slot")
    # The text being typed moves to the successor.
    await card(page, victim).get_by_role("textbox").fill("a draft")
    os.kill(victim, signal.SIGKILL)
    await expect(card(page, victim)).to_have_count(0)
    successor = page.locator(f'.slot[data-slot="{number}"] .worker')
    await expect(successor).to_have_count(1)
    await expect(successor.get_by_role("textbox")).to_have_value("a draft")
    await expect(successor.get_by_role("textbox")).to_be_focused()
    await successor.get_by_role("button", name="Send").click()
    await expect(hello(successor, "a draft")).to_have_count(1)
    for pid in others:
        await expect(card(page, pid)).to_be_visible()


async def test_exactly_one_worker_leads_and_another_one_does_when_that_is_killed(
    server: Server, page: Page
) -> None:
    leader = page.locator(".worker").filter(
        has=page.get_by_text("leads", exact=True).and_(page.locator(":visible"))
    )
    await expect(leader).to_have_count(1)
    first = int(await leader.get_attribute("data-pid") or "")
    assert first in server.workers()
    await expect(leader.locator(".crown")).to_be_visible()
    await expect(page.locator(".crown:visible")).to_have_count(1)
    os.kill(first, signal.SIGKILL)
    await expect(card(page, first)).to_have_count(0)
    await expect(leader).to_have_count(1)
    await expect(page.locator(".crown:visible")).to_have_count(1)
    assert int(await leader.get_attribute("data-pid") or "") in server.workers()


async def test_the_page_follows_a_rolling_restart_and_scaling(server: Server, page: Page) -> None:
    before = server.workers()
    await server.restart()
    for pid in before:
        await expect(card(page, pid)).to_have_count(0)
    await expect(page.locator(".worker")).to_have_count(WORKERS)

    server.signal(signal.SIGTTIN)
    await expect(page.locator(".worker")).to_have_count(WORKERS + 1)
    server.signal(signal.SIGTTOU)
    await expect(page.locator(".worker")).to_have_count(WORKERS)

    await page.get_by_label("Message to all workers").fill("still here")
    await page.get_by_role("button", name="Broadcast").click()
    for worker in await page.locator(".worker").all():
        await expect(hello(worker, "still here")).to_have_count(1)


async def test_a_phone_shows_whom_it_is_connected_through_and_the_launchers_pid(
    server: Server, page: Page
) -> None:
    await page.set_viewport_size({"width": 360, "height": 740})
    connection = page.locator("#connection")
    assert await connection.evaluate("node => node.scrollWidth <= node.clientWidth")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for name in await page.locator(".launcher").all():
        await expect(name).to_have_text(str(server.pid))


async def test_an_open_page_holds_up_no_stop(server: Server, page: Page) -> None:
    assert await server.stop() == 0
    await expect(page.locator("#connection")).to_contain_text("no worker answers")


async def test_every_worker_is_asked_for_its_uptime_and_each_has_its_row(server: Server, page: Page) -> None:
    pids = server.workers()
    answers = page.locator("#answers .answer")
    ask = page.get_by_role("button", name="Ask every worker")
    await ask.click()
    await expect(answers).to_have_count(WORKERS)
    for pid in pids:
        row = page.locator(f'.answer[data-pid="{pid}"]')
        await expect(row.locator(".value")).to_have_text(re.compile(r"^\d+\.\d s$"))
    await expect(page.locator("#ask-outcome")).to_have_text(re.compile(rf"worker \d+ asked; 3 of {WORKERS}"))

    # One that stands still has its own row, and costs the others nothing. The keyboard does it, too.
    still = pids[0]
    os.kill(still, signal.SIGSTOP)
    try:
        await ask.press("Enter")
        failed = page.locator(".answer.failed")
        await expect(failed).to_have_count(1)
        await expect(failed).to_have_attribute("data-pid", str(still))
        await expect(failed.locator(".value")).to_contain_text("RequestTimeoutError")
        await expect(answers).to_have_count(WORKERS)
    finally:
        os.kill(still, signal.SIGCONT)


async def test_two_hosts_stand_side_by_side_and_what_each_receives_is_shown(tmp_path: Path) -> None:
    need("chromium")
    async with (
        broker("nats", tmp_path) as nats,
        serving("demo:app", "--cluster", nats.url(), "--node-name", "left", workers=2) as left,
        serving("demo:app", "--cluster", nats.url(), "--node-name", "right", workers=2) as right,
    ):
        await left.started(2)
        await right.started(2)
        # Children of the launcher are more: its bridge is one, too.
        here, elsewhere = [
            [worker["pid"] for worker in (await server.get("/workers")).json()["workers"]]
            for server in (left, right)
        ]
        async with browsing(left) as open_page:
            page = await open_page()
            hosts = page.locator("#hosts .host")
            await expect(hosts.locator(".host-name")).to_have_text(["left", "right"])
            await expect(hosts.locator(".host-state")).to_have_text(["this host", "connected"])
            there = hosts.nth(1).locator(".host-worker")
            await expect(there).to_have_count(2)
            pids = await there.locator(".pid").all_text_contents()
            assert sorted(map(int, pids)) == sorted(elsewhere)
            await page.get_by_label("Message to all workers").fill("for both hosts")
            await page.get_by_role("button", name="Broadcast").click()
            await expect(there.locator(".last")).to_have_text(["for both hosts"] * 2)
            for pid in here:
                await expect(hello(card(page, pid), "for both hosts")).to_have_count(1)
            # One of both is served as it always was.
            assert await right.stop() == 0
            await expect(page.locator("#hosts")).to_be_hidden()
            await expect(page.locator("#count")).to_have_text(
                "2 workers of one server, talking to each other"
            )
