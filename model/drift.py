"""Has the shop moved on since the model was trained? Shares, vectors and hits of then and now, compared.

Reads, writes  nothing: counts and arrays in memory
Never          imports torch, or calls a difference drift that sampling alone would make
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.evaluation import Interval
from schemas.events import Product

Floats = NDArray[np.float64]

#: Half an observation in every cell, so that an empty one is no infinity.
_SMOOTHING = 0.5
_MOST_CELLS = 20


def population_stability(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Population stability index of two counts of the same cells: sum of (q - p) ln(q / p).

    By custom below 0.1 is no change, and above 0.25 a major one (Siddiqi 2006, Credit Risk Scorecards). What
    is not among the 20 largest cells of both together is one cell. 0 where either side is empty.
    """
    if not sum(before.values()) or not sum(after.values()):
        return 0.0
    both = Counter(before) + Counter(after)
    named = [cell for cell, _ in both.most_common(_MOST_CELLS)]
    rest = len(both) > len(named)

    def shares(counts: Mapping[str, int]) -> list[float]:
        cells = [counts.get(cell, 0) for cell in named]
        cells += [sum(counts.values()) - sum(cells)] if rest else []
        whole = sum(cells) + _SMOOTHING * len(cells)
        return [(count + _SMOOTHING) / whole for count in cells]

    return sum((q - p) * math.log(q / p) for p, q in zip(shares(before), shares(after), strict=True))


def embedding_stability(
    before: NDArray[np.float32], after: NDArray[np.float32], *, directions: int = 8, bins: int = 10
) -> float:
    """The largest population stability index along the main directions of `before`; rows are vectors.

    Cells of a direction are the quantiles of `before` in it. 0 where either side has fewer rows than cells.
    """
    if min(len(before), len(after)) < bins:
        return 0.0
    centre = before.mean(axis=0)
    _, _, main = np.linalg.svd(before - centre, full_matrices=False)
    worst = 0.0
    for direction in main[:directions]:
        then, now = (before - centre) @ direction, (after - centre) @ direction
        edges = np.quantile(then, np.linspace(0, 1, bins + 1)[1:-1])
        cells = [Counter(map(str, np.searchsorted(edges, side).tolist())) for side in (then, now)]
        worst = max(worst, population_stability(*cells))
    return worst


def catalogue_cells(products: Iterable[Product]) -> dict[str, dict[str, int]]:
    """What a catalogue is compared by: counts of top categories, and of price bands (each twice the last)."""
    categories: Counter[str] = Counter()
    prices: Counter[str] = Counter()
    for product in products:
        categories[product.category[0] if product.category else ""] += 1
        if product.price is not None and product.price > 0:
            prices[f"{product.currency} {math.floor(math.log2(float(product.price)))}"] += 1
    return {"category": dict(categories), "price": dict(prices)}


def change_of_mean(
    before: Floats, after: Floats, *, seed: int, samples: int = 1_000, confidence: float = 0.95
) -> Interval:
    """Mean of `after` less mean of `before`, two samples of their own, by percentile bootstrap.

    Efron & Tibshirani 1993, section 8.3. Raises ValueError where one is empty.
    """
    if not len(before) or not len(after):
        raise ValueError("a mean of nothing cannot have changed")
    generator = np.random.default_rng(seed)

    def means(values: Floats) -> Floats:
        drawn = generator.integers(0, len(values), (samples, len(values)))
        found: Floats = values[drawn].mean(axis=1)
        return found

    differences = means(after) - means(before)
    low, high = np.quantile(differences, ((1 - confidence) / 2, (1 + confidence) / 2))
    return Interval(float(after.mean() - before.mean()), float(low), float(high))


def weighted_sample(items: Sequence[str], *, most: int, seed: int) -> list[str]:
    """At most so many of the events' items, so an item that is looked at more stands there more often."""
    if len(items) <= most:
        return list(items)
    chosen = np.random.default_rng(seed).choice(len(items), most, replace=False)
    return [items[row] for row in sorted(chosen)]
