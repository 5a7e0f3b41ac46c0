"""The demo as one of several hosts: what a page is told, and `make demo-cluster` up to its Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import psutil
import pytest
from starlette.websockets import WebSocket

from asgi_ipc import IPC, ipc
from asgi_ipc.testing import Members, Nodes, cluster
from asgi_ipc.testing.child import Child
from demo.chat import history
from demo.live import live
from tests.brokers import nats_server
from tests.inprocess import until
from tests.serving import ROOT, eventually, free_port

WORKERS = 2


class Page:
    """A WebSocket whose page reads everything.

    Attributes:
        words: what it was told.
    """

    def __init__(self) -> None:
        self.words: list[dict[str, Any]] = []

    async def accept(self) -> None:
        pass

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("it never goes by itself")

    async def send_json(self, word: dict[str, Any]) -> None:
        self.words.append(word)

    @property
    def fleet(self) -> dict[str, Any]:
        """What it knows of the hosts now."""
        return next((word for word in reversed(self.words) if word["kind"] == "fleet"), {})

    def told(self, text: str) -> list[dict[str, Any]]:
        return [word for word in self.words if word["kind"] == "message" and word["text"] == text]


@asynccontextmanager
async def looking(nodes: Nodes, here: Members) -> AsyncIterator[Page]:
    """A page at the first worker of a node, of which all others know."""
    page = Page()
    with here.acting(here[0]):
        showing = asyncio.create_task(live(cast(WebSocket, page)))
    try:
        await until(lambda: bool(page.fleet))
        yield page
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


def shown(member: IPC, name: str, state: str) -> dict[str, Any]:
    """A host, as the page is told of it: the node of a member."""
    workers = [{"pid": w.pid, "slot": w.slot, "generation": w.generation} for w in member.workers]
    return {"id": member.cluster.node.id, "name": name, "state": state, "workers": workers}


async def test_the_page_is_told_of_both_hosts_and_of_one_only_when_the_other_is_cut_off() -> None:
    async with cluster(2, WORKERS, like=ipc) as nodes, looking(nodes, nodes[0]) as page:
        a, b = nodes
        both = [shown(a[0], "node-0", "here"), shown(b[0], "node-1", "connected")]
        assert page.fleet["nodes"] == both
        assert [each["pid"] for each in page.fleet["workers"]] == [member.pid for member in a]
        nodes.broker.cut(b)
        await until(lambda: "nodes" not in page.fleet)
        states = {word["nodes"][1]["state"] for word in page.words if "nodes" in word}
        assert "suspect" in states
        nodes.broker.heal(b)
        await until(lambda: page.fleet.get("nodes") == both)


async def test_a_broadcast_is_shown_under_every_worker_of_both_hosts_with_its_sender() -> None:
    async with cluster(2, WORKERS, like=ipc) as nodes, looking(nodes, nodes[0]) as page:
        a, b = nodes
        await b[1].broadcast("hello", "to all of you")
        there = b[0].cluster.node.id
        expected: set[tuple[str | None, int, str | None]]
        expected = {(None, member.worker.generation, "node-1") for member in a}
        expected |= {(there, member.worker.generation, None) for member in b}

        def told() -> set[tuple[str | None, int, str | None]]:
            words = page.told("to all of you")
            assert {(word["from"], word["from_slot"]) for word in words} <= {(b[1].pid, 1)}
            return {(word.get("node"), word["generation"], word["from_host"]) for word in words}

        await until(lambda: told() >= expected)
        # Each has answered, also over the broker.
        answered = {(there, member.pid, "node-0") for member in a}

        def replies() -> set[tuple[str | None, int, str | None]]:
            words = [word for word in page.words if word.get("name") == "reply"]
            return {(word.get("node"), word["from"], word["from_host"]) for word in words}

        await until(lambda: replies() >= answered)


async def test_a_page_that_opens_later_is_told_what_the_other_host_has_received() -> None:
    async with cluster(2, WORKERS, like=ipc) as nodes:
        _, b = nodes
        await b[0].send(b[1].pid, "hello", "before the page")
        await nodes.settled()
        async with looking(nodes, nodes[0]) as page:
            # The members of one process share a journal, so those of this host have it, too.
            there = b[0].cluster.node.id
            await until(lambda: any(word.get("node") == there for word in page.told("before the page")))


async def test_a_host_that_comes_back_is_asked_for_what_was_said_there() -> None:
    asked: list[int] = []
    async with cluster(2, 1, like=ipc) as nodes:
        a, b = nodes

        def conversation(data: object) -> list[Any]:
            asked.append(b[0].pid)
            return history(data)

        b[0].receive("conversation", conversation)
        nodes.broker.cut(b)
        await until(lambda: len(a[0].cluster.nodes) == 1)
        nodes.broker.heal(b)
        await until(lambda: bool(asked))


# --- make demo-cluster


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
async def test_one_signal_stops_the_broker_and_both_nodes(name: signal.Signals) -> None:
    nats_server()
    port = free_port()
    command = [sys.executable, str(ROOT / "scripts" / "demo_cluster.py"), str(port)]
    child = Child(command, env=os.environ, cwd=ROOT)
    started: list[psutil.Process] = []
    try:

        def text() -> str:
            return child.read(0).decode(errors="replace")

        def is_said(line: re.Pattern[str]) -> bool:
            return line.search(text()) is not None

        for node in ("left", "right"):
            line = re.compile(rf"Node \w+ \({node}\) is connected")
            await eventually(partial(is_said, line), f"{node} is not connected")
        await eventually(lambda: text().count("Open   http://127.0.0.1:") == 2, "two greetings")
        started = psutil.Process(child.pid).children(recursive=True)
        assert len([each for each in started if each.name().startswith("nats-server")]) == 1
        child.signal(name)
        await eventually(lambda: child.status is not None, "it has not ended")
        assert child.status == 0, text()
        assert [each for each in started if each.is_running()] == []
        assert "has stopped" in text()
        assert "has broken" not in text()
        assert "Traceback" not in text()
    finally:
        child.close()
        for each in started:
            if each.is_running():
                each.kill()
