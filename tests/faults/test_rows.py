"""Every row of the table of faults, in its short form.

Law: the same code as the long run, with less of everything; a figure that
does not hold fails the test with what was measured.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.rows import ROWS
from tests.faults.trial import NotHereError, Row, Trial, Variant

pytestmark = pytest.mark.slow

SHORT = [
    pytest.param(row, variant, id=f"{name}-{variant.name}")
    for name, row in ROWS.items()
    for variant in row.short_variants
]


@pytest.mark.parametrize(("row", "variant"), SHORT)
async def test_the_promises_hold_in_the_short_form_of(row: Row, variant: Variant, tmp_path: Path) -> None:
    trial = Trial(variant, row.short, tmp_path)
    try:
        await row.run(trial)
    except NotHereError as reason:
        pytest.skip(str(reason))
    assert trial.figures
    assert trial.failures == []
