"""The planted bugs: each still has its place. That they are caught is a command's to find out."""

from __future__ import annotations

from pathlib import Path

import pytest

import asgi_ipc
from tests.faults.planted_bugs import PLANTED, Planted


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_its_place_is_found_once(bug: Planted) -> None:
    text = (Path(asgi_ipc.__file__).parent / bug.file).read_text()
    assert bug.plant(text) != text
