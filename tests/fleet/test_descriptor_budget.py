"""Sentences for a limit that is too low: each names the limit, its value here, and the way to raise it."""

from __future__ import annotations

import pytest

from asgi_ipc.fleet import descriptor_budget as budget

RAISE = "Raise it: ulimit -n, or LimitNOFILE= under systemd, or --ulimit nofile= under Docker"


def test_a_fleet_needs_more_with_each_worker() -> None:
    assert [budget.launcher_needs(workers, 10) for workers in (1, 2, 100)] == [29, 32, 326]
    assert [budget.worker_needs(workers) for workers in (1, 2, 100)] == [28, 30, 226]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            budget.too_few_to_start(1, 29, 28, 16),
            ["1 worker needs at least 29", "28 in each worker", "may have 16 here", RAISE, "fewer workers"],
        ),
        (budget.too_few_to_start(2, 32, 30, 16), ["2 workers need at least 32"]),
        (budget.no_descriptor_here(16), ["may have 16 descriptors and all are in use", RAISE]),
        (budget.no_descriptor_for(7, 8, 16), ["Worker [7] can't send to worker [8] yet", "have 16", RAISE]),
        (budget.no_file_in_system(), ["fs.file-max", "fs.pipe-user-pages-hard"]),
        (budget.no_process(), ["ulimit -u", "TasksMax=", "--pids-limit"]),
        (budget.small_pipes(4096, 65536), ["4,096 bytes instead of 65,536", "fs.pipe-user-pages-soft"]),
    ],
)
def test_a_limit_is_named_with_its_value_and_the_way_to_raise_it(text: str, parts: list[str]) -> None:
    assert [part for part in parts if part not in text] == []
