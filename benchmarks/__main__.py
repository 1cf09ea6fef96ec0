"""Run the benchmarks: `python -m benchmarks --small|--full [NAME...]`.

Each one runs in a process of its own, so that none warms, slows or breaks another. A missed target or a
benchmark that failed makes the exit code 1; one that had to be skipped does not. A small run without names
leaves out what tests run anyway.

Reads   the data sets in SIMSTREAM_DATA (or `--data`), by default ../shared/data beside the repository
Writes  benchmarks/results/NAME.json, in a full run only
"""

from __future__ import annotations

import argparse
import ast
import faulthandler
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.harness import (
    RESULTS,
    ROOT,
    SMALL_RUNS,
    TIMED,
    Figure,
    Report,
    Result,
    Skipped,
    commit,
    package_versions,
    report_json,
    result_json,
    shown,
    this_machine,
)

DEFAULT_DATA = ROOT.parent / "shared" / "data"
#: A module says of itself that it may take longer in full: FULL_SECONDS.
TIMEOUT_SECONDS = {"small": 400.0, "full": 5400.0}
#: Exit code of a child that raised Skipped; its reason is in the report file.
SKIPPED = 77
#: Where a failed child says why, or where it stood shortly before its time was up: beside its report file.
TRACE = "trace.txt"
TRACE_LINES = 40


class Failed(NamedTuple):
    """A benchmark without a report; `waited_in_vain` if all that failed was that something took too long."""

    trace: str
    waited_in_vain: bool


class Benchmark(NamedTuple):
    """One module of this package; `covered_by` names tests that run the same in `make check`, if some do.

    `full_seconds` is how long it may take in full, where that is longer than the others.
    """

    module: str
    covered_by: str
    full_seconds: float


def discover(folder: Path = ROOT / "benchmarks") -> dict[str, Benchmark]:
    """Benchmarks by NAME; found without importing any of them."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        words: dict[str, str] = {}
        seconds = TIMEOUT_SECONDS["full"]
        for node in ast.parse(path.read_text()).body:
            match node:
                case ast.Assign(targets=[ast.Name(id=word)], value=ast.Constant(value=str(text))):
                    words[word] = text
                case ast.Assign(targets=[ast.Name(id="FULL_SECONDS")], value=ast.Constant(value=int(number))):
                    seconds = float(number)
        if "NAME" in words:
            found[words["NAME"]] = Benchmark(f"benchmarks.{path.stem}", words.get("COVERED_BY", ""), seconds)
    return found


def run_here(
    module: str, *, small: bool, data: Path | None, report_file: Path, timeout_seconds: float
) -> int:
    """The child's part: import one benchmark, run it, leave its report (or its reason) in `report_file`.

    Whatever it raises, or where every thread stands shortly before its time is up, is left in `TRACE`.
    """
    with (report_file.parent / TRACE).open("w") as trace:
        faulthandler.dump_traceback_later(timeout_seconds * 0.97, file=trace)
        try:
            report: Report = importlib.import_module(module).run(small=small, data=data)
        except Skipped as reason:
            report_file.write_text(str(reason))
            return SKIPPED
        except BaseException:
            traceback.print_exc(file=trace)
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
    report_file.write_bytes(report_json.dump_json(report))
    return 0


def run_apart(name: str, *, small: bool, data: Path | None, timeout_seconds: float) -> Report | str | Failed:
    """Run one benchmark in its own process: its report, the reason it was skipped, or why it failed."""
    with tempfile.TemporaryDirectory(prefix="simstream-bench-") as folder:
        report_file = Path(folder) / "report.json"
        command = [sys.executable, "-m", "benchmarks", "--small" if small else "--full", name]
        command += ["--report", str(report_file), "--timeout", str(timeout_seconds)]
        command += ["--data", str(data)] if data else []
        # The package lies in the tree, not among the installed ones. The data folder is an argument here:
        # SIMSTREAM_DATA is no setting of the product that the benchmarks start.
        env = {key: value for key, value in os.environ.items() if key != "SIMSTREAM_DATA"}
        child = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True)
        try:
            code = child.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            _kill_group(child)
            print(f"{name}: still running after {timeout_seconds:g} s, stopped", flush=True)
            return Failed(_trace(report_file), waited_in_vain=True)
        finally:
            # Whatever it started goes with it, also when it crashed or was interrupted.
            _kill_group(child)
        if code == SKIPPED:
            return report_file.read_text()
        if code == 0:
            return report_json.validate_json(report_file.read_bytes())
        said = _trace(report_file)
        # Its last line names what was raised: TimeoutError here, in playwright's words too.
        return Failed(said, waited_in_vain="TimeoutError" in said.rpartition("\nTraceback")[2])


def _trace(report_file: Path) -> str:
    trace = report_file.parent / TRACE
    return "\n".join(trace.read_text().splitlines()[-TRACE_LINES:]) if trace.exists() else "no trace"


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def worth_another_run(missed: Sequence[Figure]) -> bool:
    """Whether something was missed, and all of it rests on a clock."""
    return bool(missed) and all(figure.kind in TIMED for figure in missed)


def show(console: Console, report: Report, *, small: bool, seconds: float) -> None:
    """Print a report as a table, one figure a line."""
    table = Table(title=f"{report.benchmark} ({seconds:.0f} s) on {report.data}", title_justify="left")
    for column in ("figure", "measured", "wanted", ""):
        table.add_column(column, justify="right" if column in ("measured", "wanted") else "left")
    for figure in report.figures:
        bound, met = figure.bound(small=small), figure.met(small=small)
        wanted = "" if bound is None else f"{figure.direction} {shown(bound, '')}"
        if bound != figure.target and figure.target is not None:
            wanted += f" (in full: {shown(figure.target, '')})"
        verdict = {True: "[green]met[/]", False: "[bold red]MISSED[/]", None: ""}[met]
        name = f"{figure.name}, {figure.note}" if figure.note else figure.name
        table.add_row(name, shown(figure.value, figure.unit), wanted, verdict)
    console.print(table)
    for reason in report.skipped:
        console.print(f"[yellow]left out[/]: {reason}")


def keep(report: Report, *, seconds: float) -> Path:
    """Write benchmarks/results/NAME.json (NAME-gpu.json of a run on a GPU), whole or not at all."""
    result = Result(
        report=report,
        command=f"python -m benchmarks --full {report.benchmark}",
        machine=this_machine(),
        versions=package_versions(),
        commit=commit(),
        date=datetime.now(UTC).date().isoformat(),
        wall_seconds=round(seconds, 1),
    )
    RESULTS.mkdir(exist_ok=True)
    on_gpu = str(report.settings.get("device", "")).startswith("cuda")
    path = RESULTS / f"{report.benchmark}{'-gpu' if on_gpu else ''}.json"
    aside = path.with_suffix(".tmp")
    aside.write_bytes(result_json.dump_json(result, indent=1) + b"\n")
    aside.replace(path)
    return path


def _end_on_sigterm() -> None:
    """SIGTERM ends a run as Ctrl-C does: whoever runs right now goes with it."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def data_folder(given: Path | None) -> Path | None:
    """Where the data sets are: `--data`, SIMSTREAM_DATA, or beside the repository; None if nowhere."""
    folder = given or Path(os.environ.get("SIMSTREAM_DATA") or DEFAULT_DATA)
    return folder.resolve() if folder.is_dir() else None


