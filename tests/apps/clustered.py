"""An app of a cluster: every worker notes what it hears, and any of them can be asked for it.

Law: what a test wants to know it asks by HTTP, of the workers here or of all nodes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import Node, Worker, ipc

notes: list[Any] = []
publications: list[Any] = []
gaps: list[list[Any]] = []
joins: list[str] = []
leaves: list[list[str]] = []


def _named(worker: Worker | None) -> list[Any]:
    return [worker.node, worker.pid] if worker is not None else []


@ipc.receive("note")
def note(data: Any) -> None:
    notes.append([data, ipc.sender, _named(ipc.sender_worker)])


@ipc.receive("state")
def state(data: Any) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "node": ipc.cluster.node.id,
        "nodes": {node.name: [node.id, node.state, len(node.workers)] for node in ipc.cluster.nodes},
        "notes": notes,
        "publications": publications,
        "gaps": gaps,
        "joins": joins,
        "leaves": leaves,
        "stats": dict(ipc.stats().cluster),
    }


@ipc.receive("who")
def who(data: Any) -> list[Any]:
    return [data, ipc.cluster.node.id, os.getpid(), *_named(ipc.sender_worker)]


async def listen() -> None:
    async with ipc.subscribe("news") as messages:
        async for message in messages:
            publications.append([message.data, message.missed])


@ipc.cluster.on_gap
def gap(node: Node, lost: int | None) -> None:
    gaps.append([node.name, lost])


@ipc.cluster.on_node_join
def joined(node: Node) -> None:
    joins.append(node.name)


@ipc.cluster.on_node_leave
def left(node: Node, reason: str) -> None:
    leaves.append([node.name, reason])


async def here(request: Request) -> JSONResponse:
    """The state of each worker of this server."""
    return JSONResponse([*(await ipc.gather("state")).values()])


async def say(request: Request) -> JSONResponse:
    """Broadcast and publish that text; what is returned are the pids here."""
    text = request.query_params["text"]
    return JSONResponse([[*await ipc.broadcast("note", text)], [*await ipc.publish("news", text)]])


async def ask(request: Request) -> JSONResponse:
    """Ask all workers of all nodes, one by one and at once."""
    answers = [await ipc.cluster.request(worker, "who", "one") for worker in ipc.cluster.workers]
    rows = await ipc.cluster.gather("who", "all")
    return JSONResponse(
        {
            "me": [ipc.cluster.node.id, os.getpid()],
            "one": answers,
            "all": [*rows.values()],
            "complete": rows.complete,
        }
    )


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with ipc.lifespan(app):
        listening = asyncio.create_task(listen())
        yield
    listening.cancel()


app = Starlette(routes=[Route("/here", here), Route("/say", say), Route("/ask", ask)], lifespan=lifespan)
