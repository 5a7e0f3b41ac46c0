"""The talk: the messages of the demo, and what each worker does on hearing one.

    hello     from the routes: log it, answer with reply
    reply     the answer: log it
    seen      "I have received this": to all, so that any page shows what any worker received
    recall    "what have you received lately?": to all, when a page opens
    recalled  one answer to that

Law: every worker remembers only what it received itself, and is asked for it.
So it does not matter which worker a page reaches, nor how old that one is.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from asgi_ipc import IPCError, ipc
from demo.journal import Entry, Journal
from demo.watchers import Watcher, Watchers

logger = logging.getLogger("uvicorn.error")

# What a card of the page can show of one message.
MAX_PREVIEW_CHARS: Final = 500

# What a card of the page holds.
MAX_RECALLED: Final = 50

received: Final = Journal()
watchers: Final = Watchers()


@ipc.receive("hello")
async def hello(data: Any) -> None:
    """Log it, show it, answer it."""
    entry = _note("hello", data)
    logger.info("worker [%d]: %d says %.200r", ipc.pid, entry.sender, data)
    await _announce(entry)
    try:
        await ipc.reply("reply", f"hello to you too. You said {data}")
    except IPCError as error:
        logger.warning("worker [%d] could not answer %d: %s", ipc.pid, entry.sender, error)


@ipc.receive("reply")
async def reply(data: Any) -> None:
    """Log it, show it."""
    entry = _note("reply", data)
    logger.info("worker [%d]: %d replied %.200r", ipc.pid, entry.sender, data)
    await _announce(entry)


@ipc.receive("seen")
def seen(message: dict[str, Any]) -> None:
    """A worker has received something: whoever watches here is told."""
    watchers.tell_all(message)


@ipc.receive("recall")
def recall(token: int) -> None:
    """A page has opened at another worker: tell what there is to see here."""
    try:
        for entry in received.entries[-MAX_RECALLED:]:
            ipc.reply_nowait("recalled", {"token": token, "message": _shown(entry)})
    except IPCError as error:
        logger.warning("worker [%d] could not tell %s what it received: %s", ipc.pid, ipc.sender, error)


@ipc.receive("recalled")
def recalled(answer: dict[str, Any]) -> None:
    """What a worker had received before the page opened."""
    watchers.tell(answer["token"], answer["message"])


async def ask_all(watcher: Watcher) -> None:
    """Have every worker tell `watcher` what it received before now; from now on it is told anyway."""
    await ipc.broadcast("recall", watcher.token, timeout=0)


def _note(name: str, data: Any) -> Entry:
    sender = ipc.sender
    assert sender is not None
    slot = next((worker.slot for worker in ipc.workers if worker.pid == sender), None)
    return received.add(name, sender, slot, data, time.time())


async def _announce(entry: Entry) -> None:
    try:
        # A worker too slow to take it now shows it when a page opens there.
        await ipc.broadcast("seen", _shown(entry), timeout=0)
    except IPCError as error:
        logger.debug("not shown: %s", error)


def _shown(entry: Entry) -> dict[str, Any]:
    generation = next(worker.generation for worker in ipc.workers if worker.pid == ipc.pid)
    return {
        "generation": generation,
        "number": entry.number,
        "name": entry.name,
        "from": entry.sender,
        "from_slot": entry.sender_slot,
        "text": entry.text[:MAX_PREVIEW_CHARS],
        "more_chars": max(0, len(entry.text) - MAX_PREVIEW_CHARS),
        "at_s": entry.at_s,
    }