def main() -> int:
    """Parse the command line, run what it names, say what was missed."""
    benchmarks = discover()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure what the README quotes."
    )
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--small", action="store_true", help="what make check runs; writes no results")
    mode.add_argument("--full", action="store_true", help="every figure; writes benchmarks/results/")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(benchmarks)}")
    parser.add_argument("--data", type=Path, help="folder of the data sets (or SIMSTREAM_DATA)")
    parser.add_argument("--timeout", type=float, help="seconds that one benchmark may take")
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in benchmarks]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(benchmarks)}")
    if options.report:
        (name,) = options.names
        return run_here(
            benchmarks[name].module,
            small=options.small,
            data=options.data,
            report_file=options.report,
            timeout_seconds=options.timeout,
        )
    _end_on_sigterm()
    data = data_folder(options.data)

    console = Console(width=None if sys.stdout.isatty() else 140)
    if data is None:
        console.print("no data folder (--data or SIMSTREAM_DATA): rows that need it are skipped")
    left_out = {} if options.full or options.names else {n: b for n, b in benchmarks.items() if b.covered_by}
    for name, benchmark in left_out.items():
        console.print(f"[yellow]left out[/] {name}: {benchmark.covered_by} runs the same")
    names = options.names or [name for name in benchmarks if name not in left_out]
    failures: list[str] = []
    traces: dict[str, str] = {}
    for name in names:
        console.rule(name)
        full_seconds = benchmarks[name].full_seconds
        timeout = options.timeout or (TIMEOUT_SECONDS["small"] if options.small else full_seconds)
        for remaining in reversed(range(SMALL_RUNS if options.small else 1)):
            started = time.monotonic()
            outcome = run_apart(name, small=options.small, data=data, timeout_seconds=timeout)
            seconds = time.monotonic() - started
            if isinstance(outcome, Failed):
                if remaining and outcome.waited_in_vain:
                    console.print(f"{name}: run again, for a busy machine keeps it waiting too")
                    console.print(outcome.trace, markup=False, highlight=False)
                    continue
                failures.append(f"{name} failed")
                traces[name] = outcome.trace
            elif isinstance(outcome, str):
                console.print(f"[yellow]skipped[/] {name}: {outcome}")
            else:
                show(console, outcome, small=options.small, seconds=seconds)
                missed = outcome.missed(small=options.small)
                if remaining and worth_another_run(missed):
                    console.print(f"{name}: measured again, for a busy machine misses these too")
                    continue
                failures += [f"{name}: {figure.name} missed" for figure in missed]
                if options.full:
                    console.print(f"kept in {keep(outcome, seconds=seconds).relative_to(ROOT)}")
            break
    # Once more at the end, where somebody looks who has only the last lines of a long log.
    for name, trace in traces.items():
        console.rule(f"{name} failed")
        console.print(trace, markup=False, highlight=False)
    for failure in failures:
        console.print(f"[bold red]{failure}[/]")
    console.print(f"{len(names)} benchmarks, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
