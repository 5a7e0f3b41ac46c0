"""An error inside a callback of the event loop fails the test: asyncio itself only logs it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_error_in_a_callback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Look at what asyncio has logged while the test ran."""
    yield
    errors = [each for each in caplog.get_records("call") if each.name == "asyncio"]
    assert not [each.getMessage() for each in errors if each.levelno >= logging.ERROR]
