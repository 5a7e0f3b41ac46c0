"""Counts for Prometheus, summed over all workers, including those that have gone.

    asgi-ipc serve demo.recipes.metrics:app --workers 4

Guaranteed: a counter never goes down as long as any worker lives, so `rate()` sees no false reset: a worker
that leaves hands its counts to the others, and all workers know the counts of a scrape before the scrape
shows them. Nothing is counted twice: each worker has a row of its own, and the larger of two versions of a
row counts. If a worker does not answer, its last known counts are shown, and `scrape_incomplete` is 1.

Not guaranteed: the counts of a killed worker since the last scrape. After a full restart of the server all
counts begin at 0, which Prometheus expects.

Gauges of live workers (open connections) are a sum of `answers` alone; histograms are counters, one per
bucket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_ipc import ipc

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# The row of a worker that has gone is added to the sum when so many workers have started since: all workers
# know the row then.
KEPT_GENERATIONS: Final = 100

# This worker's counts, by series: name{label="value"}.
own: Counter[str] = Counter()

# The rows of all workers, by generation, as far as this worker knows them; and the sum of all up to
# `summed_to`.
rows: dict[int, Counter[str]] = {}
summed: Counter[str] = Counter()
summed_to = 0


def series(name: str, **labels: str) -> str:
    """Return the name of a series in the text format."""
    escaped = {
        label: value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        for label, value in labels.items()
    }
    return name + "{" + ",".join(f'{label}="{value}"' for label, value in escaped.items()) + "}"


@ipc.receive("metrics.known")
def known(_: object = None) -> dict[str, Any]:
    """Return all that this worker knows, with its own row up to date."""
    all_rows = {generation: dict(row) for generation, row in rows.items()}
    all_rows[ipc.worker.generation] = dict(own)
    return {"rows": all_rows, "summed": dict(summed), "summed_to": summed_to}


@ipc.receive("metrics.learn")
def learn(theirs: dict[str, Any]) -> None:
    """Take over what another worker knows. The result does not depend on order or repeats."""
    global summed, summed_to
    if theirs["summed_to"] > summed_to:
        summed, summed_to = Counter[str](theirs["summed"]), theirs["summed_to"]
    for generation, row in theirs["rows"].items():
        rows[generation] = rows.get(generation, Counter()) | Counter[str](row)
    for generation in [each for each in rows if each <= summed_to]:
        del rows[generation]


def add_up_old_rows() -> None:
    """Add old rows to the sum, so that rows stay few however often workers are replaced."""
    global summed_to
    newest = max(worker.generation for worker in ipc.workers)
    alive = min(worker.generation for worker in ipc.workers)
    for generation in sorted(rows):
        if generation < alive and generation <= newest - KEPT_GENERATIONS:
            summed.update(rows.pop(generation))
            summed_to = generation


async def metrics(request: Request) -> PlainTextResponse:
    """Answer Prometheus; any worker can."""
    answers = await ipc.gather("metrics.known", timeout=1.0)
    for theirs in answers.values():
        learn(theirs)
    add_up_old_rows()
    await ipc.broadcast("metrics.learn", known(), include_self=False, timeout=0)
    total = sum(rows.values(), summed)
    lines = ["# HELP http_requests_total Requests, by route.", "# TYPE http_requests_total counter"]
    lines += [f"{name} {count}" for name, count in sorted(total.items())]
    lines += ["# HELP scrape_incomplete Whether a worker did not answer.", "# TYPE scrape_incomplete gauge"]
    lines += [f"scrape_incomplete {0 if answers.complete else 1}"]
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


class CountRequests:
    """ASGI middleware. It counts by route, not by path, or a client could make up series without end."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500  # if it raises

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path", "")
            own[series("http_requests_total", method=method, route=route, status=str(status))] += 1


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with ipc.lifespan(app):
        yield
        # Its requests are done: these counts are its last.
        await ipc.broadcast("metrics.learn", known(), include_self=False)


async def index(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello\n")


app = Starlette(
    lifespan=lifespan,
    middleware=[Middleware(CountRequests)],
    routes=[Route("/", index), Route("/metrics", metrics)],
)
