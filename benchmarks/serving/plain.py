"""The endpoint for plain uvicorn: this package is not imported."""

from __future__ import annotations

from starlette.applications import Starlette

from benchmarks.serving.endpoint import ready, routes

app = Starlette(routes=routes, lifespan=ready)
