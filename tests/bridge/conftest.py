"""A broker of each kind, for the tests that are the same over both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.brokers import KINDS, Broker, Kind, broker


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """The kind of the broker."""
    kind: Kind = request.param
    return kind


@pytest.fixture
async def running(kind: Kind, tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker that runs."""
    async with broker(kind, tmp_path) as there:
        yield there
