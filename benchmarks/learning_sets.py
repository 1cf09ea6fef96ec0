"""What the benchmark `learning` reads: Amazon Beauty split by item, and labelled matches of two shops.

Reads   amazon-beauty, abt-buy and amazon-google in the data folder
Writes  nothing
Never   lets a cold item into a training pair, nor into what settings are chosen by
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.evaluation import Comparison, Floats, compare, hits_at, ranks_of
from model.pairs import PairTable, co_interactions, duplicate_groups
from model.text import ProductText
from schemas.events import Product

SEED = 7
COLD, VALIDATION = 0.2, 0.05
#: Folders of labelled matches, and what they are called.
OTHER_SETS = {"abt-buy": "Abt-Buy", "amazon-google": "Amazon-Google"}
#: Parts of the labelled matches that settings may be chosen by.
CHOOSING = ("train", "valid")


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


def read_beauty(data: Path, most: int | None = None) -> Beauty:
    """Items (the first so many) with the text that the default recipe makes; histories in their order."""
    text = ProductText()
    items, texts = [], []
    for row in islice(rows_of(data / "amazon-beauty" / "products.jsonl.gz"), most):
        items.append(row["product_id"])
        title = row.get("title") or row["product_id"]
        texts.append(text.content(Product(title=title[:2_000])))
    place = {item: number for number, item in enumerate(items)}
    histories = [
        [place[item] for item in row["product_ids"] if item in place]
        for row in rows_of(data / "amazon-beauty" / "sequences.jsonl.gz")
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


class Matches(NamedTuple):
    """Products of two shops, and by part of the data which of the one are which of the other, by row."""

    texts: list[str]
    queries: int
    gold: Mapping[str, Mapping[int, frozenset[int]]]

    def recalls(self, vectors: NDArray[np.float32], parts: Sequence[str]) -> Floats:
        """Per product of the first shop with a match: the share of its matches among its ten nearest of the
        second. `vectors` are unit vectors by row of `texts`."""
        wanted: dict[int, set[int]] = {}
        for part in parts:
            for row, matches in self.gold[part].items():
                wanted.setdefault(row, set()).update(matches)
        asked = np.array(sorted(wanted), dtype=np.int64)
        best = np.argsort(-(vectors[asked] @ vectors[self.queries :].T), axis=1)[:, :10] + self.queries
        shares = [
            len(wanted[row] & set(near)) / len(wanted[row])
            for row, near in zip(asked.tolist(), best.tolist(), strict=True)
        ]
        return np.array(shares)


def read_matches(data: Path, name: str) -> Matches:
    """One of OTHER_SETS."""
    text = ProductText()
    texts: list[str] = []
    places: list[dict[str, int]] = []
    for side in ("a", "b"):
        rows = list(rows_of(data / name / f"products_{side}.jsonl.gz"))
        places.append({row["product_id"]: len(texts) + place for place, row in enumerate(rows)})
        texts += [text.content(Product.model_validate(row)) for row in rows]
    gold: dict[str, dict[int, frozenset[int]]] = {}
    for part in (*CHOOSING, "test"):
        of: dict[int, set[int]] = {}
        for row in rows_of(data / name / f"pairs_{part}.jsonl.gz"):
            if row["label"] == 1:
                of.setdefault(places[0][row["a"]], set()).add(places[1][row["b"]])
        gold[part] = {one: frozenset(others) for one, others in of.items()}
    return Matches(texts, len(places[0]), gold)


def compared(
    queries: Sequence[tuple[int, int]], before: NDArray[np.float32], after: NDArray[np.float32]
) -> Comparison:
    """hit@10 of both, the bootstrap over target items."""
    rows = np.array(queries, dtype=np.int64)
    old, new = (hits_at(ranks_of(vectors, rows[:, 0], rows[:, 1]), 10) for vectors in (before, after))
    return compare(old, new, clusters=rows[:, 1], seed=SEED)


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a compressed JSON Lines file."""
    with gzip.open(path, "rt") as lines:
        yield from map(json.loads, lines)
