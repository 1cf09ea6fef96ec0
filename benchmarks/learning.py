"""What fine-tuning on behaviour is worth for items that no shopper has touched: Amazon Beauty.

A fifth of the items is never in a training pair. Whenever a shopper's next item is one of them, the item
before is the query: is the cold item among the ten nearest of all of them, by text alone? Measured with the
base model and after training on pairs of the other items, and asked of the whole fusion too
(benchmarks/learning_fused.py). The split is written to a file before training starts. Intervals come from a
bootstrap over cold items, which hold whole groups of queries.

What the same training costs elsewhere stands beside it: Abt-Buy and Amazon-Google, content alone. Two things
hold the model there: anchors, products of the synthetic shop that are to stay where they were, and weights
that go only part of the way from the base model's. How far is chosen on the validation items and on the train
and valid pairs of the two shops (benchmarks/learning_choice.py); what is reported of the shops besides is on
their test pairs.

    python -m benchmarks.learning --data FOLDER [--model FOLDER] [--tune SECONDS] [--out FOLDER]

runs without Kafka, Redis and an index, on a GPU where there is one; a processor gets a smaller size. `--tune`
searches the recipe on other held-out items first, never on those that are reported. With `--out` a run that
was cut off goes on where it was.

Reads   amazon-beauty, abt-buy and amazon-google in the data folder; the base model
Writes  split, weights, vectors and figures in a folder that goes away, or in `--out`; in full under
        var/benchmarks/learning, from where a run that was cut off goes on (remove it to measure anew)
Never   chooses anything by the items that it reports
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ROOT, Figure, Report, Skipped
from benchmarks.learning_choice import (
    PAIRING,
    RECIPE,
    Trained,
    anchor_table,
    chosen_share,
    run_name,
    trained_weights,
    tuned,
)
from benchmarks.learning_fused import fused_figures
from benchmarks.learning_sets import (
    OTHER_SETS,
    SEED,
    Matches,
    compared,
    pair_table,
    read_beauty,
    read_matches,
    split_items,
)
from benchmarks.learning_vectors import Vectors
from model.evaluation import compare
from model.precision import chosen_device
from model.recipe import Recipe
from model.settings import ModelSettings, base_folder

NAME = "learning"
KEPT = ROOT / "var" / "benchmarks" / "learning"
COVERED_BY = "tests/test_learning_benchmarks.py"


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """How much is done: pairs, items (the first so many, or all), anchors and parts of the way that are
    tried. `max_length` cuts texts, in tokens, where the model is measured; None as it serves."""

    pairs: int
    recipe: Recipe
    items: int | None = None
    anchors: int = 5_000
    shares: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
    max_length: int | None = None
    elsewhere: bool = True
    judged: bool = True
    fused: bool = True


FULL = Size(20_000, RECIPE)
#: A processor does ten pairs and a hundred short texts a second: a third of the epochs, and no soup.
CPU = Size(
    20_000,
    RECIPE.model_copy(update={"epochs": 1.0, "batch_pairs": 128, "soup": 1}),
    anchors=1_000,
    shares=(1.0, 0.8, 0.6),
    max_length=64,
)
SMALL = Size(
    256,
    RECIPE.model_copy(update={"epochs": 1.0, "batch_pairs": 64, "learning_rate": 1e-4, "soup": 1}),
    items=1_500,
    anchors=200,
    shares=(1.0,),
    elsewhere=False,
    judged=False,
    fused=False,
)


def run(*, small: bool, data: Path | None) -> Report:
    """In full as much as the device can do. Small shows that it runs, and is not judged."""
    if data is None or not (data / "amazon-beauty").is_dir():
        raise Skipped("amazon-beauty is not in the data folder (--data or SIMSTREAM_DATA)")
    if not small:
        return measure(data, base_folder(ModelSettings()), KEPT, _full())
    with tempfile.TemporaryDirectory(prefix="simstream-learning-") as folder:
        return measure(data, base_folder(ModelSettings()), Path(folder), SMALL)


def _full() -> Size:
    return FULL if chosen_device("auto").type == "cuda" else CPU


def measure(data: Path, base: Path, out: Path, size: Size, *, tune_seconds: float = 0.0) -> Report:
    """Split, train, compare; the report. Leaves split.json, result.json and the weights in `out`."""
    beauty = read_beauty(data, size.items)
    split = split_items(beauty)
    out.mkdir(parents=True, exist_ok=True)
    (out / "split.json").write_text(
        json.dumps(
            {
                "seed": SEED,
                "cold_items": [beauty.items[row] for row in split.cold],
                "queries": [[beauty.items[query], beauty.items[target]] for query, target in split.queries],
            }
        )
    )
    print(
        f"{len(split.cold)} cold items, {len(split.queries)} queries; {len(split.validation)} items and "
        f"{len(split.validation_queries)} queries for choosing",
        flush=True,
    )
    shops = {
        name: read_matches(data, name) for name in OTHER_SETS if size.elsewhere and (data / name).is_dir()
    }
    encode = Vectors(
        base,
        out / "vectors",
        {"beauty": beauty.texts, **{name: shop.texts for name, shop in shops.items()}},
        max_length=size.max_length,
    )
    recipe, pairing = size.recipe, dict(PAIRING)
    if tune_seconds:
        recipe, pairing = tuned(
            beauty, split, encode, out, recipe, pairs=size.pairs, anchors=size.anchors, seconds=tune_seconds
        )
    table = pair_table(beauty, split, size.pairs, pairing)
    before = encode(base)
    run = out / run_name(recipe, pairing, size.pairs, size.anchors)
    trained = trained_weights(base, table, recipe, run / "final", anchors=anchor_table(encode, size.anchors))
    share, folder = chosen_share(
        split, shops, encode, trained.folder, run, shares=size.shares if shops else (1.0,)
    )
    after = encode(folder)
    found = compared(split.queries, before["beauty"], after["beauty"])
    print(f"hit@10 of cold items {found}", flush=True)
    note = f"{len(table):,} pairs"
    figures = [
        Figure("cold items hit@10, base model", round(found.before, 4), "", kind="quality", headline=True),
        Figure("cold items hit@10, trained", round(found.after, 4), "", kind="quality", headline=True),
        Figure(
            "cold items, gain",
            round(100 * found.gain.value, 1),
            "%",
            target=35 if size.judged else None,
            kind="quality",
            note=note,
            headline=size.judged,
        ),
        Figure(
            "cold items, gain, lower 95 % bound",
            round(100 * found.gain.low, 1),
            "%",
            target=20 if size.judged else None,
            kind="quality",
            note=note,
        ),
        Figure("cold items, gain, upper 95 % bound", round(100 * found.gain.high, 1), "%", note=note),
        Figure(
            "training",
            round(len(table) * recipe.epochs * recipe.soup / trained.seconds, 1),
            "pairs/s",
            kind="rate",
        ),
        *_elsewhere(shops, before, after, judged=size.judged),
        *(fused_figures(data, beauty, split, before["beauty"], after["beauty"]) if size.fused else ()),
    ]
    report = Report(
        benchmark=NAME,
        figures=figures,
        settings=_settings(size, recipe, pairing, trained)
        | {"pairs": len(table), "queries": len(split.queries), "share of the way": share},
        data=f"Amazon Beauty, {len(beauty.items):,} items: a fifth of them in no training pair; the item "
        "before asks, all are ranked",
        skipped=[
            f"{title}: " + ("measured in full" if not size.elsewhere else "not in the data folder")
            for name, title in OTHER_SETS.items()
            if name not in shops
        ],
    )
    (out / "result.json").write_text(json.dumps(dataclasses.asdict(report), indent=1))
    return report


def _elsewhere(
    shops: Mapping[str, Matches],
    before: Mapping[str, NDArray[np.float32]],
    after: Mapping[str, NDArray[np.float32]],
    *,
    judged: bool,
) -> Iterator[Figure]:
    """recall@10 of the two shops' matches, before and after, with its interval over products that ask."""
    for name, shop in shops.items():
        title = OTHER_SETS[name]
        for what, parts in (("test pairs", ("test",)), ("all pairs", ("train", "valid", "test"))):
            old, new = (shop.recalls(vectors[name], parts) for vectors in (before, after))
            found = compare(old, new, clusters=np.arange(len(old)), seed=SEED)
            change = found.difference
            yield Figure(f"{title} recall@10, base model", round(found.before, 4), "", note=what)
            yield Figure(f"{title} recall@10, trained", round(found.after, 4), "", note=what)
            yield Figure(
                f"{title} recall@10, change",
                round(100 * change.value, 2),
                "points",
                target=-1.0 if judged and what == "all pairs" else None,
                kind="quality",
                note=what,
            )
            yield Figure(f"{title}, lower 95 % bound", round(100 * change.low, 2), "points", note=what)
            yield Figure(f"{title}, upper 95 % bound", round(100 * change.high, 2), "points", note=what)


