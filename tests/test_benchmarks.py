"""Figures are judged as promised, no benchmark hides a failure, and the README says what was measured."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks import harness, readme
from benchmarks.harness import Figure, Machine, Report, Result, percentile, report_json, result_json, shown
from tests.app.test_children import gone

MACHINE = Machine(cpu="a processor", cores=2, memory_gib=4, gpu="", kernel="Linux 6", python="CPython 3.11.7")
REPORT = Report(
    benchmark="speed",
    figures=[
        Figure("lost", 0, "events", target=0, direction="at most", kind="count"),
        Figure("p99", 1.5, "s", target=1.0, direction="at most", kind="latency", note="during an import"),
        Figure("seen", 12, "kills"),
        Figure("found", 0.5, "", headline=True),
    ],
    settings={"seed": 1},
    data="a synthetic shop, seed 1",
)
RESULT = Result(
    report=REPORT,
    command="python -m benchmarks --full speed",
    machine=MACHINE,
    versions={"pydantic": "2"},
    commit="abc",
    date="2026-11-25",
    wall_seconds=1.0,
)


# --- judging ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "full", "small"),
    [
        (Figure("a rate", 100, "/s", target=400, kind="rate"), False, True),
        (Figure("a rate", 79, "/s", target=400, kind="rate"), False, False),
        (Figure("a latency", 4.9, "s", target=1, direction="at most", kind="latency"), False, True),
        (Figure("a latency", 5.1, "s", target=1, direction="at most", kind="latency"), False, False),
        (Figure("a ratio", 1.9, "x", target=2.0, kind="ratio"), False, False),
        (Figure("recall", 0.85, "", target=0.86, kind="quality"), False, False),
        (Figure("lost", 1, "events", target=0, direction="at most", kind="count"), False, False),
        (Figure("lost", 0, "events", target=0, direction="at most", kind="count"), True, True),
        (Figure("kills", 20, "", target=20, kind="count"), True, True),
        (Figure("a control", 0, "stale", target=1, kind="count"), False, False),
        (Figure("no figure", math.nan, "s", target=1, direction="at most", kind="latency"), False, False),
        (Figure("for the record", 3, "s"), None, None),
    ],
)
def test_only_clocks_get_slack_and_only_in_small_runs(
    figure: Figure, full: bool | None, small: bool | None
) -> None:
    assert (figure.met(small=False), figure.met(small=True)) == (full, small)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert [percentile([3, 1, 2, 4], percent) for percent in (0, 50, 75, 99, 100)] == [1, 2, 3, 4, 4]
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 50)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "events", "0 events"),
        (12345.6, "/s", "12,346 /s"),
        (3.14159, "ms", "3.14 ms"),
        (0.8666, "", "0.8666"),
        (0.00012, "s", "0.00012 s"),
        (40.0, "", "40"),
        (123.4, "", "123"),
        (12.34, "x", "12.3 x"),
        (math.nan, "s", "nan s"),
    ],
)
def test_values_are_shown_as_people_read_them(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_a_report_survives_its_file() -> None:
    assert report_json.validate_json(report_json.dump_json(REPORT)).missed(small=False) == [REPORT.figures[1]]
    assert result_json.validate_json(result_json.dump_json(RESULT)).machine == MACHINE


# --- running ---------------------------------------------------------------------------------------

_GOOD = """
from benchmarks.harness import Figure, Report
NAME = "good-one"
def run(*, small, data):
    print("data is", data)
    figure = Figure("p99", 3.0, "s", target=1.0, direction="at most", kind="latency")
    return Report(NAME, [figure], {}, "none")
"""
_BAD = _GOOD.replace("good-one", "bad-one").replace('kind="latency"', 'kind="count"')
_BROKEN = 'NAME = "broken-one"\ndef run(*, small, data):\n    raise RuntimeError("no disk")\n'
_ABSENT = (
    "from benchmarks.harness import Skipped\n"
    'NAME = "absent-one"\ndef run(*, small, data):\n    raise Skipped("abt-buy is not there")\n'
)
_SLOW_AT_FIRST = """
from benchmarks.harness import Figure, Report
NAME = "slow-at-first"
def run(*, small, data):
    runs = data / "runs"
    runs.write_text((runs.read_text() if runs.exists() else "") + "x")
    measured = len(runs.read_text())
    figure = Figure("speed", measured, "x", target=int((data / "wanted").read_text()), kind=KIND)
    return Report(NAME, [figure], {}, "none")
