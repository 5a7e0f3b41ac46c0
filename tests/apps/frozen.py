"""A program for PyInstaller: it parses its arguments, and serves its own app, on request with uvicorn."""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import uvicorn

import asgi_ipc
from asgi_ipc import ipc


def double(number: int) -> int:
    """Run in a process of a pool."""
    return 2 * number


async def _answer(path: str) -> Any:
    if path == "/pool":
        with ProcessPoolExecutor(1) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, double, 21)
    if path == "/members":
        return sorted(worker.pid for worker in ipc.workers)
    return [os.getpid(), sys.argv[1:]]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The app that the program serves."""
    if scope["type"] == "lifespan":
        await receive()
        async with ipc.lifespan(app):
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = json.dumps(await _answer(scope["path"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def _say(text: str) -> None:
    os.write(2, f"{text} in {os.getpid()}\n".encode())


def main() -> None:
    """As one writes it."""
    if "UNGUARDED" not in os.environ:
        multiprocessing.freeze_support()
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server", default="asgi_ipc")
    # Without freeze_support the arguments that multiprocessing gives its children are there, too.
    options, _ = parser.parse_known_args() if "UNGUARDED" not in os.environ else _only_port()
    _say("above")
    server = uvicorn if options.server == "uvicorn" else asgi_ipc
    server.run("frozen:app", workers=2, port=options.port)
    _say("below")


def _only_port() -> tuple[argparse.Namespace, list[str]]:
    return argparse.Namespace(port=int(os.environ["UNGUARDED"]), server="asgi_ipc"), []


if __name__ == "__main__":
    main()
