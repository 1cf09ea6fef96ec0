"""The same product in two shops, through the whole path: published to Kafka, asked for over HTTP.

One shop (side B) is published; every product of the other (side A) that has a match is the inline seed of one
`POST /v1/similar`. Recall@k of a query is the share of its matches among its first k hits; a set's figure is
the mean over its queries. One default configuration serves both sets: `choose` shows how it was found, on the
train and valid pairs alone.

    python -m benchmarks.matching      prints the grid that the default weights were chosen from

Reads   abt-buy and amazon-google in the data folder
Never   looks at a test pair while choosing
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx

from adapters.kafka import Publisher
from benchmarks.harness import Figure, Report, Skipped
from benchmarks.stack import Updates, embedded_stack, import_catalogue
from schemas.api import Answer
from schemas.events import Product, ProductUpserted
from service.settings import ServiceSettings

NAME = "matching"
SETS = {"abt-buy": (0.86, 0.993), "amazon-google": (0.713, 0.987)}
TITLES = {"abt-buy": "Abt-Buy", "amazon-google": "Amazon-Google"}
EVERY_PAIR = ("train", "valid", "test")
CHOOSING_PAIRS = ("train", "valid")
#: Weights of lexical that are tried, content being 1.
GRID = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
CLIENTS = 4
#: Ask for so many hits that other weights find their first ten among them.
DEEP = 200


def run(*, small: bool, data: Path | None) -> Report:
    """All pairs of both sets, in full also by each dimension alone; in small of the first set."""
    folder = needed(data)
    figures: list[Figure] = []
    counts: dict[str, int] = {}
    names = list(SETS)[:1] if small else list(SETS)
    for name in names:
        at_1, at_10 = SETS[name]
        gold = matches(folder, name, EVERY_PAIR)
        seeds = read_products(folder, name, "a")
        with published(read_products(folder, name, "b")) as ask:
            found = asked(ask, seeds, gold, {"limit": 10})
            counts[f"{name}_queries"], title = len(gold), TITLES[name]
            for k, target in ((1, at_1), (10, at_10)):
                figures.append(
                    Figure(
                        f"{title} recall@{k}",
                        round(recall(found, gold, k), 4),
                        "",
                        target=target,
                        kind="quality",
                        headline=True,
                    )
                )
            for alone in () if small else ("content", "lexical"):
                found = asked(ask, seeds, gold, {"limit": 10, "weights": {alone: 1}})
                for k in (1, 10):
                    value = round(recall(found, gold, k), 4)
                    figures.append(Figure(f"{title} recall@{k}, {alone} alone", value, "", kind="quality"))
        for figure in figures[-(2 if small else 6) :]:
            print(f"{figure.name}: {figure.value} ({len(gold)} queries)", flush=True)
    weights = {f"weight_{name}": weight for name, weight in ServiceSettings().weights.items()}
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={**counts, **weights, "candidates": ServiceSettings().candidates},
        data=f"{' and '.join(names)}, side B published, side A asked, all labelled pairs",
    )


def choose(data: Path | None) -> float:
    """Print recall by weight on the train and valid pairs; the lexical weight with the best mean recall@1.

    One deep answer per query holds exact scores in every dimension: other weights are applied here.
    """
    folder = needed(data)
    grid: dict[float, list[float]] = {weight: [] for weight in GRID}
    for name in SETS:
        gold = matches(folder, name, CHOOSING_PAIRS)
        with published(read_products(folder, name, "b")) as ask:
            body = {"limit": DEEP, "weights": {"content": 1, "lexical": 1}}
            deep = scored(ask, read_products(folder, name, "a"), gold, body)
        for weight in GRID:
            found = {seed: reranked(hits, {"content": 1.0, "lexical": weight}) for seed, hits in deep.items()}
            grid[weight] += [recall(found, gold, 1), recall(found, gold, 10)]
    print(f"train and valid pairs: recall@1 and @10 of {', '.join(SETS)}, content weighs 1")
    for weight, values in grid.items():
        print(f"lexical {weight:4.2f}  " + "  ".join(f"{value:.4f}" for value in values))
    best = max(GRID, key=lambda weight: fmean(grid[weight][::2]))
    print(f"best mean recall@1: lexical {best}")
    return best


def needed(data: Path | None) -> Path:
    """The data folder. Raises Skipped where it, or one of the sets, is missing."""
    missing = [name for name in SETS if data is None or not (data / name).is_dir()]
    if data is None or missing:
        raise Skipped(f"needs {', '.join(missing)} in the data folder: --data or SIMSTREAM_DATA")
    return data


def read_products(folder: Path, name: str, side: str) -> dict[str, Product]:
    """Products of one side by id."""
    rows = _rows(folder / name / f"products_{side}.jsonl.gz")
    return {row["product_id"]: Product.model_validate(row) for row in rows}


def matches(folder: Path, name: str, files: Sequence[str]) -> dict[str, set[str]]:
    """Ids of side B that are the same product, by id of side A; only those that have one."""
    gold: dict[str, set[str]] = {}
    for file in files:
        for row in _rows(folder / name / f"pairs_{file}.jsonl.gz"):
            if row["label"] == 1:
                gold.setdefault(row["a"], set()).add(row["b"])
    return gold


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        yield from map(json.loads, lines)


@contextmanager
def published(products: Mapping[str, Product]) -> Iterator[Callable[[dict[str, Any]], Answer]]:
    """A stack in which these are searchable; yields how to ask it."""
    now = datetime.now(UTC)
    events = [
        ProductUpserted(product_id=product_id, occurred_at=now, **product.model_dump())
        for product_id, product in products.items()
    ]
    with embedded_stack() as stack, httpx.Client(base_url=stack.http, timeout=30) as client:
        publisher = Publisher(stack.settings, client_id="benchmark-matching")
        updates = Updates(stack)
        import_catalogue(stack, publisher, updates, events)
        updates.close()
        publisher.close()

        def ask(body: dict[str, Any]) -> Answer:
            response = client.post("/v1/similar", json=body)
            response.raise_for_status()
            return Answer.model_validate_json(response.content)

        yield ask


def answers(
    ask: Callable[[dict[str, Any]], Answer],
    seeds: Mapping[str, Product],
    gold: Mapping[str, set[str]],
    options: dict[str, Any],
) -> dict[str, Answer]:
    """An answer per seed that has a match."""

    def one(seed: str) -> tuple[str, Answer]:
        fields = seeds[seed].model_dump(mode="json", exclude_none=True)
        return seed, ask({"seeds": [{"item": fields}], **options})

    with ThreadPoolExecutor(CLIENTS) as clients:
        return dict(clients.map(one, gold))


def asked(
    ask: Callable[[dict[str, Any]], Answer],
    seeds: Mapping[str, Product],
    gold: Mapping[str, set[str]],
    options: dict[str, Any],
) -> dict[str, list[str]]:
    """Ids of the hits per seed, best first."""
    found = answers(ask, seeds, gold, options)
    return {seed: [hit.item_id for hit in answer.items] for seed, answer in found.items()}


def scored(
    ask: Callable[[dict[str, Any]], Answer],
    seeds: Mapping[str, Product],
    gold: Mapping[str, set[str]],
    options: dict[str, Any],
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by dimension of each hit, per seed."""
    found = answers(ask, seeds, gold, options)
    return {
        seed: {
            hit.item_id: {name: part.score for name, part in hit.dimensions.items()} for hit in answer.items
        }
        for seed, answer in found.items()
    }


def reranked(hits: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]) -> list[str]:
    """The hits in the order that these weights give them."""
    totals = {
        item: sum(weights[name] * score for name, score in scores.items()) for item, scores in hits.items()
    }
    return sorted(totals, key=lambda item: (-totals[item], item))


def recall(found: Mapping[str, Sequence[str]], gold: Mapping[str, set[str]], k: int) -> float:
    """Mean over queries of the share of matches among the first k."""
    return fmean(len(wanted & set(found[seed][:k])) / len(wanted) for seed, wanted in gold.items())


if __name__ == "__main__":
    from benchmarks.__main__ import data_folder

    choose(data_folder(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
