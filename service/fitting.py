"""The dimensions' weights that rank a shop's own relevant items best. Pure: it asks nobody.

It is given, for each query, the exact scores of a union of candidates in every dimension, the evidence of the
query's seeds, and which candidates are relevant; fusion is that of service/fusion.py, over arrays. The
search is a coordinate ascent on mean NDCG@k in steps of a factor, from several starts, the present weights
among them. NDCG moves in steps, so there is no gradient to follow, and four weights of which only the
proportions matter are few enough to try.

Never   looks at a query that the result is checked on
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.judging import gain, ideal

Floats = NDArray[np.float64]
#: What a weight is tried at: nothing, these parts of itself, and beside them the largest one's share.
FACTORS = (0.0, 0.5, 0.8, 1.25, 2.0)
SHARES = (0.05, 0.2, 0.5, 1.0)
FINE = (0.9, 0.95, 1.05, 1.1)
DRAWN_STARTS = 6
ROUNDS = 25
#: The smallest gain that a step must bring.
WORTH = 1e-6


@dataclass(frozen=True, slots=True)
class Question:
    """One query's candidates: shape (candidates, dimensions), NaN where a candidate lacks the dimension.

    `evidence` is what the query's seeds count with in each dimension (1 but for behaviour; 0 where the seeds
    lack it). Candidates are in the order that breaks ties. `relevant` counts those not among them too.
    """

    scores: Floats
    evidence: Floats
    places: Sequence[int]
    relevant: int


class Questions:
    """Many queries as arrays, so that one set of weights is judged on all of them in milliseconds."""

    def __init__(self, asked: Sequence[Question], *, k: int) -> None:
        if not asked:
            raise ValueError("nothing to fit weights on")
        most = max(len(one.scores) for one in asked)
        width = len(asked[0].evidence)
        self._scores = np.zeros((len(asked), most, width))
        self._has = np.zeros((len(asked), most, width))
        self._real = np.zeros((len(asked), most), dtype=np.bool_)
        for number, one in enumerate(asked):
            count = len(one.scores)
            self._scores[number, :count] = np.nan_to_num(one.scores)
            self._has[number, :count] = ~np.isnan(one.scores)
            self._real[number, :count] = True
        self._evidence = np.array([one.evidence for one in asked])
        self._query = np.array([n for n, one in enumerate(asked) for _ in one.places], dtype=np.int64)
        self._place = np.array([place for one in asked for place in one.places], dtype=np.int64)
        self._gains = np.array([gain(place) for place in range(k)] + [0.0])
        self._ideal = np.array([ideal(one.relevant, k) for one in asked])
        self._k = k

    def ndcg(self, weights: Floats) -> Floats:
        """NDCG@k of each query with these weights, shape (queries,)."""
        applied = weights * self._evidence
        total = np.einsum("qcd,qd->qc", self._scores, applied)
        over = np.einsum("qcd,qd->qc", self._has, np.abs(applied))
        fused = np.where(
            self._real, np.divide(total, over, out=np.zeros_like(total), where=over > 0), -np.inf
        )
        rows = fused[self._query]
        own = rows[np.arange(len(rows)), self._place][:, None]
        earlier = np.arange(rows.shape[1]) < self._place[:, None]
        rank = ((rows > own) | ((rows == own) & earlier)).sum(axis=1)
        gained = np.bincount(
            self._query, weights=self._gains[np.minimum(rank, self._k)], minlength=len(self._ideal)
        )
        found: Floats = gained / self._ideal
        return found


def fitted(
    asked: Sequence[Question],
    dimensions: Sequence[str],
    present: Mapping[str, float],
    *,
    k: int,
    seed: int,
) -> dict[str, float]:
    """The weights with the highest mean NDCG@k that was found, the largest 1, in steps of a thousandth.

    `present` is where the search starts from first; of equals it stays. Raises ValueError without queries.
    """
    questions = Questions(asked, k=k)
    rng = np.random.default_rng(seed)

    def worth(weights: Floats) -> float:
        return float(questions.ndcg(weights).mean())

    width = len(dimensions)
    starts = [np.array([max(0.0, present.get(name, 0.0)) for name in dimensions])]
    starts += [*np.eye(width), np.ones(width)]
    starts += [np.exp(rng.uniform(np.log(0.02), 0.0, width)) for _ in range(DRAWN_STARTS)]
    starts = [start / start.max() for start in starts if start.max() > 0]
    # A stable sort: between equals the present weights come first.
    order = sorted(range(len(starts)), key=lambda place: -worth(starts[place]))
    best, height = starts[order[0]], worth(starts[order[0]])
    for place in dict.fromkeys([0, *order[:3]]):
        found, reached = _climbed(starts[place], worth)
        if reached > height + WORTH:
            best, height = found, reached
    return {name: round(float(weight), 3) for name, weight in zip(dimensions, best, strict=True)}


def _climbed(start: Floats, worth: Callable[[Floats], float]) -> tuple[Floats, float]:
    """Coordinate ascent: each weight in turn to the best of what is tried, until none moves."""
    here, height = start, worth(start)
    for factors, shares in ((FACTORS, SHARES), (FINE, ())):
        for _ in range(ROUNDS):
            before = height
            for dimension in range(len(here)):
                for value in (*(here[dimension] * factor for factor in factors), *shares):
                    tried = here.copy()
                    tried[dimension] = value
                    if tried.max() <= 0:
                        continue
                    tried /= tried.max()
                    reached = worth(tried)
                    if reached > height + WORTH:
                        here, height = tried, reached
            if height <= before + WORTH:
                break
    return here, height