"""
_HANGING = (
    'import os, subprocess, time\nNAME = "hanging-one"\ndef run(*, small, data):\n'
    '    child = subprocess.Popen(["sleep", "60"])\n'
    '    print("started", child.pid, os.getpid(), flush=True)\n    time.sleep(60)\n'
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of its own with the real harness and five small benchmarks."""
    package = tmp_path / "benchmarks"
    package.mkdir()
    for name in ("__init__.py", "__main__.py", "harness.py"):
        (package / name).write_text((harness.ROOT / "benchmarks" / name).read_text())
    for name, source in {
        "good": _GOOD, "bad": _BAD, "broken": _BROKEN, "absent": _ABSENT, "hanging": _HANGING
    }.items():  # fmt: skip
        (package / f"{name}.py").write_text(source)
    return tmp_path


def run(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "SIMSTREAM_DATA": str(tree)},
    )


def test_a_small_run_gives_clocks_slack_and_keeps_nothing(tree: Path) -> None:
    done = run(tree, "--small", "good-one")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"data is {tree}" in done.stdout
    assert "at most 5 (in full: 1)" in done.stdout
    assert not (tree / "benchmarks" / "results").exists()


@pytest.mark.parametrize(
    ("kind", "wanted", "mode", "runs", "code"),
    [
        ("ratio", 3, "--small", 3, 0),
        ("ratio", 4, "--small", 3, 1),
        ("count", 2, "--small", 1, 1),
        ("ratio", 2, "--full", 1, 1),
    ],
)
def test_a_small_run_measures_again_what_a_busy_machine_may_have_spoiled(
    tree: Path, kind: str, wanted: int, mode: str, runs: int, code: int
) -> None:
    (tree / "benchmarks" / "slow_at_first.py").write_text(_SLOW_AT_FIRST.replace("KIND", repr(kind)))
    (tree / "wanted").write_text(str(wanted))
    done = run(tree, mode, "slow-at-first")
    assert (done.returncode, len((tree / "runs").read_text())) == (code, runs), done.stdout + done.stderr


def test_a_full_run_fails_on_a_missed_target_and_keeps_where_it_was_measured(tree: Path) -> None:
    done = run(tree, "--full", "good-one")
    assert done.returncode == 1
    assert "good-one: p99 missed" in done.stdout
    kept = result_json.validate_json((tree / "benchmarks" / "results" / "good-one.json").read_bytes())
    assert kept.command == "python -m benchmarks --full good-one"
    assert kept.machine == harness.this_machine()
    assert "pydantic" in kept.versions


def test_absent_data_skips_with_the_reason_and_does_not_fail(tree: Path) -> None:
    done = run(tree, "--full", "absent-one")
    assert done.returncode == 0, done.stdout
    assert "skipped absent-one: abt-buy is not there" in done.stdout
    assert not (tree / "benchmarks" / "results").exists()


def test_one_that_breaks_fails_the_run_but_not_the_others(tree: Path) -> None:
    done = run(tree, "--small", "broken-one", "bad-one", "good-one")
    assert done.returncode == 1
    assert "no disk" in done.stderr
    assert "broken-one failed" in done.stdout
    assert "bad-one: p99 missed" in done.stdout
    assert "3 benchmarks, 2 failures" in done.stdout


def test_one_that_hangs_is_stopped_with_everything_it_started(tree: Path) -> None:
    done = run(tree, "--small", "hanging-one", "--timeout", "2")
    assert done.returncode == 1
    assert "still running after 2 s, stopped" in done.stdout
    child = int(done.stdout.split("started ")[1].split()[0])
    assert gone(child)


