"""Figures of several rounds: counts add up, and the worst stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.trial import PURE, Trial


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(PURE, 2, tmp_path)


def test_figures_of_several_rounds_are_one(trial: Trial) -> None:
    for number, one in enumerate(trial.rounds()):
        one.equal("left", 3, 3)
        one.none("orphans", 0)
        one.none("lines", [])
        one.sums("messages", {"accepted": 10 + number})
        one.within("noticed", 0.1 + number / 10, 1.0)
        one.ended(0)
        one.check("verdict", number, True)
    assert {each.what: each.measured for each in trial.figures} == {
        "left": "6 of 6",
        "orphans": "0",
        "lines": "0",
        "messages": "21 accepted",
        "noticed within 1 s": "median 200.0 ms, longest 200.0 ms",
        "exit status": "0, 0",
        "verdict": "1",
    }
    assert trial.failures == []


@pytest.mark.parametrize("bad", [0, 1])
def test_one_bad_round_of_two_fails(trial: Trial, bad: int) -> None:
    for number, one in enumerate(trial.rounds()):
        is_bad = number == bad
        one.equal("left", 4 if is_bad else 2, 3)
        one.none("orphans", int(is_bad))
        one.none("lines", ["died"] * is_bad)
        one.within("noticed", 2.0 if is_bad else 0.1, 1.0)
        one.ended(int(is_bad))
        one.yes("bound", not is_bad)
    assert [each.holds for each in trial.figures] == [False] * 6


def test_parts_with_a_prefix_have_figures_of_their_own(trial: Trial) -> None:
    trial.part("plain").none("orphans", 0)
    trial.part("hang", "with a time-out: ").none("orphans", 1)
    assert trial.failures == ["FAILS  with a time-out: orphans: 1"]
