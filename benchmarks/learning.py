"""What fine-tuning on behaviour is worth for items that no shopper has touched: Amazon Beauty.

A fifth of the items is never in a training pair. Whenever a shopper's next item is one of them, the item
before is the query: is the cold item among the ten nearest of all 12,101, by text alone? Measured with the
base model and after training on at most 20,000 pairs of the other items. The split is written to a file
before training starts. Intervals come from a bootstrap over cold items, which hold whole groups of queries.

What the same training costs elsewhere stands beside it: Abt-Buy and Amazon-Google, content alone. Two things
hold the model there: anchors, products of the synthetic shop that are to stay where they were, and weights
that go only part of the way from the base model's (SHARES). How far is chosen on the validation items and on
the train and valid pairs of the two shops; what is reported of the shops besides is on their test pairs.

    python -m benchmarks.learning --data FOLDER [--model FOLDER] [--tune SECONDS] [--out FOLDER]

runs without Kafka, Redis and an index, on a GPU where there is one; `--tune` searches the recipe on other
held-out items first, never on those that are reported.

Reads   amazon-beauty, abt-buy and amazon-google in the data folder; the base model
Writes  split, weights and figures in a folder that goes away, or in `--out`
Never   chooses anything by the items that it reports
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Figure, Report, Skipped
from model.evaluation import Comparison, compare, hits_at, ranks_of
from model.pairs import PairTable, co_interactions, duplicate_groups
from model.recipe import Recipe
from model.sentence_config import read_encoder_config
from model.settings import ModelSettings, base_folder
from model.text import ProductText
from producers.shop import Shop
from schemas.events import Product

NAME = "learning"
SEED = 7
COLD, VALIDATION = 0.2, 0.05
MAX_PAIRS = 20_000
#: Found with `--tune` on the validation items (docs/decisions.md).
RECIPE = Recipe(
    seed=SEED,
    epochs=3,
    batch_pairs=256,
    learning_rate=2e-4,
    distil=1.0,
    replay=0,
    evaluations=1,
    max_tokens=48,
    tracking=(),
)
PAIRING: Mapping[str, float] = {"distance": 3, "decay": 0.7, "popularity": 0.5}
#: One change at a time, kept where the validation items gain by it.
STEPS: Sequence[Mapping[str, Any]] = (
    {"popularity_of_pairs": 0.25},
    {"learning_rate": 2e-4},
    {"distance": 1},
    {"popularity": 0.5},
    {"epochs": 6},
    {"scale": 30.0},
    {"interpolate": 0.7},
    {"batch_pairs": 512},
    {"scale": 12.0},
    {"dropout": 0.0},
    {"learning_rate": 5e-5},
    {"distance": 5},
    {"weight_decay": 0.1},
)
#: Parts of the way from the base model's weights to the trained ones.
SHARES = (1.0, 0.75, 0.5, 0.35)
#: By how much recall@10 may fall elsewhere.
MOST_LOSS = 0.01
ANCHOR_PRODUCTS = 5_000
OTHER_SETS = {"abt-buy": "Abt-Buy", "amazon-google": "Amazon-Google"}


class Split(NamedTuple):
    """Rows of items, and (query, target) rows of the reported and the validation queries."""

    cold: list[int]
    validation: list[int]
    queries: list[tuple[int, int]]
    validation_queries: list[tuple[int, int]]


class Beauty(NamedTuple):
    """The data set by row of item."""

    items: list[str]
    texts: list[str]
    histories: list[list[int]]


def run(*, small: bool, data: Path | None) -> Report:
    """In full: 20,000 pairs. Small: 256 pairs of 1,500 items, which shows that it runs and is not judged."""
    if data is None or not (data / "amazon-beauty").is_dir():
        raise Skipped("amazon-beauty is not in the data folder (--data or SIMSTREAM_DATA)")
    with tempfile.TemporaryDirectory(prefix="simstream-learning-") as folder:
        return measure(
            data,
            base_folder(ModelSettings()),
            Path(folder),
            pairs=256 if small else MAX_PAIRS,
            items=1_500 if small else None,
        )


def measure(
    data: Path,
    base: Path,
    out: Path,
    *,
    pairs: int = MAX_PAIRS,
    items: int | None = None,
    tune_seconds: float = 0.0,
) -> Report:
    """Split, train, compare; the report. Leaves split.json, result.json and the weights in `out`."""
    beauty = read_beauty(data, items)
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
    recipe, pairing = RECIPE, dict(PAIRING)
    if tune_seconds:
        recipe, pairing = tuned(beauty, split, base, out, pairs, tune_seconds)
    table = pair_table(beauty, split, pairs, pairing)
    trained = trained_weights(
        base, table, recipe, out / "final", anchors=ANCHOR_PRODUCTS if items is None else 200
    )
    before = vectors_of(base, base, beauty.texts)
    shops = [name for name in OTHER_SETS if items is None and (data / name).is_dir()]
    share, folder = chosen_share(beauty, split, data, shops, base, trained.folder, out, before)
    after = vectors_of(folder, base, beauty.texts)
    found = compared(beauty, split.queries, before, after)
    print(f"hit@10 of cold items {found}", flush=True)
    figures = [
        Figure("cold items hit@10, base model", round(found.before, 4), "", kind="quality", headline=True),
        Figure("cold items hit@10, trained", round(found.after, 4), "", kind="quality", headline=True),
    ]
    full = pairs == MAX_PAIRS and items is None
    figures += [
        Figure(
            "cold items, gain",
            round(100 * found.gain.value, 1),
            "%",
            target=35 if full else None,
            kind="quality",
            headline=full,
        ),
        Figure(
            "cold items, gain, lower 95 % bound",
            round(100 * found.gain.low, 1),
            "%",
            target=20 if full else None,
            kind="quality",
        ),
        Figure(
            "training", round(len(table) * trained.recipe.epochs / trained.seconds, 1), "pairs/s", kind="rate"
        ),
    ]
    skipped = []
    for name, title in OTHER_SETS.items():
        if items is not None:
            skipped.append(f"{title}: measured in full")
            continue
        if not (data / name).is_dir():
            skipped.append(f"{title}: {name} is not in the data folder")
            continue
        for what, parts in (("test pairs", ("test",)), ("all pairs", ("train", "valid", "test"))):
            low, high = (matching_recall(data, name, one, base, parts) for one in (base, folder))
            figures += [
                Figure(f"{title} recall@10, base model", round(low, 4), "", kind="quality", note=what),
                Figure(f"{title} recall@10, trained", round(high, 4), "", kind="quality", note=what),
                Figure(
                    f"{title} recall@10, change",
                    round(100 * (high - low), 2),
                    "points",
                    target=-1.0 if full and what == "all pairs" else None,
                    kind="quality",
                    note=what,
                ),
            ]
    report = Report(
        benchmark=NAME,
        figures=figures,
        settings={
            "pairs": len(table),
            "queries": len(split.queries),
            "seed": SEED,
            "device": trained.device,
            "precision": trained.precision,
            "seconds of training": round(trained.seconds, 1),
            "recipe": trained.recipe.model_dump_json(exclude_defaults=True),
            "pairing": json.dumps(pairing),
            "share of the way": share,
        },
        data="Amazon Beauty: a fifth of the items in no training pair; the item before asks, all are ranked",
        skipped=skipped,
    )
    (out / "result.json").write_text(json.dumps(dataclasses.asdict(report), indent=1))
    return report


def read_beauty(data: Path, most: int | None = None) -> Beauty:
    """Items (the first so many) with the text that the default recipe makes; histories in their order."""
    text = ProductText()
    items, texts = [], []
    for row in islice(_rows(data / "amazon-beauty" / "products.jsonl.gz"), most):
        items.append(row["product_id"])
        title = row.get("title") or row["product_id"]
        texts.append(text.content(Product(title=title[:2_000])))
    place = {item: number for number, item in enumerate(items)}
    histories = [
        [place[item] for item in row["product_ids"] if item in place]
        for row in _rows(data / "amazon-beauty" / "sequences.jsonl.gz")
    ]
    return Beauty(items, texts, histories)


def split_items(beauty: Beauty, seed: int = SEED) -> Split:
    """Cold items and validation items, drawn by seed; queries are all steps of a history onto one."""
    rows = list(range(len(beauty.items)))
    Random(seed).shuffle(rows)
    cold = sorted(rows[: int(COLD * len(rows))])
    validation = sorted(rows[len(cold) : len(cold) + int(VALIDATION * len(rows))])
    steps = [(one, other) for history in beauty.histories for one, other in pairwise(history) if one != other]
    chosen, other = set(cold), set(validation)
    return Split(
        cold,
        validation,
        [step for step in steps if step[1] in chosen],
        # What choosing sees of the reported items is nothing at all: not even as queries.
        [step for step in steps if step[1] in other and step[0] not in chosen],
    )


def pair_table(beauty: Beauty, split: Split, limit: int, pairing: Mapping[str, float]) -> PairTable:
    """The heaviest pairs of items that are neither cold nor for validation."""
    away = {*split.cold, *split.validation}
    sessions = [[(str(item), 1.0) for item in history if item not in away] for history in beauty.histories]
    weights = co_interactions(
        sessions,
        distance=int(pairing["distance"]),
        decay=pairing["decay"],
        popularity=pairing["popularity"],
    )
    # Equal weights are many: which of them are taken is drawn, and the same in every run.
    order = Random(SEED)
    ranked = sorted(weights.items(), key=lambda entry: (-entry[1], order.random()))[:limit]
    anchors = np.array([int(pair[0]) for pair, _ in ranked], dtype=np.int64)
    positives = np.array([int(pair[1]) for pair, _ in ranked], dtype=np.int64)
    if away & ({*anchors.tolist()} | {*positives.tolist()}):
        raise AssertionError("a held-out item is in a training pair")
    related = [(int(one), int(other)) for one, other in weights]
    groups = duplicate_groups(beauty.texts)
    flip = np.random.default_rng(SEED).random(len(ranked)) < 0.5
    return PairTable(
        texts=beauty.texts,
        groups=groups,
        anchors=np.where(flip, positives, anchors),
        positives=np.where(flip, anchors, positives),
        weights=np.ones(len(ranked), dtype=np.float32),
        related=[(int(groups[one]), int(groups[other])) for one, other in related],
    )


class Weights(NamedTuple):
    """What a training run left, how long it took, and the recipe as this machine followed it."""

    folder: Path
    seconds: float
    device: str
    precision: str
    recipe: Recipe


def chosen_share(
    beauty: Beauty,
    split: Split,
    data: Path,
    shops: Sequence[str],
    base: Path,
    trained: Path,
    out: Path,
    before: NDArray[np.float32],
) -> tuple[float, Path]:
    """How far to go from the base model's weights: best on validation items, of what costs little."""
    was = {name: matching_recall(data, name, base, base, ("train", "valid")) for name in shops}
    best: tuple[tuple[bool, float], float, Path] | None = None
    for share in SHARES:
        folder = trained if share == 1 else blended(base, trained, share, out / f"share-{share}")
        found = compared(beauty, split.validation_queries, before, vectors_of(folder, base, beauty.texts))
        lost = [was[name] - matching_recall(data, name, folder, base, ("train", "valid")) for name in shops]
        print(
            f"share {share}: validation {found.before:.4f} -> {found.after:.4f} "
            f"({100 * found.gain.value:+.1f} %), elsewhere {[round(-100 * loss, 2) for loss in lost]} points",
            flush=True,
        )
        rated = (max(lost, default=0.0) <= MOST_LOSS, found.after)
        if best is None or rated > best[0]:
            best = (rated, share, folder)
    if best is None:
        raise ValueError("there are no shares to choose from")
    return best[1], best[2]


