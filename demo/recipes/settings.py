"""Settings and the log level, changed in all workers at once, without a restart.

    asgi-ipc serve demo.recipes.settings:app --workers 4

Guaranteed: a change reaches every worker, and all workers end up with the same settings: of two changes of
one setting the later one wins, also across workers. A worker that joins (after a crash, a rolling restart,
scaling) asks the others, and has the present settings before its first request.

Not guaranteed: the same moment everywhere; a worker that stands still learns of a change when it goes on. The
settings live in the workers: if all of them are gone at once, the initial settings are back. Keep settings
that must survive that in a file or a database as well.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from asgi_ipc import ipc

logger = logging.getLogger("shop")


class Settings(BaseModel):
    """All settings, with their initial values."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    maintenance: bool = False
    page_size: int = Field(default=50, ge=1, le=1000)


settings = Settings()

# The changes by name: the time, the worker's pid, the new value.
changed: dict[str, tuple[int, int, Any]] = {}


@ipc.receive("settings.apply")
def apply(changes: dict[str, tuple[int, int, Any]]) -> None:
    """Take over changes that are later than those known here. Run in every worker."""
    for name, (at_ns, pid, value) in changes.items():
        # A worker of an older release may know settings that this one does not.
        if name in Settings.model_fields and (at_ns, pid) > changed.get(name, (0, 0))[:2]:
            setattr(settings, name, value)
            changed[name] = (at_ns, pid, value)
    logging.getLogger().setLevel(settings.log_level)


@ipc.receive("settings.changed")
def tell(_: object) -> dict[str, tuple[int, int, Any]]:
    """Tell a newcomer the changes."""
    return changed


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    logging.basicConfig(level=settings.log_level)
    async with ipc.lifespan(app):
        # This worker is a member from here on, so later changes reach it, too.
        answers = await ipc.gather("settings.changed", include_self=False, timeout=1.0)
        for changes in answers.values():
            apply(changes)
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/settings")
async def show() -> Settings:
    logger.debug("somebody looks at the settings")
    return settings


@app.patch("/settings")
async def change(new: Settings) -> dict[str, Any]:
    """Apply the given changes, here first; all processes of a machine share this clock."""
    now_ns = time.monotonic_ns()
    changes = {name: (now_ns, ipc.pid, value) for name, value in new.model_dump(exclude_unset=True).items()}
    apply(changes)
    told = await ipc.broadcast("settings.apply", changes, include_self=False)
    return {"settings": settings, "told": told}
