"""The live stream: one WebSocket per page, from the worker that the page reached.

    {"kind": "fleet", "through": pid, "leader": pid or null, "launcher": pid or null,
     "workers": [{"pid", "slot", "generation"}...]}
    {"kind": "message", "generation", "number", "name", "from", "from_slot", "from_host", "text",
     "more_chars", "at_s"}

With several hosts the first word has "nodes", too, this host first, and what a worker of another host has
received has the id of that host:

    "nodes": [{"id", "name", "state", "workers": [...]}...]
    "node": id

Law: the stream only reports; the page sends by the routes, like any client. A page that connects again gets
everything that it may have missed, and more; (generation, number) tells the page which messages it has.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from typing import Any, Final

from starlette.websockets import WebSocket

from asgi_ipc import IPCError, Node, Worker, ipc
from demo.sockets import BEAT_S, hear, opened
from demo.talk import SEEN

# The page sees members and the leader change without delay, at the cost of comparing two tuples.
POLL_S: Final = 0.25


async def live(websocket: WebSocket) -> None:
    """Send one page the members and their messages, until it goes or this worker stops."""
    page = _Page(websocket)
    async with opened(websocket) as tasks:
        tasks.create_task(_until_gone(websocket))
        tasks.create_task(page.follow_fleet())
        # A page that reads too slowly is closed and connects again; no worker waits for it.
        async with ipc.subscribe(SEEN, overflow="close") as seen:
            for worker in ipc.cluster.workers:
                tasks.create_task(page.recall(worker))
            async for publication in seen:
                await page.tell([publication.data])


def launcher_of(workers: Iterable[Worker]) -> int | None:
    """Return the pid that takes HUP, TTIN and TTOU; None if there may be no launcher."""
    # The launcher starts all workers. Without it there is one member, of generation 1.
    return os.getppid() if any(worker.generation > 1 for worker in workers) else None


async def _until_gone(websocket: WebSocket) -> None:
    while True:
        await hear(websocket)


class _Page:
    """The state of the fleet as one page knows it."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._told: tuple[Any, ...] = ()
        self._next_beat_s = 0.0
        self._telling = asyncio.Lock()

    async def follow_fleet(self) -> None:
        while True:
            await self.tell([])
            await asyncio.sleep(POLL_S)

    async def recall(self, worker: Worker) -> None:
        """Send the page what this worker received before; newer messages reach the page by the topic.

        Each worker gets its own question and unlimited time: a worker that stands still answers when it goes
        on.
        """
        try:
            messages = await ipc.cluster.request(worker, "recall", timeout=None)
        except IPCError:
            # The worker has gone, and its card with it.
            return
        await self.tell(messages)

    async def tell(self, messages: Iterable[dict[str, Any]]) -> None:
        """Send these messages, and before them the fleet, if it has changed or a beat is due.

        The fleet comes first, so that the page has a card for the messages of a newcomer.
        """
        async with self._telling:
            now_s = asyncio.get_running_loop().time()
            leader, workers, nodes = ipc.leader, ipc.workers, _hosts(ipc.cluster.nodes)
            if (leader, workers, nodes) != self._told or now_s >= self._next_beat_s:
                word = {"kind": "fleet", "through": ipc.pid, "leader": leader, "workers": _members(workers)}
                word["launcher"] = launcher_of(workers)
                if nodes:
                    word["nodes"] = nodes
                await self._websocket.send_json(word)
                self._told = leader, workers, nodes
                self._next_beat_s = now_s + BEAT_S
            for message in messages:
                word = {"kind": "message", **message}
                if word.get("node") == ipc.worker.node:
                    del word["node"]
                await self._websocket.send_json(word)


def _members(workers: Iterable[Worker]) -> list[dict[str, int]]:
    return [{"pid": w.pid, "slot": w.slot, "generation": w.generation} for w in workers]


def _hosts(nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """Return what a page shows of the hosts; nothing if there is one only."""
    if len(nodes) == 1:
        return []
    return [
        {"id": node.id, "name": node.name, "state": node.state, "workers": _members(node.workers)}
        for node in nodes
    ]