def blended(base: Path, trained: Path, share: float, folder: Path) -> Path:
    """Weights on the way from one model to the other (Wortsman et al. 2022, WiSE-FT)."""
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(trained, folder)
    old, new = load_file(base / "model.safetensors"), load_file(trained / "model.safetensors")
    save_file(
        {name: torch.lerp(old[name].float(), weight.float(), share) for name, weight in new.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def anchor_table(base: Path, products: int) -> dict[str, list[Any]]:
    """Products of many departments, none of them of a set here, and where the base model has them."""
    text = ProductText()
    texts = [text.content(event) for event in Shop(seed=SEED, products=products).products()]
    return {"text": texts, "label": vectors_of(base, base, texts).tolist()}


def trained_weights(
    base: Path, table: PairTable, recipe: Recipe, run_folder: Path, *, anchors: int = 0
) -> Weights:
    """Train; a folder that the encoder loads."""
    import shutil

    import torch

    from model.training import Examples, train

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = read_encoder_config(base, ModelSettings())
    if device == "cpu":
        # Three passes take an hour and a half here.
        recipe = recipe.model_copy(update={"epochs": min(recipe.epochs, 1.0)})
    tables = {"anchors": anchor_table(base, anchors)} if anchors else {}
    found = train(
        folder=base,
        config=config,
        examples=Examples(pairs=table, tables=tables),
        recipe=recipe,
        run=run_folder,
        device=device,
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (base / name).is_file():
            shutil.copyfile(base / name, found.weights / name)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return Weights(found.weights, found.seconds, name, found.precision, recipe)


def vectors_of(folder: Path, base: Path, texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors by the encoder that serves."""
    from model.encoder import TextEncoder

    settings = ModelSettings(dtype="fp32")
    encoder = TextEncoder.load(folder, read_encoder_config(base, settings), settings)
    try:
        return encoder.encode_array(list(texts))
    finally:
        encoder.close()


def compared(
    beauty: Beauty,
    queries: Sequence[tuple[int, int]],
    before: NDArray[np.float32],
    after: NDArray[np.float32],
) -> Comparison:
    """hit@10 of both, the bootstrap over target items."""
    rows = np.array(queries, dtype=np.int64)
    old, new = (hits_at(ranks_of(vectors, rows[:, 0], rows[:, 1]), 10) for vectors in (before, after))
    return compare(old, new, clusters=rows[:, 1], seed=SEED)


def tuned(
    beauty: Beauty, split: Split, base: Path, out: Path, pairs: int, seconds: float
) -> tuple[Recipe, dict[str, float]]:
    """Greedy: one change after the other, kept where hit@10 of the validation queries rises."""
    ends = time.monotonic() + seconds
    before = vectors_of(base, base, beauty.texts)
    recipe, pairing = RECIPE, dict(PAIRING)
    best = 0.0
    for number, change in enumerate(({}, *STEPS)):
        if time.monotonic() > ends:
            print(f"time for choosing is over after {number} tries", flush=True)
            break
        ways = dict(change)
        trial_pairing = dict(pairing)
        if "distance" in ways:
            trial_pairing["distance"] = ways.pop("distance")
        if "popularity_of_pairs" in ways:
            trial_pairing["popularity"] = ways.pop("popularity_of_pairs")
        trial = recipe.model_copy(update=ways)
        table = pair_table(beauty, split, pairs, trial_pairing)
        weights = trained_weights(base, table, trial, out / f"try-{number}", anchors=ANCHOR_PRODUCTS)
        after = vectors_of(weights.folder, base, beauty.texts)
        found = compared(beauty, split.validation_queries, before, after)
        better = found.after > best
        print(
            f"try {number} {json.dumps(change)}: {found.before:.4f} -> {found.after:.4f} "
            f"({100 * found.gain.value:+.1f} %) in {weights.seconds:.1f} s{', kept' if better else ''}",
            flush=True,
        )
        if better:
            best, recipe, pairing = found.after, trial, trial_pairing
    return recipe, pairing


def matching_recall(data: Path, name: str, folder: Path, base: Path, parts: Sequence[str]) -> float:
    """Recall@10 of the labelled matches of two shops, by content alone."""
    text = ProductText()
    sides = {}
    for side in ("a", "b"):
        rows = list(_rows(data / name / f"products_{side}.jsonl.gz"))
        sides[side] = {row["product_id"]: text.content(Product.model_validate(row)) for row in rows}
    gold: dict[str, set[str]] = {}
    for part in parts:
        for row in _rows(data / name / f"pairs_{part}.jsonl.gz"):
            if row["label"] == 1:
                gold.setdefault(row["a"], set()).add(row["b"])
    asked, shelf = list(gold), list(sides["b"])
    queries = vectors_of(folder, base, [sides["a"][item] for item in asked])
    items = vectors_of(folder, base, list(sides["b"].values()))
    best = np.argsort(-(queries @ items.T), axis=1)[:, :10]
    shares = [
        len(gold[item] & {shelf[place] for place in places}) / len(gold[item])
        for item, places in zip(asked, best, strict=True)
    ]
    return float(np.mean(shares))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        yield from map(json.loads, lines)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="folder of the base model; the default one without")
    parser.add_argument("--tune", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--pairs", type=int, default=MAX_PAIRS)
    parser.add_argument("--out", type=Path, help="keep split, weights and figures here")
    options = parser.parse_args()
    base = options.model or base_folder(ModelSettings())
    with tempfile.TemporaryDirectory(prefix="simstream-learning-") as folder:
        report = measure(
            options.data,
            base,
            options.out or Path(folder),
            pairs=options.pairs,
            tune_seconds=options.tune,
        )
    for figure in report.figures:
        wanted = "" if figure.target is None else f"  (wanted {figure.direction} {figure.target})"
        print(f"{figure.name}: {figure.value} {figure.unit}{wanted}")
    print(json.dumps(dict(report.settings)))


if __name__ == "__main__":
    _main()
