"""docs/mutants.md: every survivor in it can be found in the package."""

from __future__ import annotations

from pathlib import Path

import asgi_ipc
from tests.mutants.survivors import PAGE, Key, reasons, row


def test_a_survivor_is_read_back_from_its_line_of_the_page() -> None:
    key = Key("asgi_ipc/fleet/slots.py backoff_s", "a | b -> `c`")
    assert reasons(row(key, "no matter")) == {key: "no matter"}


def test_every_survivor_of_the_page_names_code_that_is_there() -> None:
    page = PAGE.read_text()
    installed = Path(asgi_ipc.__file__).parents[1]
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row(key, reason) for key, reason in reasons(page).items()] == lines
    for key, reason in reasons(page).items():
        path, _, where = key.where.partition(" ")
        assert all(name in (installed / path).read_text() for name in where.split(".")), key
        assert reason
