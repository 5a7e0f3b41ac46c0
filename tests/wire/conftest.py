"""The wire's tests, each with both engines.

Law: a file of tests asks for `each_engine` once, and imports what it tests as usual. The fixture gives these
names the classes and functions of one engine, then of the other, in the file and in the helpers of all.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

import pytest

from asgi_ipc import engine
from tests import encoding
from tests.engines import Engine, variant

_WIRE: Final = f"{engine.PACKAGE}.wire."


@pytest.fixture(scope="module", params=["native", "pure"])
def each_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Run the tests of this file with each engine, and return its name."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (request.module, encoding):
            for name, value in _of_the_wire(module).items():
                patch.setattr(module, name, getattr(variant(value.__module__, request.param), value.__name__))
        yield request.param


def _of_the_wire(module: ModuleType) -> dict[str, Any]:
    """Return the classes and functions of the wire that a module has imported."""
    return {
        name: value
        for name, value in vars(module).items()
        if str(getattr(value, "__module__", "")).startswith(_WIRE) and hasattr(value, "__name__")
    }
