"""The messages of all examples: a question for the pid, and a job that takes a while."""

import asyncio
import os

from asgi_ipc import ipc


@ipc.receive("who")
def who(data):
    return ipc.pid


@ipc.receive("job")
async def job(seconds: float):
    os.write(1, b"job begins\n")
    await asyncio.sleep(seconds)
    os.write(1, b"job ends\n")
