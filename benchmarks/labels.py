"""What labels are worth when `simstream pairs suggest` chooses them, against as many drawn at random.

Of two pairs of shops the labelled train pairs are the pool, their labels hidden. Labels are bought 25 at a
time: chosen by what the classifier is least sure of (the first 25 laid out from alike to unlike), or drawn. A
classifier of the same features is fitted on what was bought and judges the test pairs. Several seeds, each
with its own four fifths of the pool, the same for both; the interval is a bootstrap over seeds, so it says
how much the draw matters, not the choice of test pairs. Where what was bought has no match, or nothing else,
pairs are ranked by the mean of their two likenesses, and none is found.

    python -m benchmarks.labels [--data FOLDER] [--choose]

`--choose` prints what the settings come to on the valid pairs; nothing is chosen by the test pairs.

Reads   abt-buy and amazon-google in the data folder; the base model
Writes  the products' vectors, kept in var/benchmarks/labels for the next run
Never   shows a label of the pool before it is bought
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score

from benchmarks.harness import ROOT, Figure, Report
from benchmarks.learning_sets import rows_of
from benchmarks.learning_vectors import Vectors
from benchmarks.matching import TITLES, needed, read_products
from model.evaluation import compare
from model.pair_features import FEATURES, LIKENESS, Floats, Likeness
from model.pairs import Ints
from model.settings import ModelSettings, base_folder
from model.suggestions import PENALTY, both_kinds, fitted, layout, spread, unsure
from model.text import ProductText

NAME = "labels"
COVERED_BY = "tests/test_labels_benchmark.py"
BUDGETS = (25, 50, 100, 200)
BATCH = 25
SEEDS, SMALL_SEEDS = 20, 3
#: Of the pool, for each seed.
SHARE = 0.8
#: What does best by each measure on the valid pairs where labels are drawn: the rival has its own.
DRAWN_PENALTY: Mapping[str, float] = {"f1": 10.0, "precision": 1.0}
#: One product in a batch so often, and no more.
PER_ITEM = 1
HOW = ("chosen", "drawn")
VECTORS = ROOT / "var" / "benchmarks" / "labels"


class Pairs(NamedTuple):
    """Pairs of rows, their features and their labels."""

    rows: Ints
    features: Floats
    labels: NDArray[np.bool_]

    def part(self, places: Ints) -> Pairs:
        return Pairs(self.rows[places], self.features[places], self.labels[places])


class Score(NamedTuple):
    """How a classifier judges pairs it has not seen: F1 at one half, and average precision."""

    f1: float
    precision: float


def run(*, small: bool, data: Path | None) -> Report:
    """Both sets with twenty seeds; in small the first with three."""
    folder, base = needed(data), base_folder(ModelSettings())
    sets = {name: read(folder, name, base, VECTORS) for name in list(TITLES)[: 1 if small else None]}
    return report_of(sets, SMALL_SEEDS if small else SEEDS)


def report_of(sets: Mapping[str, Mapping[str, Pairs]], seeds: int) -> Report:
    """Curves on the test pairs."""
    figures = [figure for name, parts in sets.items() for figure in _figures(name, parts, seeds)]
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={
            "seeds": seeds,
            "batch": BATCH,
            "share of the pool": SHARE,
            "penalty": PENALTY,
            **{f"penalty where drawn, {measure}": value for measure, value in DRAWN_PENALTY.items()},
            "per item": PER_ITEM,
            **{
                f"{name}, pairs {part}": f"{len(pairs.labels)}, {int(pairs.labels.sum())} of them matches"
                for name, parts in sets.items()
                for part, pairs in parts.items()
            },
        },
        data=f"{' and '.join(sets)}: train pairs are the pool, test pairs are judged",
    )


def _figures(name: str, parts: Mapping[str, Pairs], seeds: int) -> Iterator[Figure]:
    whole = judged(parts["train"], parts["test"])
    for measure in Score._fields:
        title = f"{TITLES[name]} {'F1' if measure == 'f1' else 'average precision'}"
        found = {
            how: curves(
                parts["train"],
                parts["test"],
                how,
                seeds,
                penalty=PENALTY if how == "chosen" else DRAWN_PENALTY[measure],
            )
            for how in HOW
        }
        for place, budget in enumerate(BUDGETS):
            chosen, drawn = (
                np.array([getattr(curve[place], measure) for curve in found[how]]) for how in HOW
            )
            gain = compare(drawn, chosen, clusters=np.arange(seeds), seed=1).difference
            note = f"{budget} labels"
            headline = measure == "f1" and budget in (50, 200)
            yield Figure(f"{title}, drawn", round(fmean(drawn), 4), "", note=note, headline=headline)
            yield Figure(f"{title}, chosen", round(fmean(chosen), 4), "", note=note, headline=headline)
            yield Figure(f"{title}, gain", round(100 * gain.value, 2), "points", note=note)
            yield Figure(f"{title}, gain, lower 95 % bound", round(100 * gain.low, 2), "points", note=note)
            yield Figure(f"{title}, gain, upper 95 % bound", round(100 * gain.high, 2), "points", note=note)
            print(
                f"{title}, {note}: drawn {fmean(drawn):.4f}, chosen {fmean(chosen):.4f}, "
                f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}] points",
                flush=True,
            )
        yield Figure(f"{title}, every label", round(getattr(whole, measure), 4), "")
    for how in HOW:
        matches = fmean(curve[-1].matches for curve in found[how])
        yield Figure(f"{TITLES[name]}, matches among {BUDGETS[-1]} labels", round(matches, 1), "", note=how)


class Step(NamedTuple):
    """One point of a curve."""

    f1: float
    precision: float
    matches: int


def curves(
    pool: Pairs,
    asked: Pairs,
    how: str,
    seeds: int,
    *,
    penalty: float = PENALTY,
    per_item: int = PER_ITEM,
    first_seed: int = 1,
) -> list[list[Step]]:
    """A step for each of BUDGETS, for each seed."""
    found = []
    for seed in range(first_seed, first_seed + seeds):
        generator = np.random.default_rng(seed)
        part = pool.part(np.sort(generator.permutation(len(pool.labels))[: int(SHARE * len(pool.labels))]))
        bought = np.empty(0, dtype=np.int64)
        steps = []
        while len(bought) < BUDGETS[-1]:
            left = np.setdiff1d(np.arange(len(part.labels)), bought)
            batch = (
                _chosen(part, bought, left, generator, penalty, per_item)
                if how == "chosen"
                else generator.choice(left, BATCH, replace=False)
            )
            bought = np.concatenate([bought, batch])
            if len(bought) in BUDGETS:
                known = part.part(bought)
                steps.append(Step(*judged(known, asked, penalty), int(known.labels.sum())))
        found.append(steps)
    return found


def _chosen(
    pool: Pairs, bought: Ints, left: Ints, generator: np.random.Generator, penalty: float, per_item: int
) -> Ints:
    """The next batch as `simstream pairs suggest` chooses it, of the places that are left."""
    known, open_ = pool.part(bought), pool.part(left)
    if both_kinds(known.labels):
        order = unsure(fitted(known.features, known.labels, penalty=penalty)(open_.features), generator)
    else:
        order = layout(open_.features, BATCH)
    kinds = [""] * (int(pool.rows.max()) + 1)
    return left[spread(open_.rows, order, kinds, count=BATCH, most_per_item=per_item)]


def judged(known: Pairs, asked: Pairs, penalty: float = PENALTY) -> Score:
    """What a classifier of the known pairs makes of the others."""
    if both_kinds(known.labels):
        probabilities = fitted(known.features, known.labels, penalty=penalty)(asked.features)
        found = float(f1_score(asked.labels, probabilities > 0.5, zero_division=0))
    else:
        probabilities = asked.features[:, [FEATURES.index(name) for name in LIKENESS]].mean(axis=1)
        found = 0.0
    return Score(found, float(average_precision_score(asked.labels, probabilities)))


def read(data: Path, name: str, base: Path, out: Path) -> dict[str, Pairs]:
    """The labelled pairs of one set by part, with what is known of each without its label."""
    sides = [read_products(data, name, side) for side in "ab"]
    products = [product for side in sides for product in side.values()]
    row_of = [{item: row for row, item in enumerate(side)} for side in sides]
    text = ProductText()
    encode = Vectors(base, out / name, {name: [text.content(product) for product in products]})
    likeness = Likeness(products, encode(base)[name], recipe=text)
    parts = {}
    for part in ("train", "valid", "test"):
        found = list(rows_of(data / name / f"pairs_{part}.jsonl.gz"))
        rows = np.array([[row_of[0][one["a"]], len(sides[0]) + row_of[1][one["b"]]] for one in found])
        parts[part] = Pairs(rows, likeness(rows), np.array([one["label"] == 1 for one in found]))
    return parts


def choose(sets: Mapping[str, Mapping[str, Pairs]], penalties: Sequence[float] = (0.1, 1.0, 10.0)) -> None:
    """Print what settings come to on the valid pairs, with seeds that the report does not use."""
    print(f"valid pairs, mean over {', '.join(sets)} and budgets: F1, average precision")
    for how, penalty, per_item in [
        *((how, penalty, 1) for how in HOW for penalty in penalties),
        *(("chosen", PENALTY, per_item) for per_item in (2, BATCH)),
    ]:
        steps = [
            step
            for parts in sets.values()
            for curve in curves(
                parts["train"], parts["valid"], how, 5, penalty=penalty, per_item=per_item, first_seed=1_000
            )
            for step in curve
        ]
        means = [fmean(getattr(step, measure) for step in steps) for measure in Score._fields]
        print(f"{how}, penalty {penalty:g}, {per_item} a product: {means[0]:.4f} {means[1]:.4f}", flush=True)


def _main() -> None:
    from benchmarks.__main__ import data_folder

    parser = argparse.ArgumentParser(prog="python -m benchmarks.labels")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--choose", action="store_true")
    options = parser.parse_args()
    folder, base = needed(data_folder(options.data)), base_folder(ModelSettings())
    sets = {name: read(folder, name, base, VECTORS) for name in TITLES}
    if options.choose:
        choose(sets)
    else:
        report_of(sets, SEEDS)


if __name__ == "__main__":
    _main()
