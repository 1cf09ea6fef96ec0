"""Where the wanted item stands in a full ranking, and how surely one model does better than another.

Reads, writes  nothing: arrays in memory
Never          imports torch, samples the candidates of a ranking, or lets equal scores count as found

A rank is 0 for the nearest. Of items with equal scores the wanted one stands in the middle, so that a model
that makes everything alike finds nothing. Confidence intervals are percentile bootstraps over clusters of
queries (Efron & Tibshirani 1993, chapter 13): queries for one item are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_BLOCK = 512


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """Queries and the one item each wants, all by row of `texts`; every text but the query is a candidate.

    `slices` mark queries by name. `clusters` say which queries belong together; the wanted item, if None.
    `apart`: what each names is not wanted, and a hit is an answer without it.
    """

    name: str
    texts: Sequence[str]
    queries: Ints
    targets: Ints
    slices: Mapping[str, Bools] = field(default_factory=dict)
    clusters: Ints | None = None
    apart: bool = False

    def __len__(self) -> int:
        return len(self.queries)


def ranks_of(
    vectors: NDArray[np.float32], queries: Ints, targets: Ints, *, left_out: Ints | None = None
) -> Floats:
    """Rank of each query's target among all rows but the query's own; unit vectors (rows, dimension).

    `left_out` are rows that are no candidates (texts of queries alone). Raises ValueError for vectors that
    are not finite: every comparison with NaN would put the target first.
    """
    if not np.isfinite(vectors).all():
        raise ValueError("vectors are not finite; they rank nothing")
    ranks = np.empty(len(queries), dtype=np.float64)
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, start + _BLOCK)
        rows = np.arange(len(queries[block]))
        scores = vectors[queries[block]] @ vectors.T
        wanted = scores[rows, targets[block]][:, None].copy()
        scores[rows, queries[block]] = -np.inf
        if left_out is not None:
            scores[:, left_out] = -np.inf
        above = (scores > wanted + 1e-6).sum(axis=1)
        equal = (np.abs(scores - wanted) <= 1e-6).sum(axis=1)
        ranks[block] = above + np.maximum(equal - 1, 0) / 2
    return ranks


def hits_at(ranks: Floats, k: int) -> Floats:
    """1 where the target is among the first k."""
    return (ranks < k).astype(np.float64)


def ndcg_at(ranks: Floats, k: int) -> Floats:
    """1 / log2(2 + rank) among the first k, else 0: with one relevant item the ideal is 1."""
    return np.where(ranks < k, 1.0 / np.log2(2.0 + ranks), 0.0)


class Interval(NamedTuple):
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """The mean of the same queries under two models, and by how much the second is better."""

    queries: int
    before: float
    after: float
    difference: Interval
    gain: Interval


def compare(
    before: Floats,
    after: Floats,
    *,
    clusters: Ints,
    seed: int,
    samples: int = 2_000,
    confidence: float = 0.95,
) -> Comparison:
    """Paired bootstrap over clusters. `gain` is relative to `before`, 0 where both are 0."""
    _, number = np.unique(clusters, return_inverse=True)
    sums = np.stack([np.bincount(number, weights=values) for values in (before, after)])
    sizes = np.bincount(number).astype(np.float64)
    generator = np.random.default_rng(seed)
    many = len(sizes)
    differences, gains = np.empty(samples), np.empty(samples)
    for sample in range(samples):
        drawn = np.bincount(generator.integers(0, many, many), minlength=many)
        (low, high), weight = sums @ drawn, sizes @ drawn
        differences[sample] = (high - low) / weight
        gains[sample] = _gain(low, high)
    edges = ((1 - confidence) / 2, (1 + confidence) / 2)
    first, second = float(before.mean()), float(after.mean())
    return Comparison(
        queries=len(before),
        before=first,
        after=second,
        difference=Interval(second - first, *map(float, np.quantile(differences, edges))),
        gain=Interval(_gain(first, second), *map(float, np.quantile(gains, edges))),
    )


def _gain(before: float, after: float) -> float:
    if before > 0:
        return after / before - 1
    return 0.0 if after == 0 else 1.0
