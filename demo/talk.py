"""The talk: the messages of the demo, and how each worker handles them.

    hello     from the routes: log it, answer with reply
    reply     the answer: log it
    seen      a topic, "I have received this": any page shows what any worker received
    recall    a question, "what have you received lately?": to each worker when a page opens
    uptime    a question from the route: for how long has this worker been running?

Law: every worker remembers only its own messages, and the others ask it for them. So a page may reach any
worker, old or new.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from asgi_ipc import IPCError, Worker, ipc
from demo.journal import Entry, Journal

logger = logging.getLogger("uvicorn.error")

# A card of the page shows so much of one message.
MAX_PREVIEW_CHARS: Final = 500

# A card of the page holds so many messages.
MAX_RECALLED: Final = 50

# The topic that every open page subscribes to.
SEEN: Final = "seen"

received: Final = Journal()
_started_s: Final = time.monotonic()


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


@ipc.receive("recall")
def recall(_: Any) -> list[dict[str, Any]]:
    """Answer a page that has opened somewhere with the messages received here."""
    return [_shown(entry) for entry in received.entries[-MAX_RECALLED:]]


@ipc.receive("uptime")
def uptime(_: Any) -> float:
    """Return the seconds since this worker imported the app."""
    return time.monotonic() - _started_s


def _note(name: str, data: Any) -> Entry:
    sender = ipc.sender_worker
    assert sender is not None
    # A worker of another host has no pid here, since pids of two hosts may be equal: `ipc.sender` is None.
    host = None if ipc.sender is not None else host_of(sender)
    slot = sender.slot if sender in ipc.cluster.workers else None
    return received.add(name, sender.pid, slot, data, time.time(), host)


def host_of(worker: Worker) -> str:
    """Return the name of a worker's host, or its id if it has gone."""
    names = {node.id: node.name for node in ipc.cluster.nodes}
    return names.get(worker.node, worker.node)


async def _announce(entry: Entry) -> None:
    try:
        # A worker too slow to take it now still shows the message when a page opens there.
        await ipc.publish(SEEN, _shown(entry), timeout=0)
    except IPCError as error:
        logger.debug("not shown: %s", error)


def _shown(entry: Entry) -> dict[str, Any]:
    return {
        "node": ipc.worker.node,
        "generation": ipc.worker.generation,
        "number": entry.number,
        "name": entry.name,
        "from": entry.sender,
        "from_slot": entry.sender_slot,
        "from_host": entry.host,
        "text": entry.text[:MAX_PREVIEW_CHARS],
        "more_chars": max(0, len(entry.text) - MAX_PREVIEW_CHARS),
        "at_s": entry.at_s,
    }
