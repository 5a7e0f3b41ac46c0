"""Browsing: the demo's page in a real headless Chromium.

Law: a test waits for what the page shows. A page that asks another host for anything, or whose script fails,
fails the test.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import pytest
from playwright.async_api import Locator, Page, async_playwright, expect

from tests.needs import need
from tests.serving import DEADLINE_S, Server, serving

# Only the page's own requests may use the network.
ARGUMENTS: Final = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

WORKERS: Final = 3

Open: TypeAlias = Callable[[], Awaitable[Page]]

expect.set_options(timeout=DEADLINE_S * 1000)


@pytest.fixture(name="server")
async def demo() -> AsyncIterator[Server]:
    """The demo, with all workers ready."""
    need("chromium")
    async with serving("demo:app", workers=WORKERS) as server:
        await server.started(WORKERS)
        yield server


@asynccontextmanager
async def browsing(server: Server) -> AsyncIterator[Open]:
    """A browser, and a function that opens the demo's page: each time as another person, and connected."""
    own = f"127.0.0.1:{server.port}"
    asked: list[str] = []
    errors: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=need("chromium"), args=ARGUMENTS)

        async def open_page() -> Page:
            page = await browser.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.on("websocket", lambda websocket: asked.append(websocket.url))
            page.on("pageerror", lambda error: errors.append(str(error)))
            await page.goto(f"http://{own}/")
            await expect(page.locator("#connection")).to_have_text(
                re.compile(r"connected through worker \d+")
            )
            await expect(page.locator("#chat-connection")).to_have_text(re.compile(r"through worker \d+"))
            return page

        yield open_page
        await browser.close()
    assert {f"ws://{own}/live", f"ws://{own}/chat"} <= set(asked)
    assert [url for url in asked if not re.match(f"(http|ws)://{re.escape(own)}/", url)] == []
    assert errors == []


def card(page: Page, pid: int) -> Locator:
    return page.locator(f'.worker[data-pid="{pid}"]')


async def chats_through(page: Page) -> int:
    """Return the worker to which the page's chat is connected."""
    text = await page.locator('#chat-connection[data-state="connected"]').text_content()
    found = re.search(r"through worker (\d+)", text or "")
    assert found is not None
    return int(found[1])
