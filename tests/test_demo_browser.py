"""The page in a real Chromium: what is sent appears under the right workers, and it follows the fleet."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Locator, Page, async_playwright, expect

from tests.serving import DEADLINE_S, Server, serving

WORKERS = 3
# Nothing but what the page asks for shall use the network.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.browser

expect.set_options(timeout=DEADLINE_S * 1000)


@pytest.fixture
def chromium() -> str:
    """Where the browser is. Debian's; Playwright's own download is not used."""
    if os.environ.get("ASGI_IPC_NO_BROWSER"):
        pytest.skip("ASGI_IPC_NO_BROWSER is set")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail(
            "no chromium in PATH: install it (apt-get install chromium), or set ASGI_IPC_NO_BROWSER=1"
        )
    return path


@pytest.fixture
async def server(chromium: str) -> AsyncIterator[Server]:
    async with serving("demo:app", workers=WORKERS) as server:
        await server.started(WORKERS)
        yield server


@pytest.fixture
async def page(chromium: str, server: Server) -> AsyncIterator[Page]:
    """The demo's page, open and connected; the test fails if it asks another host for anything."""
    own = f"127.0.0.1:{server.port}"
    asked: list[str] = []
    errors: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = await browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda websocket: asked.append(websocket.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(f"http://{own}/")
        await expect(page.locator("#connection")).to_have_text(re.compile(r"connected through worker \d+"))
        await expect(page.locator(".worker")).to_have_count(WORKERS)
        yield page
        await browser.close()
    assert f"ws://{own}/live" in asked
    assert [url for url in asked if not re.match(f"(http|ws)://{re.escape(own)}/", url)] == []
    assert errors == []


def card(page: Page, pid: int) -> Locator:
    return page.locator(f'.worker[data-pid="{pid}"]')


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

    # Whoever opens the page later sees the same, whichever worker answers.
    await page.reload()
    await expect(hello(card(page, one), text)).to_have_count(1)
    for pid in [one, *others]:
        await expect(hello(card(page, pid), "for all")).to_have_count(1)
    await expect(page.locator(".message img")).to_have_count(0)


async def test_a_killed_worker_goes_and_its_successor_comes(server: Server, page: Page) -> None:
    victim, *others = server.workers()
    slot = page.locator(".slot").filter(has=card(page, victim))
    number = await slot.get_attribute("data-slot")
    # What was being typed goes on to the successor.
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


async def test_the_page_follows_a_rolling_restart_and_scaling(server: Server, page: Page) -> None:
    before = server.workers()
    server.signal(signal.SIGHUP)
    await server.said("All workers have been restarted")
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


async def test_an_open_page_holds_up_no_stop(server: Server, page: Page) -> None:
    assert await server.stop() == 0
    await expect(page.locator("#connection")).to_contain_text("no worker answers")
