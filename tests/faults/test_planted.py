"""The planted bugs: each still has its place. That they are caught is a command's to find out."""

from __future__ import annotations

from pathlib import Path

import pytest

import asgi_ipc
from tests.faults.planted import stages
from tests.faults.planted_bugs import PLANTED, Planted


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_its_place_is_found_once(bug: Planted) -> None:
    text = (Path(asgi_ipc.__file__).parent / bug.file).read_text()
    assert bug.plant(text) != text


def test_every_test_but_the_demos_has_a_stage() -> None:
    tests = Path(__file__).parents[1]
    found = [file for stage in stages(tests) for file in stage]
    wanted = {str(file.relative_to(tests.parent)) for file in tests.rglob("test_*.py")}
    left_out = wanted - set(found)
    assert left_out == {file for file in wanted if file.startswith("tests/demo/")} | {
        "tests/project/test_source.py"
    }
    assert all(stages(tests))
