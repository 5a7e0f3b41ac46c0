"""The results of the benchmarks: ratios, targets, tables, the chart, and the README's part."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.cases import CASES
from benchmarks.chart import bars_of, chart, costs_of
from benchmarks.comparison import comparison, yardstick_of
from benchmarks.figures import figures, interval, peers_of
from benchmarks.judgement import BenchmarkError, Run
from benchmarks.publication import BEGIN, END, publish, readme_part, with_part
from benchmarks.report import everything, figures_table, side_by_side, thousands
from benchmarks.results import Circumstances, Footprint, LeftOut, Record, Result, save
from benchmarks.serving.http import judge

WHERE = Circumstances("2026-01-02T03:04:05+00:00", "c0ffee", False, "a cpu", 2, "Linux", 0.1, {"python": "3"})


def result(subject: str, case: str, rates: list[float], **more: object) -> Result:
    shape = case.split("-nowait")[0].split("-await")[0]
    values = {"loop": "uvloop", "group": 3, "p50_us": 0.0, "p99_us": 0.0, "cpu_us": 0.0} | more
    times = {name: values.pop(name) for name in ("p50_us", "p99_us", "cpu_us")}
    runs = [Run([1], [2], 1, rate, **times) for rate in rates]  # type: ignore[arg-type]
    return Result(subject=subject, case=case, shape=shape, count=1, runs=runs, **values)  # type: ignore[arg-type]


def record(*results: Result, footprints: list[Footprint] | None = None) -> Record:
    return Record(WHERE, list(results), [LeftOut("Slow", "C4-10B", "it can't")], footprints or [])


def reached(of: Record, case: str, against: str) -> bool | None:
    (one,) = [line for line in figures(of) if line.case == case and line.against.startswith(against)]
    return one.is_reached


OURS = result("asgi-ipc", "A-10B-nowait", [4000.0, 400.0])
FAST = result("Fast", "A-10B", [1000.0, 100.0])
SLOW = result("Slow", "A-10B", [10.0, 1.0])
Y1 = result("Y1", "Y1", [2001.0, 200.1], loop="")
Y4 = result("Y4", "Y4", [8001.0, 800.1], loop="")


def test_a_figure_is_against_the_fastest_peer() -> None:
    whole = record(OURS, SLOW, FAST, Y1, Y4)
    assert peers_of(whole, "A-10B") == [FAST, SLOW]
    assert reached(whole, "A-10B-nowait", "Fast") is True
    assert reached(record(OURS, result("Fast", "A-10B", [1001.0, 100.1])), "A-10B-nowait", "Fast") is False


def test_a_figure_just_missed_is_not_reached() -> None:
    whole = record(OURS, Y1, Y4)
    assert reached(whole, "A-10B-nowait", "Y1") is False
    assert reached(whole, "A-10B-nowait", "Y4") is False
    assert reached(whole, "A-10B-nowait", "the fastest peer") is None


def test_a_time_is_to_be_at_most_so_long() -> None:
    def whole(p50_us: float, p99_us: float) -> Record:
        return record(
            result("asgi-ipc", "D-free-await", [1.0], p50_us=p50_us, p99_us=10.0),
            result("asgi-ipc", "D-load-await", [1.0], p50_us=1.0, p99_us=p99_us),
            result("Y3", "Y3-free", [1.0], p50_us=4.0),
        )

    assert reached(whole(5.0, 30.0), "D-free-await, p50", "Y3") is True
    assert reached(whole(5.1, 30.0), "D-free-await, p50", "Y3") is False
    assert reached(whole(5.0, 30.0), "D-load-await, p99", "idle") is True
    assert reached(whole(5.0, 31.0), "D-load-await, p99", "idle") is False


def test_growth_is_compared_by_what_the_machine_gave_in_each_group() -> None:
    def whole(at_64: float) -> Record:
        return record(
            result("asgi-ipc", "G-4-nowait", [1.0], cpu_us=2.0, group=4),
            result("Y4", "Y4", [1000.0], loop="", group=4),
            # The machine was half as fast meanwhile.
            result("asgi-ipc", "G-64-nowait", [1.0], cpu_us=at_64, group=64),
            result("Y4", "Y4", [500.0], loop="", group=64),
        )

    case = "G, CPU per delivery at 64 workers"
    assert reached(whole(5.2), case, "at 4") is True
    assert reached(whole(5.3), case, "at 4") is False


def footprints(ready_s: float, pss_mib: float, wakeups: float) -> list[Footprint]:
    return [
        Footprint("uvicorn", "uvloop", 4, [1.0], [20.0 * 2**20], [1.0], [10.0]),
        Footprint("asgi-ipc", "uvloop", 4, [ready_s], [pss_mib * 2**20], [1.0], [wakeups]),
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [((1.05, 22.9, 11.0), [True] * 3), ((1.2, 23.1, 12.0), [False] * 3)],
)
def test_start_memory_and_wake_ups_are_differences_to_plain_uvicorn(
    values: tuple[float, float, float], expected: list[bool]
) -> None:
    whole = record(footprints=footprints(*values))
    assert [line.is_reached for line in figures(whole) if line.case.startswith(("F", "G, idle"))] == expected


def test_the_interval_holds_the_mean_and_narrows_with_agreement() -> None:
    mean, low, high = interval([0.9, 1.0, 1.1] * 10)
    assert 0.9 < low < mean < high < 1.1
    assert interval([1.0] * 20) == (1.0, 1.0, 1.0)
    assert interval([0.9, 1.1] * 10) == interval([0.9, 1.1] * 10)


def test_all_that_was_not_measured_is_said_and_nothing_is_taken_for_reached() -> None:
    assert {line.is_reached for line in figures(record())} == {None}
    assert "not measured" in figures_table(record())


def test_tables_name_who_has_no_figure_and_why() -> None:
    text = everything(record(OURS, FAST, Y1, Y4))
    assert "| Slow | C4-10B | it can't |" in text
    assert "| A-10B-nowait | asgi-ipc (uvloop) | 2.2 |" in text
    assert "| Fast (uvloop) | 0.55 |" in side_by_side(record(OURS, FAST, Y1, Y4))


def test_a_rate_has_the_digits_it_deserves() -> None:
    assert [thousands(rate) for rate in (1_234_567, 12_345, 234.5)] == ["1,235", "12.3", "0.23"]


def test_a_quick_run_is_compared_by_shares_of_the_yardstick() -> None:
    # A machine twice as fast, and a change that brings half as much again.
    before = record(
        result("asgi-ipc", "A-10B-nowait", [100.0, 100.0]), result("Y4", "Y4", [200.0, 200.0], loop="")
    )
    after = record(
        result("asgi-ipc", "A-10B-nowait", [300.0, 300.0]), result("Y4", "Y4", [400.0, 400.0], loop="")
    )
    assert "| A-10B-nowait | uvloop | Y4 | 0.5 | 0.75 | 1.50 | 0% | better |" in comparison(before, after)
    assert "| 0.67 | 0% | worse |" in comparison(after, before)


def test_a_time_that_grew_is_worse_and_a_change_within_the_spread_is_nothing() -> None:
    def whole(p50s_us: list[float]) -> Record:
        ours = [Run([1], [2], 1, 1.0, p50_us=p50) for p50 in p50s_us]
        y3 = [Run([1], [2], 1, 1.0, p50_us=10.0)] * len(ours)
        return record(
            Result("asgi-ipc", "uvloop", "D-free-await", "D-free", 3, 1, ours),
            Result("Y3", "uvloop", "Y3-free", "Y3-free", 3, 1, y3),
        )

    assert "| 1.50 | 0% | worse |" in comparison(whole([20.0, 20.0]), whole([30.0, 30.0]))
    assert "| 1.25 | 50% |  |" in comparison(whole([15.0, 25.0]), whole([25.0, 25.0]))


def test_the_chart_is_well_formed_and_shows_everyone_with_the_fastest_first() -> None:
    growth = [
        result("asgi-ipc", f"G-{workers}-nowait", [1.0], cpu_us=4.5, group=workers) for workers in (2, 4, 64)
    ]
    whole = record(OURS, SLOW, FAST, result("A & B <co>", "A-10B", [1.0]), *growth)
    assert [bar.name for bar in bars_of(whole, "A-10B")] == [
        "asgi-ipc, _nowait",
        "Fast",
        "Slow",
        "A & B <co>",
    ]
    assert costs_of(whole) == [(2, 4.5), (4, 4.5), (64, 4.5)]
    root = ElementTree.fromstring(chart(whole))
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Fast", "A & B <co>", "What a delivery costs, by the number of workers"} <= set(texts)
    assert ElementTree.fromstring(chart(record())) is not None


PAGE = f"above\n{BEGIN}\nold\n{END}\nbelow\n"


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    assert with_part(PAGE, "new\n") == f"above\n{BEGIN}\nnew\n{END}\nbelow\n"
    for page in ("above\nbelow\n", f"{BEGIN}\nold\n", f"old\n{END}\n"):
        with pytest.raises(BenchmarkError, match="does not have the lines"):
            with_part(page, "new")


def test_a_publication_has_its_machine_date_and_commit(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(PAGE)
    whole = record(OURS, FAST, SLOW, Y1, Y4)
    for path in publish(whole, tmp_path):
        assert "a cpu" in path.read_text()
        assert "c0ffee" in path.read_text()
        assert "2026-01-02" in path.read_text()
    page = (tmp_path / "README.md").read_text()
    assert "old" not in page
    assert readme_part(whole).strip() in page


def test_the_readme_has_the_fastest_of_each_known_peer_and_the_page_has_all() -> None:
    whole = record(
        OURS,
        FAST,
        result("ZeroMQ", "A-10B", [90_000.0]),
        result("ZeroMQ", "A-10B", [1_866_000.0], loop=""),
        result("NATS", "B20-10KiB", [41_000.0]),
    )
    part = readme_part(whole)
    assert "| **asgi-ipc**, `_nowait` | 2.2 |  |  |  |" in part
    assert "| ZeroMQ | 1,866 |  |  |  |" in part
    assert "| NATS |  |  |  | 41.0 |" in part
    assert "Fast" not in part
    assert "| Fast (uvloop) |" in side_by_side(whole)


def test_a_run_that_was_kept_is_published_without_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(PAGE)
    kept = record(OURS, FAST)
    save(kept, tmp_path / "kept.json")
    monkeypatch.setattr("benchmarks.__main__.publish", lambda record: publish(record, tmp_path))
    assert main(["--publish-from", str(tmp_path / "kept.json")]) == 0
    assert readme_part(kept).strip() in (tmp_path / "README.md").read_text()


def test_nothing_is_written_if_the_readme_has_no_place(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("no marks\n")
    with pytest.raises(BenchmarkError):
        publish(record(OURS), tmp_path)
    assert not list((tmp_path / "docs").iterdir())


WRK = """\
  Latency Distribution
     50%  498.00us
     75%    0.90ms
     99%    2.50ms
  30000 requests in 1.00s, 4.5MB read
Requests/sec:  29876.54
"""


def test_what_wrk_says_is_read_in_its_units() -> None:
    run = judge(WRK, [7, 8], 9)
    assert (run.per_second, run.p50_us, run.p99_us) == (29876.54, 498.0, 2500.0)
    assert (run.senders, run.receivers) == ([9], [7, 8])


@pytest.mark.parametrize(
    "said", ["", WRK + "  Non-2xx or 3xx responses: 3\n", WRK + "  Socket errors: connect 0\n"]
)
def test_a_failed_request_fails_the_run(said: str) -> None:
    with pytest.raises(BenchmarkError, match="wrk"):
        judge(said, [7], 9)


def test_every_case_has_a_yardstick_to_compare_by() -> None:
    assert {yardstick_of(case) for case in CASES} == {"Y2", "Y3-free", "Y3-one-cpu", "Y4"}
