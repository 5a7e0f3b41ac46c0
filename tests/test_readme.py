"""The README: its example of joins and departures, as it stands there, in a real server."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from tests.serving import DEADLINE_S, ROOT, Server, eventually, serving

AROUND = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


async def who(request):
    return JSONResponse({"pid": ipc.pid, "online": sorted(online)})


app = Starlette(routes=[Route("/who", who)], lifespan=ipc.lifespan)
"""


def example(heading: str) -> str:
    """The first Python code below a heading."""
    page = (ROOT / "README.md").read_text()
    found = re.search(rf"^#+ {heading}$.*?^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


async def told(server: Server, is_so: Callable[[dict[int, set[int]]], bool]) -> dict[int, set[int]]:
    """Of whom each worker has heard, once that is so; each request may meet any of them."""
    known: dict[int, set[int]] = {}
    async with asyncio.timeout(DEADLINE_S):
        while not is_so(known):
            answer = (await server.get("/who")).json()
            known[answer["pid"]] = set(answer["online"])
    return known


async def test_a_newcomer_is_told_what_the_others_know_and_who_has_gone_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "presence.py").write_text(example("When a worker goes") + AROUND)
    async with serving("presence:app", "--app-dir", str(tmp_path), workers=2) as server:
        await server.started(2)
        # The one that joined first has told the other.
        known = await told(server, lambda known: any(known.values()))
        ((survivor, (victim,)),) = [(pid, others) for pid, others in known.items() if others]
        os.kill(victim, signal.SIGKILL)
        await server.started(3)
        await eventually(lambda: victim not in server.workers(), "it is gone")
        (successor,) = set(server.workers()) - {survivor}
        now: dict[int, set[int]] = {survivor: set(), successor: {survivor}}
        assert await told(server, lambda known: known == now) == now
        assert await server.stop() == 0
        assert "lost" not in server.text
