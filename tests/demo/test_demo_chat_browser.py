"""The chat in a real Chromium: two pages on different workers, across a kill, a restart and a reload."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browsing import Open, browsing, chats_through, demo  # noqa: F401  (the fixture "server")
from tests.serving import DEADLINE_S, Server

pytestmark = pytest.mark.browser


@pytest.fixture
async def open_page(server: Server) -> AsyncIterator[Open]:
    async with browsing(server) as open_page:
        yield open_page


@pytest.fixture
async def pages(open_page: Open) -> tuple[Page, Page]:
    """Two pages that talk through two workers."""
    one, other = await open_page(), await open_page()
    async with asyncio.timeout(DEADLINE_S):
        while await chats_through(one) == await chats_through(other):
            await other.reload()
    for page, name in ((one, "Ann"), (other, "Ben")):
        await page.get_by_label("My name", exact=True).fill(name)
    return one, other


def box(page: Page) -> Locator:
    return page.get_by_label("Say something in the chat")


async def say(page: Page, text: str) -> None:
    await box(page).fill(text)
    await box(page).press("Enter")


def lines(page: Page) -> Locator:
    """Return the confirmed lines, in the order shown."""
    return page.locator("#conversation .line:not(.waiting)")


async def expect_said(page: Page, *texts: str) -> None:
    """The whole conversation, in this order."""
    await expect(lines(page).locator(".text")).to_have_text(list(texts))
    await expect(page.locator("#conversation .waiting")).to_have_count(0)


async def test_two_pages_on_different_workers_talk_and_a_reload_loses_nothing(
    pages: tuple[Page, Page],
) -> None:
    one, other = pages
    markup = '<img src=x onerror="alert(1)"> & <b>hello</b>'
    await say(one, markup)
    await expect_said(other, markup)
    await say(other, "and to you")
    for page in pages:
        await expect_said(page, markup, "and to you")
        await expect(lines(page).locator(".name")).to_have_text(["Ann", "Ben"])
        through = [f"worker {await chats_through(each)}" for each in pages]
        await expect(lines(page).locator(".through")).to_have_text(through)
        await expect(page.locator("#conversation :is(img, b)")).to_have_count(0)

    await box(one).press_sequentially("a draft")
    await one.reload()
    await expect_said(one, markup, "and to you")
    await expect(box(one)).to_have_value("a draft")
    await expect(one.get_by_label("My name", exact=True)).to_have_value("Ann")
    # Names and hues are known, too.
    await expect(one.locator(".line.mine .text")).to_have_text([markup])


async def test_a_page_whose_worker_is_killed_comes_back_with_everything(pages: tuple[Page, Page]) -> None:
    one, other = pages
    for number in range(3):
        await say(one, f"before {number}")
    await expect_said(other, "before 0", "before 1", "before 2")
    victim = await chats_through(one)
    os.kill(victim, signal.SIGKILL)
    # This holds whether the page has noticed or not.
    for number in range(3):
        await say(one, f"while {number}")
    await box(one).press_sequentially("not said yet")
    await say(other, "still there?")
    await expect(one.locator("#chat-connection")).not_to_have_text(re.compile(str(victim)))
    await expect(one.locator('#chat-connection[data-state="connected"]')).to_be_visible()
    for page in pages:
        await expect(lines(page)).to_have_count(7)
        await expect(page.locator("#conversation .waiting")).to_have_count(0)
    texts = await lines(one).locator(".text").all_text_contents()
    assert await lines(other).locator(".text").all_text_contents() == texts
    said = [f"{when} {number}" for when in ("before", "while") for number in range(3)]
    assert [text for text in texts if text != "still there?"] == said
    await expect(box(one)).to_have_value("not said yet")
    await expect(box(one)).to_be_focused()
    await box(one).press("Enter")
    await expect(lines(other).last.locator(".text")).to_have_text("not said yet")


async def test_what_is_said_during_a_rolling_restart_is_not_lost(
    server: Server, pages: tuple[Page, Page]
) -> None:
    before = server.workers()
    said = []
    for number in range(30):
        if number == 3:
            server.signal(signal.SIGHUP)
        page, text = pages[number % 2], f"line {number}"
        await say(page, text)
        said.append(text)
        # A conversation: a person that answers has read the line.
        await expect(lines(pages[(number + 1) % 2]).last.locator(".text")).to_have_text(text)
    await server.said("All workers have been restarted")
    for page in pages:
        await expect_said(page, *said)
    for page in pages:
        for pid in before:
            await expect(page.locator("#chat-connection")).not_to_have_text(re.compile(rf"worker {pid}\b"))
    await say(pages[0], "after it")
    await expect_said(pages[1], *said, "after it")


async def test_what_is_said_while_no_worker_answers_waits_until_one_does(
    server: Server, pages: tuple[Page, Page]
) -> None:
    one, other = pages
    stopped = server.workers()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        await say(one, "is anybody there?")
        waiting = one.locator("#conversation .waiting")
        await expect(waiting.locator(".text")).to_have_text("is anybody there?")
        await expect(waiting.locator(".through")).to_have_text("not sent yet")
        # A worker that says nothing for seconds is one that hangs.
        await expect(one.locator("#chat-connection")).to_have_text(re.compile("reconnecting|trying again"))
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    await expect_said(one, "is anybody there?")
    await expect_said(other, "is anybody there?")
