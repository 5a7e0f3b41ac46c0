"""Used by scripts/wheels: one message from worker to worker, moved by the engine that is named."""

import asyncio
import sys

from asgi_ipc.testing import fleet


async def main(engine: str) -> None:
    async with fleet(2) as (first, second):
        arrived = asyncio.get_running_loop().create_future()
        second.receive("note", arrived.set_result)
        await first.send(second.pid, "note", [1, "two", b"3"])
        assert await asyncio.wait_for(arrived, 30) == [1, "two", b"3"]
        assert first.stats().engine == engine, first.stats().engine


asyncio.run(main(sys.argv[1]))
