"""What every benchmark has in common: figures, their targets, and where a report came from.

A benchmark is one module of this package with two public names:

    NAME = "freshness"                        # the module's name with dashes; also names its result file

    def run(*, small: bool, data: Path | None) -> Report: ...

A third one, COVERED_BY = "tests/...", says that tests run the same in `make check`: a small run then leaves
it out unless it is named.

`small` asks for the version that `make check` runs: the same code and fixed seeds, less of it. `data` is the
folder of data sets, or None where the machine has none: raise `Skipped(reason)` if nothing can be measured
without it, or leave those figures out and say so in `Report.skipped`. Print what was exercised while running.

Every figure with a target is judged. In full, all of them as they stand. In small, counts, ratios and quality
as they stand, latencies and rates only at five times (a fifth of) the target, because a shared machine's
clock proves nothing, and what rests on a clock, ratios too, fails only if it is missed in each of three runs.
Zeros are counts: `Figure("lost", 0, "events", target=0, direction="at most",
kind="count")`. A negative control is a count too:
`Figure("stale without tickets", 7, "items", target=1, kind="count")`.

Reads   nothing but facts about this machine
Writes  nothing: benchmarks/__main__.py runs the modules and keeps results/NAME.json
Never   judges a figure that has no target
"""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
#: How a processor's name ends where the encoder has fp32 and int8 alone.
WITHOUT_BF16 = "without bf16"
#: How far a latency or a rate may be from its target in a small run.
SMALL_RUN_SLACK = 5.0
#: How often a small run measures again when all that it missed rests on a clock.
SMALL_RUNS = 3

Direction = Literal["at least", "at most"]
Kind = Literal["ratio", "count", "latency", "rate", "quality"]
#: What another process on the same cores can spoil.
TIMED: frozenset[Kind] = frozenset({"ratio", "latency", "rate"})
Setting = str | int | float | bool | None


class Skipped(Exception):
    """Nothing can be measured here; the message says what is missing and how to get it."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, its unit, and what it should be.

    `kind` says how a small run judges it: latency and rate get slack, the others none. `headline` puts a
    figure without a target into the README as well. `note` is a short condition ("during a bulk import").
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    direction: Direction = "at least"
    kind: Kind = "ratio"
    note: str = ""
    headline: bool = False

    def bound(self, *, small: bool) -> float | None:
        """What the value is held against in this mode; None where the figure has no target."""
        if self.target is None or not small or self.kind not in ("latency", "rate"):
            return self.target
        return (
            self.target / SMALL_RUN_SLACK if self.direction == "at least" else self.target * SMALL_RUN_SLACK
        )

    def met(self, *, small: bool) -> bool | None:
        """Whether the value is where it should be; None without a target. NaN never is."""
        bound = self.bound(small=small)
        if bound is None:
            return None
        return self.value >= bound if self.direction == "at least" else self.value <= bound


@dataclass(frozen=True, slots=True)
class Report:
    """What one benchmark measured.

    `settings` are the knobs that shape the numbers (counts, seeds, rates, versions of servers); `data` says
    in words what was measured on; `skipped` names rows that were left out, each with its reason.
    """

    benchmark: str
    figures: Sequence[Figure]
    settings: Mapping[str, Setting]
    data: str
    skipped: Sequence[str] = ()

    def missed(self, *, small: bool) -> list[Figure]:
        """The figures that are not where they should be."""
        return [figure for figure in self.figures if figure.met(small=small) is False]


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a report was made. No names of hosts or people."""

    cpu: str
    cores: int
    memory_gib: float
    gpu: str
    kernel: str
    python: str

    def line(self) -> str:
        """The machine in one line, as the README shows it."""
        gpu = f", {self.gpu}" if self.gpu else ""
        return f"{self.cpu}, {self.cores} cores, {self.memory_gib:g} GiB{gpu}, {self.kernel}, {self.python}"


@dataclass(frozen=True, slots=True)
class Result:
    """A report with its provenance: what benchmarks/results/NAME.json holds."""

    report: Report
    command: str
    machine: Machine
    versions: Mapping[str, str]
    commit: str
    date: str
    wall_seconds: float
    mode: Literal["small", "full"] = field(default="full")


report_json: TypeAdapter[Report] = TypeAdapter(Report)
result_json: TypeAdapter[Result] = TypeAdapter(Result)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of a hundred values do not exceed (nearest rank, no
    interpolation, so that a p99 is a time somebody really waited). Raises ValueError without values."""
    if not values:
        raise ValueError("a percentile needs at least one value")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def shown(value: float, unit: str) -> str:
    """A value as people read it: thousands apart, three digits that mean something, then the unit."""
    if not math.isfinite(value):
        text = str(value)
    elif value == int(value) and abs(value) < 1e15:
        text = f"{int(value):,}"
    elif abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) >= 100:
        text = f"{value:.0f}"
    elif abs(value) >= 10:
        text = f"{value:.1f}"
    else:
        text = f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
    return f"{text} {unit}".strip()


def this_machine() -> Machine:
    """The machine that runs this."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpu=_first_line("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )


def package_versions() -> dict[str, str]:
    """Installed versions of everything simstream names in its own requirements."""
    versions = {}
    for requirement in metadata.requires("simstream") or []:
        found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
        if found is None:
            continue
        try:
            versions[found[0]] = metadata.version(found[0])
        except metadata.PackageNotFoundError:
            continue
    return versions


def commit() -> str:
    """The commit the tree stands on, `+changes` behind it if the sources differ; empty without git."""
    head = _first_line("git", "rev-parse", "--short=12", "HEAD")
    # Results are written while the benchmarks run; they do not change what was measured.
    changed = _first_line("git", "status", "--porcelain", "--", ".", ":!benchmarks/results", ":!README.md")
    return f"{head}+changes" if head and changed else head


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    # The encoder runs in bf16 where the processor has it, at more than twice the speed.
    half = "with bf16" if flags & {"avx512_bf16", "amx_bf16"} else WITHOUT_BF16
    return f"{names[0]} {half}" if names else platform.machine()


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else ""
