"""The shop of benchmarks/query.py: its points in an index folder, and in memory to score everything exactly.

Reads   the synthetic shop: products, reviews, what shoppers did
Writes  an index folder; vectors of texts under var/query, so that a second run encodes nothing
Never   asks the index for a score: the truth it compares with is numpy's alone
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.index_edge import EdgeIndex
from adapters.index_port import LIVE_ALIAS, collection_name
from adapters.releases import ReleaseSettings, ReleaseStore
from benchmarks.harness import ROOT
from benchmarks.remembered import RememberedEncoder
from consumers.assembly import Encoded, Shoppers, assemble
from model.encoder import TextEncoder
from model.release import LoadedRelease, first_release, load_release
from model.settings import ModelSettings
from producers.shop import Shop
from schemas.events import ReviewPosted
from schemas.items import BehaviourState, ItemState, ReviewState, reviews_fingerprint
from schemas.vectors import SparseVector, item_vectors
from service.settings import ServiceSettings

SEED = 11
BATCH = 256
DIGEST_CHARS = 150
SHRINKAGE = 2.0
KEPT = 128
#: Vectors of texts, made once: how long encoding takes is measured elsewhere (benchmarks/encoder.py).
KEPT_VECTORS = ROOT / "var" / "query"
WORTH_KEEPING = 1_000
#: Length of the noise beside a unit vector: neighbours of one text have a cosine of about 0.86.
NOISE = 0.4


class Catalogue:
    """The shop in an index folder, and in memory to score everything exactly.

    `drawn_around` encodes the texts of so many products alone; every vector is then one of theirs with noise
    (`NOISE` of its length, a seeded draw), because encoding 100,000 texts would take longer than the rest.
    """

    def __init__(self, folder: Path, items: int, *, drawn_around: int | None = None) -> None:
        release = load_release(*open_store(folder), ModelSettings())
        self.collection = collection_name(release.release_id)
        shop = Shop(SEED, products=items, shoppers=max(50, items // 4), sessions_per_shopper=8)
        self.products = list(shop.products())[:items]
        self.row = {product.product_id: number for number, product in enumerate(self.products)}
        started = time.monotonic()
        self.digests = self._digests(shop)
        texts = [release.recipe.content(product) for product in self.products[:drawn_around]]
        encoder = RememberedEncoder(release.encoder, KEPT_VECTORS / f"{release.release_id}.npz")
        self.content = drawn(encoder.encode_array(texts), len(self.products))
        self.reviews = np.zeros_like(self.content)
        reviewed = sorted(self.digests)
        digests = [self.digests[row] for row in reviewed[:drawn_around]]
        self.reviews[reviewed] = drawn(encoder.encode_array(digests), len(reviewed))
        if len(texts) > WORTH_KEEPING:
            encoder.keep()
        print(f"{len(texts) + len(digests)} texts encoded in {time.monotonic() - started:.0f} s", flush=True)
        self.lexical = [release.recipe.lexical(product) for product in self.products]
        self.shoppers = np.zeros(len(self.products))
        self.behaviour = self._behaviour(shop)
        index = EdgeIndex(folder / "index")
        index.ensure_collection(self.collection, item_vectors(release.manifest.dimension))
        index.set_alias(LIVE_ALIAS, self.collection)
        for start in range(0, len(self.products), BATCH):
            rows = range(start, min(start + BATCH, len(self.products)))
            index.upsert(self.collection, [self._point(row, release) for row in rows], ticket=1)
        # As the embedded stack does when it starts with so many items, and in small too: the same path.
        started = time.monotonic()
        index.optimize(self.collection)
        print(f"graph built in {time.monotonic() - started:.0f} s", flush=True)
        index.close()
        release.encoder.close()
        self._words = postings(dict(enumerate(self.lexical)))
        self._visits = postings(self.behaviour)

    def _digests(self, shop: Shop) -> dict[int, str]:
        """Each reviewed row's most helpful reviews as one text."""
        written: dict[int, list[ReviewPosted]] = defaultdict(list)
        for review in shop.reviews():
            written[self.row[review.product_id]].append(review)
        digests = {}
        for row, reviews in written.items():
            reviews.sort(key=lambda review: -review.helpful_votes)
            words = [part for review in reviews[:5] for part in (review.title, review.text) if part]
            digests[row] = ". ".join(words)[:DIGEST_CHARS]
        return digests

    def _behaviour(self, shop: Shop) -> dict[int, SparseVector]:
        """Each touched row's vector: at most KEPT shoppers, the same ones for every item."""
        touched: dict[int, set[str]] = defaultdict(set)
        items_of: dict[str, set[str]] = defaultdict(set)
        for event in shop.events():
            if event.type != "impression":
                touched[self.row[event.product_id]].add(event.user_id)
                items_of[event.user_id].add(event.product_id)
        vectors = {}
        for row, users in touched.items():
            self.shoppers[row] = len(users)
            kept = sorted(users, key=_order)[:KEPT]
            scale = 1 / math.sqrt(len(kept) / len(users)) / math.sqrt(len(users) + SHRINKAGE)
            entries: dict[int, float] = defaultdict(float)
            for user in kept:
                entries[_order(user) >> 32] += scale / math.log2(2 + len(items_of[user]))
            vectors[row] = SparseVector(
                tuple(sorted(entries)), tuple(entries[each] for each in sorted(entries))
            )
        return vectors

    def _point(self, row: int, release: LoadedRelease[TextEncoder]) -> Any:
        product = self.products[row]
        digest = self.digests.get(row)
        reviews = ReviewState(digest, None) if digest is not None else None
        shoppers = Shoppers(f"b{row}", self.behaviour[row]) if row in self.behaviour else None
        behaviour = BehaviourState(f"b{row}", int(self.shoppers[row])) if shoppers is not None else None
        state = ItemState(product.product_id, product.order, product.occurred_at, product, reviews, behaviour)
        vectors = [Encoded(release.recipe.fingerprint(product), self.content[row].tolist())]
        if reviews is not None:
            vectors.append(Encoded(reviews_fingerprint(reviews.digest), self.reviews[row].tolist()))
        made = assemble(
            product.product_id,
            state,
            None,
            recipe=release.recipe,
            encoded={vector.fingerprint: vector for vector in vectors},
            now=datetime.now(UTC),
            shoppers=shoppers,
        )
        return made.point

    def query(self, draw: Random, *, limit: int, ruled: bool = True) -> dict[str, Any]:
        """A request by item: in stock, and one of: same department, price band, brand cap.

        `ruled` False asks without what is decided hit by hit, brand cap and variants, as the truth is.
        """
        product = self.products[draw.randrange(len(self.products))]
        wanted: dict[str, Any] = {"in_stock": True} if ruled else {"in_stock": True, "group": "any"}
        kind = draw.randrange(3 if ruled else 2)
        if kind == 0 and product.category:
            wanted["category"] = [product.category[0]]
        elif kind == 1 and product.price is not None:
            wanted["price_ratio"] = {"min": 0.5, "max": 2.0}
        elif ruled:
            wanted["brand_cap"] = 3
        return {"seeds": [{"item_id": product.product_id}], "filter": wanted, "limit": limit}

    def overlap(self, body: dict[str, Any], found: list[str]) -> float:
        """Share of the truly best that were found; truth is every allowed item, scored exactly."""
        seed = self.row[body["seeds"][0]["item_id"]]
        total = self._exact(seed)
        allowed = np.array([self._allowed(row, seed, body["filter"]) for row in range(len(self.products))])
        total = np.where(allowed, total, -np.inf)
        best = [row for row in np.argsort(-total)[: body["limit"]] if total[row] > -np.inf]
        if not best:
            return 1.0
        # Items that tie with the last place are as good as it.
        bound = total[best[-1]] - 1e-3
        good = sum(1 for item in found[: len(best)] if total[self.row[item]] >= bound)
        return good / len(best)

    def _exact(self, seed: int) -> NDArray[np.float64]:
        """Every item's score: the mean over what it and the seed have, behaviour by the seed's evidence."""
        settings = ServiceSettings()
        count = len(self.products)
        ones, none = np.ones(count), np.zeros(count)
        reviewed = np.array([row in self.digests for row in range(count)])
        seen = self.shoppers[seed] / (self.shoppers[seed] + settings.evidence_shoppers)
        parts = {
            "content": (self.content @ self.content[seed], ones),
            "lexical": (self._lexical(seed), ones),
            "reviews": (self.reviews @ self.reviews[seed], reviewed if reviewed[seed] else none),
            "behaviour": (self._shared(seed), seen * ones),
        }
        weights = {name: settings.weights[name] * has for name, (_, has) in parts.items()}  # type: ignore[index]
        total = sum(weights[name] * score for name, (score, _) in parts.items())
        mean: NDArray[np.float64] = total / sum(weights.values())
        return mean

    def _lexical(self, seed: int) -> NDArray[np.float64]:
        scores = np.zeros(len(self.products))
        count = len(self.products)
        for index, value in zip(*self.lexical[seed], strict=True):
            rows, values = self._words[index]
            idf = math.log((count - len(rows) + 0.5) / (len(rows) + 0.5) + 1)
            scores[rows] += value * idf * values
        exact: NDArray[np.float64] = scores / scores[seed]
        return exact

    def _shared(self, seed: int) -> NDArray[np.float64]:
        scores = np.zeros(len(self.products))
        if seed not in self.behaviour:
            return scores
        for index, value in zip(*self.behaviour[seed], strict=True):
            rows, values = self._visits[index]
            scores[rows] += value * values
        exact: NDArray[np.float64] = scores / scores[seed]
        return exact

    def _allowed(self, row: int, seed: int, wanted: dict[str, Any]) -> bool:
        product, other = self.products[row], self.products[seed]
        if row == seed or product.in_stock is not True:
            return False
        if "category" in wanted and wanted["category"][0] not in product.category:
            return False
        if "price_ratio" in wanted:
            if product.price is None or other.price is None or product.currency != other.currency:
                return False
            return 0.5 * float(other.price) <= float(product.price) <= 2.0 * float(other.price)
        return True


