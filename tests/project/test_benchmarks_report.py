"""The results of the benchmarks: ratios, targets, tables, the chart, and the README's part."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from msgspec import structs

from benchmarks.__main__ import main
from benchmarks.cases import CASES
from benchmarks.chart import bars_of, chart, costs_of
from benchmarks.comparison import comparison, yardstick_of
from benchmarks.figures import figures, peers_of
from benchmarks.judgement import BenchmarkError, Run
from benchmarks.opening import LINES, opening
from benchmarks.publication import BEGIN, END, publish, readme_part, with_part
from benchmarks.report import everything, figures_table, interval, rate, side_by_side
from benchmarks.results import Circumstances, Footprint, LeftOut, Record, Result, save
from benchmarks.serving.http import judge
from benchmarks.tables import thousands

WHERE = Circumstances("2026-01-02T03:04:05+00:00", "c0ffee", False, "a cpu", 2, "Linux", 0.1, {"python": "3"})


def result(subject: str, case: str, rates: list[float], **more: object) -> Result:
    shape = case.split("-nowait")[0].split("-await")[0]
    values = {"loop": "uvloop", "group": 3, "p50_us": 0.0, "p99_us": 0.0, "cpu_us": 0.0} | more
    times = {name: values.pop(name) for name in ("p50_us", "p99_us", "cpu_us")}
    runs = [Run([1], [2], 1, rate, **times) for rate in rates]  # type: ignore[arg-type]
    return Result(subject=subject, case=case, shape=shape, count=1, runs=runs, **values)  # type: ignore[arg-type]


def record(*results: Result, footprints: list[Footprint] | None = None) -> Record:
    left_out = [LeftOut("Slow", "C4-10B", "it can't")]
    return Record(WHERE, list(results), left_out, footprints or [], against=OLDER)


def reached(of: Record, case: str, aim: str) -> bool | None:
    (one,) = [line for line in figures(of) if line.case == case and line.aim is not None and aim in line.aim]
    return one.is_reached


OLDER = "asgi-ipc c0ffee0"
OURS = result("asgi-ipc", "A-10B-nowait", [4000.0, 400.0])
FAST = result("Fast", "A-10B", [1000.0, 100.0])
SLOW = result("Slow", "A-10B", [10.0, 1.0])
PUSH = result("ZeroMQ PUSH", "A-10B", [500.0, 50.0], loop="")
PUB = result("ZeroMQ PUB", "A-10B", [2000.0, 200.0], loop="")
Y1 = result("Y1", "Y1", [2001.0, 200.1], loop="")
Y4 = result("Y4", "Y4", [8001.0, 800.1], loop="")


def test_peers_are_neither_yardsticks_nor_other_builds_and_the_fastest_comes_first() -> None:
    whole = record(OURS, result(OLDER, "A-10B-nowait", [1.0]), SLOW, FAST, Y1, result("Y6", "A-10B", [9.0]))
    assert peers_of(whole, "A-10B") == [FAST, SLOW]


def test_zeromq_is_the_faster_of_push_and_pub() -> None:
    assert reached(record(OURS, PUSH, PUB), "A-10B-nowait", "1.5 x ZeroMQ (ZeroMQ PUB)") is True
    faster = result("ZeroMQ PUB", "A-10B", [2700.0, 270.0], loop="")
    assert reached(record(OURS, PUSH, faster), "A-10B-nowait", "1.5 x ZeroMQ (ZeroMQ PUB)") is False


def test_every_other_peer_is_the_fastest_that_is_not_zeromq() -> None:
    def whole(other: float) -> Record:
        return record(
            result("asgi-ipc", "C4-10B-nowait", [100.0]),
            result("ZeroMQ PUB", "C4-10B", [80.0], loop=""),
            result("Fast", "C4-10B", [other]),
            result("Slow", "C4-10B", [1.0]),
        )

    assert reached(whole(50.0), "C4-10B-nowait", "2 x the fastest other peer (Fast)") is True
    assert reached(whole(51.0), "C4-10B-nowait", "2 x the fastest other peer (Fast)") is False
    assert reached(whole(50.0), "C4-10B-nowait", "1.2 x ZeroMQ") is True


@pytest.mark.parametrize(("cpu_us", "expected"), [(0.39, True), (0.41, False)])
def test_processor_time_is_compared_with_the_older_commit_in_the_same_rounds(
    cpu_us: float, expected: bool
) -> None:
    ours = result("asgi-ipc", "A-10B-nowait", [1.0], cpu_us=cpu_us)
    whole = record(ours, result(OLDER, "A-10B-nowait", [1.0], cpu_us=1.0))
    assert reached(whole, "A-10B-nowait", "0.4 x the CPU per delivery of c0ffee0") is expected
    assert reached(record(ours), "A-10B-nowait", "0.4 x the CPU per delivery") is None


@pytest.mark.parametrize(("per_second", "expected"), [(101.0, True), (99.0, False)])
def test_a_large_message_takes_at_most_twice_as_long_as_its_copies(per_second: float, expected: bool) -> None:
    ours = result("asgi-ipc", "B8-1MiB-nowait", [per_second], group=9)
    whole = record(ours, result("Y5", "Y5", [1.0], loop=""), result("Y5", "Y5", [200.0], loop="", group=9))
    assert reached(whole, "B8-1MiB-nowait", "2 x Y5") is expected


def test_a_round_trip_is_to_take_at_most_so_long() -> None:
    def whole(one_cpu: float, free: float) -> Record:
        return record(
            result("asgi-ipc", "D-one-cpu-nowait", [1.0], p50_us=one_cpu),
            result("Y3", "Y3-one-cpu", [1.0], p50_us=5.0),
            result("asgi-ipc", "D-free-nowait", [1.0], p50_us=free),
            result("Protocol, one by one", "D-free", [1.0], p50_us=10.0),
        )

    assert reached(whole(10.0, 11.0), "D-one-cpu-nowait", "2 x Y3") is True
    assert reached(whole(10.1, 11.0), "D-one-cpu-nowait", "2 x Y3") is False
    assert reached(whole(10.0, 11.0), "D-free-nowait", "one by one") is True
    assert reached(whole(10.0, 11.1), "D-free-nowait", "one by one") is False


@pytest.mark.parametrize(("ready_s", "expected"), [(1.1, True), (1.3, False)])
def test_what_has_no_other_aim_is_not_to_be_slower_than_the_older_commit(
    ready_s: float, expected: bool
) -> None:
    whole = record(
        *(
            result(name, "H4-gather", [1.0], p50_us=p50)
            for name, p50 in (("asgi-ipc", ready_s), (OLDER, 1.0))
        ),
        *(
            result(name, "G-64-nowait", [1.0], cpu_us=us)
            for name, us in (("asgi-ipc", ready_s), (OLDER, 1.0))
        ),
        footprints=[
            Footprint("asgi-ipc", "uvloop", 4, [ready_s], [1.0], [1.0], [1.0]),
            Footprint(OLDER, "uvloop", 4, [1.0], [1.0], [1.0], [1.0]),
        ],
    )
    for case in ("H4-gather", "G-64-nowait", "F, ready"):
        assert reached(whole, case, "at most 1.2 x") is expected
    assert reached(whole, "F, memory per worker", "at most 1.2 x") is True


def test_the_interval_holds_the_mean_and_narrows_with_agreement() -> None:
    mean, low, high = interval([0.9, 1.0, 1.1] * 10)
    assert 0.9 < low < mean < high < 1.1
    assert interval([1.0] * 20) == (1.0, 1.0, 1.0)
    assert interval([0.9, 1.1] * 10) == interval([0.9, 1.1] * 10)


def test_all_that_was_not_measured_is_said_and_nothing_is_taken_for_reached() -> None:
    assert {line.is_reached for line in figures(record())} == {None}
    assert "not measured" in figures_table(record())
    assert "were not measured" in opening(record())


def test_the_page_opens_with_who_is_faster_and_where_it_is_not() -> None:
    whole = record(
        OURS,
        FAST,
        SLOW,
        result("asgi-ipc", "A-1KiB-nowait", [500.0]),
        result("Fast", "A-1KiB", [1000.0]),
        result("asgi-ipc", "D-free-nowait", [1.0], p50_us=11.0),
        result("Slow", "D-free", [9.0], p50_us=10.0),
    )
    text = opening(whole)
    assert "| one to one, 10 B | 2.2 k/s | 0.55 k/s | Fast | **4.0 x faster** |" in text
    assert "| one to one, 1 KiB | 0.50 k/s | 1.0 k/s | Fast | 2.0 x slower |" in text
    assert "| send and reply, p50 | 11.0 us | 10.0 us | Slow | about as fast (0.91 x) |" in text
    assert "Not reached: A-1KiB-nowait." in text
    assert len(LINES) == 10
    assert {case for case, _, _ in LINES} <= {case.name for case in CASES}


def test_tables_name_who_has_no_figure_and_why() -> None:
    text = everything(record(OURS, FAST, Y1, Y4))
    assert "| Slow | C4-10B | it can't |" in text
    assert "| A-10B-nowait | asgi-ipc (uvloop) | 2.2 |" in text
    assert "| Fast | 0.55 |" in side_by_side(record(OURS, FAST, Y1, Y4), rate)


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


def test_five_percent_more_instructions_are_seen_and_one_percent_is_not() -> None:
    before = structs.replace(record(), instructions={"loss": 100.0, "gain": 100.0, "same": 100.0})
    after = structs.replace(record(), instructions={"loss": 105.0, "gain": 95.0, "same": 101.0, "new": 5.0})
    text = comparison(before, after)
    assert "| loss | 100 | 105 | 1.050 | worse |" in text
    assert "| gain | 100 | 95 | 0.950 | better |" in text
    assert "| same | 100 | 101 | 1.010 |  |" in text
    assert "| new |  | 5 |  |  |" in text
    assert "valgrind is not here" in comparison(
        before, structs.replace(record(), uncounted="valgrind is not here")
    )


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
        result("ZeroMQ asyncio", "A-10B", [90_000.0]),
        result("ZeroMQ PUB", "A-10B", [1_500_000.0], loop=""),
        result("ZeroMQ PUSH", "A-10B", [1_866_000.0], loop=""),
        result("NATS", "B20-10KiB", [41_000.0]),
    )
    part = readme_part(whole)
    assert "| **asgi-ipc**, `_nowait` | 2.2 |  |  |  |" in part
    assert "| ZeroMQ | 1,866 |  |  |  |" in part
    assert "| NATS |  |  |  | 41.0 |" in part
    assert "Fast" not in part
    assert "| Fast |" in side_by_side(whole, rate)


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
