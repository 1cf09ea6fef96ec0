"""Seeds of a request become one vector per dimension, with what is known of the first positive one.

Reads   the index for items of the catalogue; the release's encoder and recipe for inline products and texts
Writes  nothing
Never   needs an encoder when every seed is an item
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from schemas.api import Seed
from schemas.events import Product
from schemas.vectors import CONTENT, LEXICAL, DenseVector, Point, SparseVector, Vector
from service.filters import Price
from service.releases import LoadedRelease

#: A combination shorter than this came from seeds that cancel each other out.
_NOTHING = 1e-6


@dataclass(frozen=True, slots=True)
class About:
    """What explanations and filters know of a seed, wherever it came from."""

    words: str
    brand: str | None = None
    category: tuple[str, ...] = ()
    price: Price | None = None
    group_id: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One seed: its weight, its vectors by dimension (absent ones left out), and its id if it has one.

    `shoppers` is the evidence behind its vector `behaviour`.
    """

    weight: float
    vectors: Mapping[str, Vector]
    about: About
    product_id: str | None = None
    shoppers: float = 0.0


def about_payload(payload: Mapping[str, Any]) -> About:
    """From a point's payload (schemas.items.live_payload)."""
    category = tuple(payload.get("category_path") or ())
    values = [term.partition("=")[2] for term in payload.get("attributes") or ()]
    words = [payload["title"], payload.get("brand_name") or "", *category, *values]
    price = payload.get("price")
    return About(
        words=" ".join(words),
        brand=payload.get("brand_name"),
        category=category,
        price=None if price is None else Price(float(price), payload.get("currency")),
        group_id=payload.get("group_id"),
    )


def about_product(product: Product) -> About:
    """From an inline product."""
    values = [word for value in product.attributes.values() for word in _listed(value)]
    words = [product.title, product.brand or "", *product.category, *values, product.description or ""]
    return About(
        words=" ".join(words),
        brand=product.brand,
        category=tuple(product.category),
        price=None if product.price is None else Price(float(product.price), product.currency),
        group_id=product.group_id,
    )


def _listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


def item_part(seed: Seed, point: Point) -> Part:
    """A seed from the catalogue: the vectors its point holds."""
    return Part(
        weight=seed.weight,
        vectors=point.vectors,
        about=about_payload(point.payload),
        product_id=point.product_id,
        shoppers=point.payload.get("shoppers") or 0,
    )


def inline_parts(
    seeds: Sequence[Seed], text: str | None, *, load: Callable[[], LoadedRelease], dense: bool
) -> list[Part]:
    """Inline products, encoded with their fields as an event would be, then the text with the query prompt.

    `load` gives the collection's release (and raises where it is not loaded); it is not called when there is
    nothing inline. `dense` False leaves the encoder alone, for queries that weigh only words.
    """
    products = [(seed.weight, seed.item) for seed in seeds if seed.item is not None]
    if not products and text is None:
        return []
    release = load()
    recipe = release.recipe
    parts: list[Part] = []
    encoded: list[list[float]] = []
    if dense and products:
        encoded = release.encoder.encode([recipe.content(product) for _, product in products])
    for number, (weight, product) in enumerate(products):
        vectors: dict[str, Vector] = {LEXICAL: recipe.lexical(product)}
        if dense:
            vectors[CONTENT] = encoded[number]
        parts.append(Part(weight, vectors, about_product(product)))
    if text is not None:
        vectors = {LEXICAL: recipe.lexical_query(text)}
        if dense:
            vectors[CONTENT] = release.encoder.encode([text], query=True)[0]
        parts.append(Part(1.0, vectors, About(words=text)))
    return parts


def decayed(seeds: Sequence[Seed], half_life_seconds: float) -> list[Seed]:
    """The seeds with the weight that their age leaves them: half for every half-life before the newest one.

    Age counts from the newest seed and not from now, so that the same request always gets the same answer;
    only what the weights are to each other decides. A seed without a time keeps its weight.
    """
    times = [seed.occurred_at for seed in seeds if seed.occurred_at is not None]
    if len(set(times)) < 2:
        return list(seeds)
    newest = max(times)
    return [
        seed
        if seed.occurred_at is None
        else seed.model_copy(
            update={"weight": seed.weight * _left(newest, seed.occurred_at, half_life_seconds)}
        )
        for seed in seeds
    ]


def _left(newest: datetime, at: datetime, half_life_seconds: float) -> float:
    return float(0.5 ** ((newest - at).total_seconds() / half_life_seconds))


def combined_dense(parts: Sequence[tuple[float, DenseVector]]) -> tuple[list[float], float] | None:
    """The unit vector along the weighted sum and the sum's norm, or None where the seeds cancel out."""
    total = np.sum([weight * np.asarray(vector, dtype=np.float64) for weight, vector in parts], axis=0)
    norm = float(np.linalg.norm(total))
    if norm < _NOTHING:
        return None
    unit: list[float] = (total / norm).tolist()
    return unit, norm


def combined_sparse(parts: Sequence[tuple[float, SparseVector]]) -> tuple[SparseVector, float] | None:
    """The unit vector along the weighted sum and the sum's norm, or None where nothing is left."""
    scaled = [weight * np.asarray(vector.values) for weight, vector in parts]
    indices = np.concatenate([np.asarray(vector.indices, dtype=np.int64) for _, vector in parts])
    unique, places = np.unique(indices, return_inverse=True)
    total = np.bincount(places, weights=np.concatenate(scaled), minlength=len(unique))
    norm = float(np.linalg.norm(total))
    if norm < _NOTHING:
        return None
    left = total != 0.0
    return SparseVector(tuple(unique[left].tolist()), tuple((total[left] / norm).tolist())), norm


def length(vector: SparseVector) -> float:
    """The L2 norm."""
    return math.sqrt(sum(value * value for value in vector.values))