def drawn(vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """`count` unit vectors: the given ones, and as many more of the same with noise as are missing."""
    if len(vectors) == count:
        return vectors
    draw = np.random.default_rng(SEED)
    rows = vectors[np.arange(count) % len(vectors)]
    noise = draw.standard_normal(rows.shape, dtype=np.float32)
    noise *= NOISE / np.linalg.norm(noise, axis=1, keepdims=True)
    noise[: len(vectors)] = 0
    rows = rows + noise
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def postings(
    vectors: Mapping[int, SparseVector],
) -> dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """For each index, the rows that have it and their values."""
    rows: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for row, vector in vectors.items():
        for index, value in zip(vector.indices, vector.values, strict=True):
            rows[index].append((row, value))
    return {
        index: (np.array([row for row, _ in pairs]), np.array([value for _, value in pairs]))
        for index, pairs in rows.items()
    }


def _order(user: str) -> int:
    """A shopper's place in the one order of all, and in its upper half their index."""
    return int.from_bytes(hashlib.blake2b(user.encode(), digest_size=8).digest(), "big")


def open_store(folder: Path) -> tuple[ReleaseStore, str]:
    """Where releases are kept in this folder, and the base model's, made if it is not there."""
    store = ReleaseStore(ReleaseSettings(url=str(folder / "releases")))
    return store, first_release(ModelSettings(), store, created_at=datetime.now(UTC)).release_id
