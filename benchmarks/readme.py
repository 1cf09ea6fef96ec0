"""The README's figures, written from the results: `python -m benchmarks.readme [--check]`.

Reads   benchmarks/results/*.json
Writes  the block between the two markers of README.md; with `--check` nothing, exit code 1 if it differs
Never   states a figure that no result file holds
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.harness import RESULTS, ROOT, Figure, Result, result_json, shown

README = ROOT / "README.md"
START = "<!-- figures:start -->"
END = "<!-- figures:end -->"
#: What the table opens with, met or missed: benchmark, figure, note. The rest is folded away below it.
FIRST = (
    ("freshness", "changed text searchable, p99", "25 texts/s"),
    ("freshness", "changed text searchable, p99", "50 texts/s"),
    ("freshness", "changed text searchable, p99", "50 texts/s, int8"),
    ("freshness", "changed price searchable, p99", "10 texts/s + 500 prices/s during a bulk import"),
    ("prices", "price changes, Kafka to searchable payload", ""),
    ("prices", "encoder calls of price changes", ""),
    ("behaviour", "user events, Kafka to Redis", ""),
    ("encoder", "texts/s over SentenceTransformer.encode", ""),
    ("query", "fused query p50", "10 queries/s"),
    ("query", "fused query p99", "10 queries/s"),
    ("query", "fused query p99", "50 queries/s"),
    ("chaos", "lost", "kill -9"),
    ("chaos", "stale", "a paused owner"),
    ("explorer", "slider to moved neighbours, p95", ""),
    ("rolling", "failed queries, restarts and the kill", ""),
    ("sketch", "sketch over plain exact cosine, hit@10", ""),
    ("vectors", "vector memory, originals' over it", "binary"),
)
HEAD = ("| what | measured | wanted | measured by |", "|---|---:|---:|---|")


def results(folder: Path = RESULTS) -> list[Result]:
    """Every result kept, by name of its benchmark. Raises ValueError naming a file that is not one."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(result_json.validate_json(path.read_bytes()))
        except ValueError as error:
            raise ValueError(f"{path.name} is no result: {error}; run its benchmark again") from error
    return found


def block(kept: Sequence[Result]) -> str:
    """The README's lines between the markers: a table of figures, and where and how each was measured."""
    if not kept:
        return "No figures yet: `make bench` writes them."
    quoted = [(figure, result) for result in kept for figure in result.report.figures if _quoted(figure)]
    first = [one for wanted in FIRST for one in quoted if _named(*one) == wanted]
    rest = [one for one in quoted if one not in first]
    lines = [*HEAD, *(_row(*one) for one in first), ""] if first else []
    if rest:
        folded = bool(first)
        lines += [f"<details><summary>{len(rest)} more figures</summary>", ""] if folded else []
        lines += [*HEAD, *(_row(*one) for one in rest), ""]
        lines += ["</details>", ""] if folded else []
    lines += _provenance(kept)
    return "\n".join(lines)


def _named(figure: Figure, result: Result) -> tuple[str, str, str]:
    return result.report.benchmark, figure.name, figure.note


def rewritten(text: str, kept: Sequence[Result]) -> str:
    """`text` with its block replaced. Raises ValueError when it has not exactly one pair of markers."""
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"README.md needs one line {START!r} and, after it, one line {END!r}")
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    return f"{before}{START}\n{block(kept)}\n{END}{after}"


def _quoted(figure: Figure) -> bool:
    return figure.target is not None or figure.headline


def _row(figure: Figure, result: Result) -> str:
    what = f"{figure.name}, {figure.note}" if figure.note else figure.name
    wanted = f"{figure.direction} {shown(figure.target, '')}" if figure.target is not None else ""
    measured = f"**{shown(figure.value, figure.unit)}**"
    if figure.met(small=False) is False:
        measured += " (missed)"
    by = f"`{result.report.benchmark}`"
    if result.machine.gpu and "GPU" not in what:
        by += ", on a GPU"
    return "| " + " | ".join([_cell(what), measured, wanted, by]) + " |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _provenance(kept: Sequence[Result]) -> Iterator[str]:
    for machine in dict.fromkeys(result.machine for result in kept):
        here = [result for result in kept if result.machine == machine]
        yield f"Measured on: {machine.line()}."
        yield ""
        for result in here:
            report = result.report
            when = f"{result.date}, commit {result.commit or 'unknown'}"
            yield f"- `{report.benchmark}`: `{result.command}`, {when}; {_cell(report.data)}"
            yield from (f"  - left out: {_cell(reason)}" for reason in report.skipped)
        yield ""
    yield "The JSON files in [benchmarks/results](benchmarks/results) hold the settings and package versions."


def main() -> int:
    """Rewrite README.md, or only say whether it is up to date."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description="The README's figures.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if it would")
    options = parser.parse_args()
    before = README.read_text()
    after = rewritten(before, results())
    if before == after:
        return 0
    if options.check:
        print("README.md does not say what benchmarks/results hold: run python -m benchmarks.readme")
        return 1
    README.write_text(after)
    print("README.md: figures written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
