"""The event loops of a test: those that its module names in `LOOP_FACTORIES`, or asyncio's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


def pytest_asyncio_loop_factories(item: pytest.Item) -> Any:
    """Tell pytest-asyncio."""
    assert isinstance(item, pytest.Function)
    return getattr(item.module, "LOOP_FACTORIES", {"asyncio": asyncio.new_event_loop})