def test_one_that_is_told_to_end_leaves_nothing_behind(tree: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--small", "hanging-one"]
    with subprocess.Popen(command, cwd=tree, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        line = next(line for line in running.stdout if line.startswith("started"))
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 128 + signal.SIGTERM
    assert [gone(int(pid)) for pid in line.split()[1:]] == [True, True]


def test_a_small_run_of_everything_leaves_out_what_tests_run_anyway(tree: Path) -> None:
    for name in ("bad", "broken", "absent", "hanging"):
        (tree / "benchmarks" / f"{name}.py").unlink()
    covered = _GOOD.replace("good-one", "covered-one") + 'COVERED_BY = "tests/covered"\n'
    (tree / "benchmarks" / "covered.py").write_text(covered)
    small = run(tree, "--small")
    assert small.returncode == 0, small.stdout
    assert "left out covered-one: tests/covered runs the same" in small.stdout
    assert "1 benchmarks, 0 failures" in small.stdout
    for name in ("good-one", "covered-one"):
        named = run(tree, "--small", name).stdout
        assert "1 benchmarks, 0 failures" in named
        assert "left out" not in named
    assert "2 benchmarks, 2 failures" in run(tree, "--full").stdout


def test_a_name_that_does_not_exist_is_answered_with_those_that_do(tree: Path) -> None:
    done = run(tree, "--small", "goood-one")
    assert done.returncode == 2
    assert "no benchmark goood-one; there are: absent-one, bad-one, broken-one, good-one" in done.stderr


def test_every_benchmark_of_the_house_is_found_under_its_files_name() -> None:
    found = command_line.discover()
    assert {name: one.module for name, one in found.items()} == {
        name: f"benchmarks.{name.replace('-', '_')}" for name in found
    }
    longer = {name: one.full_seconds for name, one in found.items() if one.full_seconds != 5_400}
    assert longer == {"capacity": 18_000}
    covered = {name: one.covered_by for name, one in found.items() if one.covered_by}
    assert covered == {
        "api": "tests/service",
        "compress": "tests/test_compress.py",
        "chaos": "tests/chaos",
        "continual": "tests/test_continual.py",
        "craft": "tests/test_learning_benchmarks.py",
        "labels": "tests/test_labels_benchmark.py",
        "learning": "tests/test_learning_benchmarks.py",
        "methods": "tests/test_learning_benchmarks.py",
        "opinions": "tests/model/test_opinions.py",
        "rolling": "tests/chaos/test_rolling.py",
        "scale": "tests/chaos/test_scale.py",
        "tuning": "tests/test_tuning_benchmark.py",
    }
    for named in covered.values():
        path = harness.ROOT / named
        assert path.is_file() or list(path.glob("test_*.py"))


# --- the README -------------------------------------------------------------------------------------


def test_the_readme_quotes_targets_and_headlines_and_says_what_was_missed() -> None:
    text = readme.rewritten(f"# t\n\n{readme.START}\nold\n{readme.END}\nrest\n", [RESULT])
    assert "\nold\n" not in text
    assert "| lost | **0 events** | at most 0 | `speed` |" in text
    assert "| p99, during an import | **1.50 s** (missed) | at most 1 | `speed` |" in text
    assert "| found | **0.5** |" in text
    assert "kills" not in text
    assert "a processor, 2 cores, 4 GiB, Linux 6, CPython 3.11.7" in text
    assert "`python -m benchmarks --full speed`, 2026-11-25, commit abc; a synthetic shop, seed 1" in text
    assert readme.rewritten(text, [RESULT]) == text
    assert readme.rewritten(text, [replace(RESULT, commit="def")]) != text


@pytest.mark.parametrize(
    "text", ["", readme.START, f"{readme.END} {readme.START}", f"{readme.START}" * 2 + readme.END]
)
def test_a_readme_without_its_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="needs one line"):
        readme.rewritten(text, [])


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text("{}")
    with pytest.raises(ValueError, match=r"speed\.json is no result"):
        readme.results(tmp_path)


def test_the_readme_says_what_the_results_hold() -> None:
    if not readme.README.is_file():
        pytest.skip("README.md is not written yet")
    text = readme.README.read_text()
    assert readme.rewritten(text, readme.results()) == text, "run: python -m benchmarks.readme"


def test_every_result_names_its_command_machine_and_data() -> None:
    benchmarks = command_line.discover()
    for path in sorted(harness.RESULTS.glob("*.json")):
        result = result_json.validate_json(path.read_bytes())
        name = result.report.benchmark
        assert path.stem in (name, f"{name}-gpu")
        assert path.stem == name or result.machine.gpu, f"{path.name} was measured without a GPU"
        assert name in benchmarks, f"{path.name} was made by a benchmark that is gone"
        assert result.mode == "full"
        assert result.command == f"python -m benchmarks --full {name}"
        assert result.machine.cpu
        assert result.machine.cores > 0
        assert result.versions
        assert result.report.data
        assert result.report.figures
        assert str(Path.home()) not in path.read_text(), f"{path.name} names a folder of the machine"
