"""The benchmarks as a command: what is built, that messages are checked, that a loss is seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.__main__ import main
from benchmarks.comparison import STEADY
from benchmarks.ours import builds
from benchmarks.results import load
from tests.needs import need

ONE_SHORT_RUN = ["--loop", "uvloop", "--runs", "1", "--run-seconds", "0.02", "--without-peers"]


def test_this_tree_is_served_from_a_folder_where_no_other_package_is_found() -> None:
    with builds.present() as build:
        there = subprocess.run(
            [build.python, "-c", "import asgi_ipc, benchmarks; print(asgi_ipc.__file__)"],
            cwd=build.folder,
            capture_output=True,
            text=True,
            check=True,
        )
        import asgi_ipc

        assert Path(there.stdout.strip()).resolve() == Path(asgi_ipc.__file__).resolve()
    assert not build.folder.exists()


def test_a_commit_that_is_not_here_is_left_out() -> None:
    with (
        pytest.raises(builds.NoSuchCommitError, match="commit no-such-commit"),
        builds.of_commit("no-such-commit"),
    ):
        pass


def test_an_installed_build_of_other_sources_is_told_from_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, installed = tmp_path / "asgi_ipc", tmp_path / "installed"
    for folder in (here, installed):
        (folder / "wire").mkdir(parents=True)
        (folder / "wire" / "run.py").write_text("same")
        (folder / "errors.py").write_text("same")
    monkeypatch.setattr(builds, "ROOT", tmp_path)
    assert builds._changed(installed) == []
    (installed / "errors.py").write_text("different")
    (installed / "wire" / "run.py").unlink()
    assert builds._changed(installed) == ["errors.py", "wire/run.py"]


@pytest.mark.slow
def test_the_command_measures_this_tree_and_an_older_commit_in_the_same_rounds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("benchmarks.__main__.FOLDER", tmp_path)
    monkeypatch.setattr(
        builds, "of_commit", lambda revision: builds._of_tree(builds.older(revision), sys.executable)
    )
    cases = [
        word for name in ("A-10B-nowait", "A-1MiB-nowait", "D-free-request") for word in ("--only", name)
    ]
    assert main([*ONE_SHORT_RUN, *cases, "--against-commit", "HEAD", "--save", "kept"]) == 0
    record = load(tmp_path / "kept.json")
    for subject in ("asgi-ipc", record.against):
        one = record.find(subject, "uvloop", "A-10B-nowait")
        assert one is not None
        assert one.cpu_us > 0
    assert {"Y1", "Y2", "Y3", "Y4", "Y5", "Y6"} <= {result.subject for result in record.results}
    assert "| A-10B-nowait | at most 0.4 x the CPU per delivery of HEAD |" in capsys.readouterr().out


@pytest.mark.slow
def test_a_planted_loss_of_five_percent_of_the_instructions_is_seen() -> None:
    need("valgrind")
    case = "10B-nowait"
    with builds.present() as build:
        counted = instructions.count(build, [case, f"{case}+100"])
        each = (counted[f"{case}+100"] - counted[case]) / 100
        loops = round(0.05 * counted[case] / each)
        again = instructions.count(build, [case, f"{case}+{loops}"])
    assert abs(again[case] / counted[case] - 1) < STEADY
    assert again[f"{case}+{loops}"] / counted[case] - 1 > STEADY
