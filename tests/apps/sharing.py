"""An app that uses `multiprocessing`: shared memory with a name, and whatever its processes inherit.

Law: what is made here is left to the resource tracker.
"""

from __future__ import annotations

import multiprocessing
import os
from hashlib import sha256
from multiprocessing import parent_process, shared_memory
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

kept: list[shared_memory.SharedMemory] = []


async def create(request: Request) -> JSONResponse:
    """Make shared memory that begins with 42; its name, and the worker's pid."""
    memory = shared_memory.SharedMemory(create=True, size=64)
    assert memory.buf is not None
    memory.buf[0] = 42
    kept.append(memory)
    return JSONResponse([memory.name, os.getpid()])


async def read(request: Request) -> JSONResponse:
    """Return the first byte of the shared memory of that name."""
    memory = shared_memory.SharedMemory(request.path_params["name"])
    assert memory.buf is not None
    first = memory.buf[0]
    memory.close()
    return JSONResponse(first)


async def inherited(request: Request) -> JSONResponse:
    """Return the state of `multiprocessing` in this process."""
    parent = parent_process()
    return JSONResponse(
        {
            "pid": os.getpid(),
            "key": sha256(multiprocessing.current_process().authkey).hexdigest(),
            "name": multiprocessing.current_process().name.rstrip("0123456789"),
            "method": multiprocessing.get_start_method(),
            "parent": None if parent is None else [parent.name, parent.pid, parent.is_alive()],
            "log_level": multiprocessing.get_logger().level,
        }
    )


def secret(request: Request) -> JSONResponse:
    """Answer whether a reader of /proc could see the key (proc(5))."""
    key = bytes(multiprocessing.current_process().authkey)
    seen = []
    for file in ("cmdline", "environ"):
        text = Path(f"/proc/self/{file}").read_bytes()
        seen.append(key in text or key.hex().encode() in text)
    return JSONResponse(seen)


app = Starlette(
    routes=[
        Route("/create", create),
        Route("/read/{name}", read),
        Route("/inherited", inherited),
        Route("/secret", secret),
    ]
)
