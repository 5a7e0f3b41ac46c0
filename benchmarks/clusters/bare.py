"""The bare client of NATS: envelopes through the server, and requests, in two processes.

Law: as the bridge does it: so much on its way at once, and an acknowledgement for so many bytes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import nats
from nats.aio.msg import Msg

from benchmarks.clusters.app import ACKNOWLEDGED_BYTES, WINDOW_BYTES


async def take(url: str) -> None:
    """Acknowledge what comes, answer questions, until the process is ended."""
    client = await nats.connect(url)
    taken_bytes = unacknowledged_bytes = 0

    async def on_envelope(message: Msg) -> None:
        nonlocal taken_bytes, unacknowledged_bytes
        if not message.data:
            taken_bytes = unacknowledged_bytes = 0
            return
        taken_bytes += len(message.data)
        unacknowledged_bytes += len(message.data)
        if unacknowledged_bytes >= ACKNOWLEDGED_BYTES:
            unacknowledged_bytes = 0
            await client.publish("taken", str(taken_bytes).encode())

    async def on_question(message: Msg) -> None:
        await message.respond(message.data)

    await client.subscribe("envelopes", cb=on_envelope)
    await client.subscribe("question", cb=on_question)
    await client.flush()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def send(url: str, count: int, size_bytes: int) -> float:
    """Send so many envelopes of a size; the seconds until nearly all are acknowledged."""
    client = await nats.connect(url)
    acknowledged_bytes = 0
    progress = asyncio.Event()

    async def on_taken(message: Msg) -> None:
        nonlocal acknowledged_bytes
        acknowledged_bytes = int(message.data)
        progress.set()

    await client.subscribe("taken", cb=on_taken)
    await client.publish("envelopes", b"")
    await client.flush()
    data = bytes(size_bytes)
    started_s = time.monotonic()
    for number in range(count):
        while number * size_bytes - acknowledged_bytes > WINDOW_BYTES:
            progress.clear()
            await progress.wait()
        await client.publish("envelopes", data)
    while acknowledged_bytes <= count * size_bytes - ACKNOWLEDGED_BYTES - size_bytes:
        progress.clear()
        await progress.wait()
    seconds = time.monotonic() - started_s
    await client.close()
    return seconds


async def ask(url: str, count: int) -> list[float]:
    """Ask so many times; how long each took, in seconds."""
    client = await nats.connect(url)
    times_s = []
    for _ in range(count):
        started_s = time.perf_counter()
        await client.request("question", b"question")
        times_s.append(time.perf_counter() - started_s)
    await client.close()
    return times_s


def main() -> None:
    """One part, as the arguments say; its result is a line of JSON."""
    part, url, *numbers = sys.argv[1:]
    if part == "take":
        asyncio.run(take(url))
    elif part == "send":
        sys.stdout.write(json.dumps(asyncio.run(send(url, *map(int, numbers)))))
    else:
        sys.stdout.write(json.dumps(asyncio.run(ask(url, *map(int, numbers)))))


if __name__ == "__main__":
    main()
