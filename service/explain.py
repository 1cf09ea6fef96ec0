"""Why a hit is similar: shares of the dimensions, shared words, category, brand and price. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.api import Explanation, Shared
from schemas.vectors import SparseVector
from service.seeds import About

MAX_TERMS = 10
#: Words of a seed that are looked at; descriptions can be long, and its first words come from the title.
MAX_WORDS = 300
_EDGES = re.compile(r"^\W+|\W+$")


@dataclass(frozen=True, slots=True)
class Word:
    """A readable word of the seed and the grams it is made of."""

    text: str
    grams: frozenset[int]


def words_of(text: str, grams_of: Callable[[str], SparseVector]) -> list[Word]:
    """The distinct words of a seed's text, in order, each with its grams (`TextRecipe.lexical_query`)."""
    words: dict[str, Word] = {}
    for raw in text.split()[: 4 * MAX_WORDS]:
        readable = _EDGES.sub("", raw)
        key = readable.casefold()
        if not key or key in words:
            continue
        grams = frozenset(grams_of(readable).indices)
        if grams:
            words[key] = Word(readable, grams)
        if len(words) >= MAX_WORDS:
            break
    return list(words.values())


def shared_terms(
    words: Iterable[Word], query: SparseVector, hit: SparseVector, idf: Mapping[int, float]
) -> list[str]:
    """Words whose grams both have, those that add most to the lexical score first, at most MAX_TERMS.

    A word's worth is the sum over its grams of query value x IDF x hit value: its part of the engine's score.
    """
    asked = dict(zip(query.indices, query.values, strict=True))
    held = dict(zip(hit.indices, hit.values, strict=True))
    ranked = []
    for word in words:
        if all(gram in held and asked.get(gram, 0.0) > 0 for gram in word.grams):
            worth = sum(asked[gram] * idf.get(gram, 1.0) * held[gram] for gram in word.grams)
            ranked.append((-worth, word.text))
    ranked.sort()
    return [text for _, text in ranked[:MAX_TERMS]]


def shares(contributions: Mapping[str, float]) -> dict[str, float]:
    """Each dimension's part of the fused score; absolute values add up to 1 (or are all 0)."""
    total = sum(abs(value) for value in contributions.values())
    return {name: round(value / total, 4) if total else 0.0 for name, value in contributions.items()}


def explanation(
    seed: About, payload: Mapping[str, Any], *, contributions: Mapping[str, float], terms: Sequence[str]
) -> Explanation:
    """Put together what the seed and the hit with this payload have in common."""
    brand = payload.get("brand_name")
    same_brand = brand and seed.brand and brand.casefold() == seed.brand.casefold()
    return Explanation(
        shares=shares(contributions),
        shared=Shared(
            terms=list(terms),
            category=common_prefix(seed.category, payload.get("category_path") or ()),
            brand=brand if same_brand else None,
            price_ratio=_ratio(seed, payload),
        ),
    )


def common_prefix(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """The levels two category paths share from the root."""
    shared = []
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        shared.append(one)
    return shared


def _ratio(seed: About, payload: Mapping[str, Any]) -> float | None:
    """Price of the hit over price of the seed; None without both prices in one currency."""
    price = payload.get("price")
    if price is None or seed.price is None or seed.price.amount <= 0:
        return None
    if payload.get("currency") != seed.price.currency:
        return None
    return round(float(price) / seed.price.amount, 4)
