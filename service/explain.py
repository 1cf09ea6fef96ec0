"""Why a hit is similar: shares of the dimensions, shared words, shoppers, category, brand, price. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from schemas.api import Applied, Explanation, RelatedBy, SeedShare, Shared
from schemas.events import Product
from schemas.vectors import BEHAVIOUR, SparseVector, Vector
from service.seeds import About

MAX_TERMS = 10
#: Words of a seed that are looked at, and pairs of characters where words are not told apart; descriptions
#: can be long, and the first words come from the title.
MAX_WORDS = 300
#: From the first to the last character of a word. Taking away what is around them would search anew from
#: each of a thousand commas.
_INSIDE = re.compile(r"\w(?:.*\w)?", re.DOTALL)
#: Runs of scripts that are written without spaces, which the recipe cuts into single characters and pairs.
_UNSPACED = re.compile(r"([\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]{2,})")


@dataclass(frozen=True, slots=True)
class Word:
    """A readable word of the seed and the grams that make it up, those across its edges left out.

    `run` and `position` tell neighbouring pairs of one unspaced run, which are shown as one term.
    """

    text: str
    grams: frozenset[int]
    run: int = -1
    position: int = 0


def words_of(text: str, grams_of: Callable[[Product], Mapping[int, str]]) -> list[Word]:
    """The distinct words of a seed's text, in order, each with its grams (`TextRecipe.grams`)."""
    words: dict[str, Word] = {}
    for piece, run, position in islice(_pieces(text), MAX_WORDS):
        name = piece.casefold() if run < 0 else piece
        if name in words:
            continue
        grams = grams_of(Product.model_construct(title=piece))
        if run < 0:
            # "(black)," and "black" share what lies inside the word; a short word has nothing but edges.
            inside = frozenset(index for index, gram in grams.items() if gram == gram.strip())
        else:
            inside = frozenset(index for index, gram in grams.items() if len(gram) == 2)
        words[name] = Word(piece, inside or frozenset(grams), run, position)
    return list(words.values())


def _pieces(text: str) -> Iterator[tuple[str, int, int]]:
    """Words, and pairs of neighbours in a run without spaces: each with its run and position, if any."""
    run = -1
    for raw in text.split():
        for part in _UNSPACED.split(raw):
            found = _INSIDE.search(part)
            if found is None:
                continue
            readable = found[0]
            if _UNSPACED.fullmatch(readable):
                run += 1
                for position in range(len(readable) - 1):
                    yield readable[position : position + 2], run, position
            else:
                yield readable, -1, 0


def shared_terms(
    words: Sequence[Word], query: SparseVector, hit: SparseVector, idf: Mapping[int, float]
) -> list[str]:
    """Words of the seed whose grams the hit has too, those that add most to the score first.

    A word's worth is the sum over its grams of query value x IDF x hit value: its part of the engine's score.
    """
    asked = dict(zip(query.indices, query.values, strict=True))
    held = dict(zip(hit.indices, hit.values, strict=True))
    terms: list[tuple[float, str, Word]] = []
    for word in words:
        if not word.grams or not word.grams <= held.keys():
            continue
        worth = sum(asked.get(gram, 0.0) * idf.get(gram, 0.0) * held[gram] for gram in word.grams)
        if worth <= 0:
            continue
        before = terms[-1] if terms else None
        if before and word.run >= 0 and (before[2].run, before[2].position + 1) == (word.run, word.position):
            terms[-1] = (before[0] + worth, before[1] + word.text[-1], word)
        else:
            terms.append((worth, word.text, word))
    ranked = sorted(terms, key=lambda term: (-term[0], term[1]))
    return [text for _, text, _ in ranked[:MAX_TERMS]]


def shares(contributions: Mapping[str, float]) -> dict[str, float]:
    """Each dimension's part of the fused score; absolute values add up to 1 (or are all 0)."""
    total = sum(abs(value) for value in contributions.values())
    return {name: round(value / total, 4) if total else 0.0 for name, value in contributions.items()}


def explanation(
    seed: About,
    payload: Mapping[str, Any],
    *,
    contributions: Mapping[str, float],
    terms: Sequence[str] = (),
    shoppers: int | None = None,
    seeds: Sequence[SeedShare] = (),
    related: RelatedBy | None = None,
    rules: Applied | None = None,
) -> Explanation:
    """Put together what the seed and the hit with this payload have in common."""
    brand = payload.get("brand_name")
    same_brand = brand and seed.brand and brand.casefold() == seed.brand.casefold()
    path = payload.get("category_path") or ()
    return Explanation(
        shares=shares(contributions),
        shared=Shared(
            terms=list(terms),
            category=common_prefix(seed.category, path),
            category_distance=category_distance(seed.category, path),
            brand=brand if same_brand else None,
            price_ratio=_ratio(seed, payload),
            shoppers=shoppers,
        ),
        related=related,
        seeds=list(seeds),
        rules=rules or Applied(),
    )


def shoppers_in_common(seed: Mapping[str, Vector], hit: Mapping[str, Vector]) -> int | None:
    """Shoppers that both items' vectors name; None where one of them has no vector `behaviour`.

    A vector names the members of the item's sketch, at most k of its shoppers. Sketches are coordinated (one
    hash orders all shoppers), so popular items share members as their shoppers do; the count is of members.
    """
    one, other = seed.get(BEHAVIOUR), hit.get(BEHAVIOUR)
    if not isinstance(one, SparseVector) or not isinstance(other, SparseVector):
        return None
    return len(set(one.indices) & set(other.indices))


def common_prefix(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """The levels two category paths share from the root."""
    shared = []
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        shared.append(one)
    return shared


def category_distance(left: Sequence[str], right: Sequence[str]) -> int | None:
    """Levels from the deeper of two categories up to their common ancestor; None where one is unknown."""
    if not left or not right:
        return None
    return max(len(left), len(right)) - len(common_prefix(left, right))


def _ratio(seed: About, payload: Mapping[str, Any]) -> float | None:
    """Price of the hit over price of the seed; None without both prices in one currency."""
    price = payload.get("price")
    if price is None or seed.price is None or seed.price.amount <= 0:
        return None
    if payload.get("currency") != seed.price.currency:
        return None
    return round(float(price) / seed.price.amount, 4)