def _settings(
    size: Size, recipe: Recipe, pairing: Mapping[str, float], trained: Trained
) -> dict[str, str | int | float | bool | None]:
    return {
        "seed": SEED,
        "device": trained.device,
        "precision": trained.precision,
        "seconds of training": round(trained.seconds, 1),
        "recipe": recipe.model_dump_json(exclude_defaults=True),
        "pairing": json.dumps(dict(pairing)),
        "anchors": size.anchors,
        "shares tried": json.dumps(size.shares),
        "tokens where measured, at most": size.max_length,
    }


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="folder of the base model; the default one without")
    parser.add_argument("--tune", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--pairs", type=int, help="instead of what the device can do")
    parser.add_argument("--out", type=Path, help="keep split, weights, vectors and figures here")
    options = parser.parse_args()
    size = _full()
    if options.pairs:
        size = dataclasses.replace(size, pairs=options.pairs)
    with tempfile.TemporaryDirectory(prefix="simstream-learning-") as folder:
        report = measure(
            options.data,
            options.model or base_folder(ModelSettings()),
            options.out or Path(folder),
            size,
            tune_seconds=options.tune,
        )
    for figure in report.figures:
        wanted = "" if figure.target is None else f"  (wanted {figure.direction} {figure.target})"
        print(f"{figure.name}, {figure.note}: {figure.value} {figure.unit}{wanted}")
    print(json.dumps(dict(report.settings)))


if __name__ == "__main__":
    _main()
