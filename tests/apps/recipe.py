"""The recipe of demo/recipes that $RECIPE names; its answers name the worker that gave them.

Law: nothing else is added, so what is tested is the recipe as it stands there.
"""

from __future__ import annotations

import importlib
import os

from starlette.types import ASGIApp, Message, Receive, Scope, Send

recipe: ASGIApp = importlib.import_module(f"demo.recipes.{os.environ['RECIPE']}").app


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The recipe, with the header `x-worker`: a pid."""

    async def signed(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept"):
            mine = (b"x-worker", str(os.getpid()).encode())
            message = {**message, "headers": [*message.get("headers", []), mine]}
        await send(message)

    await recipe(scope, receive, signed)
