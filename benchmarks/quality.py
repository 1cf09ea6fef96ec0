"""One table for every data set: each dimension alone and fused, so that a change that hurts is seen.

Asked is the product's own engine over an index that its own assembly filled (benchmarks/quality_index.py),
with the service's defaults: `weights` for items, `recommendation_weights` for shoppers. Fused figures have a
floor, what they were less about half a standard error: below it something was broken.

    python -m benchmarks.quality     prints what the presets' weights were chosen from (benchmarks/presets.py)

Reads   the data sets in the data folder
Writes  vectors of texts under var/quality, so that a second run encodes nothing
Never   tunes anything
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from benchmarks.harness import ROOT, Figure, Report, Skipped
from benchmarks.quality_index import Asked, Remembering, filled, remembering
from benchmarks.quality_sets import (
    SEED,
    DataSet,
    Question,
    beauty,
    magazines,
    office,
    pairs,
    smaller,
    taobao,
)
from schemas.api import QueryOptions
from service.errors import Unanswerable
from service.judging import Metric, judged
from service.parameters import RecommendationOptions
from service.settings import ServiceSettings

NAME = "quality"
FUSED = "fused"
#: Questions of each kind that are asked, drawn by SEED.
ASKED = 1_000
CACHE = ROOT / "var" / "quality"
CLIENTS = 2
SETS: Mapping[str, Callable[[Path], DataSet]] = {
    "amazon-magazines": magazines,
    "amazon-beauty": beauty,
    "abt-buy": lambda data: pairs(data, "abt-buy"),
    "taobao-zh": taobao,
    "amazon-google": lambda data: pairs(data, "amazon-google"),
    "amazon-office": office,
}
#: Figures of each kind of question: (metric, k) by what they are called.
FIGURES: Mapping[str, Mapping[str, tuple[Metric, int]]] = {
    "match": {"recall@1": ("recall", 1), "recall@10": ("recall", 10)},
    "next item": {"HR@10": ("hit_rate", 10), "NDCG@10": ("ndcg", 10)},
    "also viewed": {"recall@10": ("recall", 10), "NDCG@10": ("ndcg", 10)},
    "also bought": {"recall@10": ("recall", 10), "NDCG@10": ("ndcg", 10)},
    "same cluster": {"recall@10": ("recall", 10), "NDCG@10": ("ndcg", 10)},
}
#: Presets that a kind of question is what they are for.
PRESETS: Mapping[str, str] = {
    "match": "same_product",
    "also viewed": "substitutes",
    "also bought": "complements",
}
#: Data sets of a small run, with how much of each: catalogue, questions.
SMALL = {"abt-buy": (500, 200), "taobao-zh": (150, 15)}
#: What fused figures were, less half a standard error; a data set without one was not measured in full yet.
FLOORS: Mapping[tuple[str, str], float] = {
    ("amazon-magazines, also viewed", "recall@10"): 0.245,
    ("amazon-magazines, also viewed", "NDCG@10"): 0.233,
    ("amazon-magazines, also bought", "recall@10"): 0.221,
    ("amazon-magazines, also bought", "NDCG@10"): 0.209,
    ("amazon-beauty, next item", "HR@10"): 0.131,
    ("amazon-beauty, next item", "NDCG@10"): 0.077,
    ("abt-buy, match", "recall@1"): 0.859,
    ("abt-buy, match", "recall@10"): 0.991,
    ("taobao-zh, same cluster", "recall@10"): 0.690,
    ("taobao-zh, same cluster", "NDCG@10"): 0.783,
    ("amazon-google, match", "recall@1"): 0.717,
    ("amazon-google, match", "recall@10"): 0.992,
    ("amazon-office, next item", "HR@10"): 0.157,
    ("amazon-office, next item", "NDCG@10"): 0.120,
}


def run(*, small: bool, data: Path | None) -> Report:
    """Every data set that is there; in small a part of two."""
    if data is None:
        raise Skipped("needs a data folder (--data or SIMSTREAM_DATA)")
    figures: list[Figure] = []
    skipped: list[str] = []
    counts: dict[str, int] = {}
    with remembering(CACHE) as release:
        for name, load in SETS.items():
            if small and name not in SMALL:
                skipped.append(f"{name}: measured in full only")
                continue
            if not (data / name).is_dir():
                skipped.append(f"{name}: not in the data folder")
                continue
            started = time.monotonic()
            whole = load(data)
            part = whole if not small else smaller(whole, items=SMALL[name][0], asked=SMALL[name][1])
            with filled(part.contents, release, ServiceSettings()) as asked:
                for kind, questions in part.questions.items():
                    some = _some(questions)
                    _encoded_ahead(release, some)
                    counts[f"{name}, {kind}: questions"] = len(some)
                    figures += _figures(name, kind, part, asked, some, small=small)
            release.encoder.keep()
            counts[f"{name}: items"] = len(part.contents.products)
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    if not figures:
        raise Skipped("none of " + ", ".join(SETS) + " is in the data folder (--data or SIMSTREAM_DATA)")
    defaults = ServiceSettings()
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={
            **counts,
            **{f"weight of {dimension}": weight for dimension, weight in defaults.weights.items()},
            **{
                f"weight of {dimension}, recommendations": weight
                for dimension, weight in defaults.recommendation_weights.items()
            },
            "seed": SEED,
        },
        data="every data set of the data folder: the service's defaults, and each dimension alone",
        skipped=skipped,
    )


def _some(questions: Sequence[Question]) -> Sequence[Question]:
    return questions if len(questions) <= ASKED else Random(SEED).sample(list(questions), ASKED)


def _encoded_ahead(release: Remembering, questions: Sequence[Question]) -> None:
    """Inline seeds in one go: one by one they take three times as long."""
    inline = [seed.item for question in questions for seed in question.seeds if seed.item is not None]
    release.encoder.encode([release.recipe.content(product) for product in inline])


def _figures(
    name: str, kind: str, of: DataSet, asked: Asked, questions: Sequence[Question], *, small: bool
) -> list[Figure]:
    """A row per way of asking: fused, each dimension alone, and the preset that is for such questions."""
    ways: dict[str, dict[str, Any]] = {FUSED: {}}
    ways |= {f"{dimension} alone": {"weights": {dimension: 1.0}} for dimension in of.dimensions}
    if kind in PRESETS:
        ways[f"preset {PRESETS[kind]}"] = {"preset": PRESETS[kind]}
    figures = []
    for way, options in ways.items():
        found = answers(asked, questions, options)
        line = []
        for called, (metric, k) in FIGURES[kind].items():
            value = round(mean(found, questions, metric, k), 4)
            line.append(f"{called} {value:.4f}")
            figures.append(
                Figure(
                    f"{name}, {kind}, {called}",
                    value,
                    "",
                    None if small or way != FUSED else FLOORS.get((f"{name}, {kind}", called)),
                    kind="quality",
                    note=way,
                    headline=way == FUSED,
                )
            )
        print(f"{name:18s} {kind:14s} {way:22s} {'  '.join(line)}  ({len(questions)} questions)", flush=True)
    return figures


def answers(asked: Asked, questions: Sequence[Question], options: Mapping[str, Any]) -> list[list[str]]:
    """The first ten hits of each question; none where a dimension alone cannot answer it."""

    def one(question: Question) -> list[str]:
        wanted = {"limit": 10, **options}
        try:
            if question.user is not None:
                answer = asked.recommended(question.user, RecommendationOptions.model_validate(wanted))
            else:
                answer = asked.similar(question.seeds, QueryOptions.model_validate(wanted))
        except Unanswerable:
            return []
        return [hit.item_id for hit in answer.items]

    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(one, questions))


def mean(found: Sequence[Sequence[str]], questions: Sequence[Question], metric: Metric, k: int) -> float:
    """A figure's mean over the questions."""
    return fmean(judged(f, q.relevant, k)[metric] for f, q in zip(found, questions, strict=True))
