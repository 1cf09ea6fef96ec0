"""What updates gave and took: from hits on every period after every update to transfer and its intervals.

Reads, writes  nothing: arrays in memory
Never          averages queries away before the bootstrap, which draws households: they have many of them

R[i, j] is the hit rate on period j after update i, row 0 the model before the first one. Backward and forward
transfer are those of Lopez-Paz & Ranzato 2017 (Gradient episodic memory, section 2), in shares of queries: of
R[T, j] - R[j, j] for j < T, and of R[j - 1, j] - R[0, j] for j > 1. Queries count alike, so that a period
with fewer of them counts less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.evaluation import Comparison, Floats, Interval, Ints, compare

#: Hits of one chain of updates: by update (0 is before the first), then by period, one number per query.
Chain = Sequence[Sequence[Floats]]


class Chains(NamedTuple):
    """The same chain under several seeds, and per period whose query each one is."""

    seeds: Sequence[Chain]
    households: Sequence[Ints]

    @property
    def periods(self) -> int:
        """How many periods there are; there are as many updates."""
        return len(self.households)

    def matrix(self) -> NDArray[np.float64]:
        """R, (updates + 1, periods), the mean over seeds."""
        cells = [[[float(hits.mean()) for hits in row] for row in chain] for chain in self.seeds]
        found: NDArray[np.float64] = np.array(cells, dtype=np.float64).mean(axis=0)
        return found

    def backward(self) -> Comparison:
        """What later updates did to a period that was learned."""
        last = self.periods
        return self._compared([(place + 1, last, place) for place in range(last - 1)])

    def forward(self) -> Comparison:
        """What updates before it did for a period that was not learned yet."""
        return self._compared([(0, place, place) for place in range(1, self.periods)])

    def learned(self) -> Comparison:
        """What the newest period gained over the model before all updates, from the second update on."""
        return self._compared([(0, place + 1, place) for place in range(1, self.periods)])

    def at_last(self) -> Comparison:
        """All periods, before all updates and after the last one."""
        return self._compared([(0, self.periods, place) for place in range(self.periods)])

    def _compared(self, cells: Sequence[tuple[int, int, int]]) -> Comparison:
        """Before and after, as (update, update, period)."""
        rows = [(chain, *cell) for chain in self.seeds for cell in cells]
        return compare(
            np.concatenate([chain[before][period] for chain, before, _, period in rows]),
            np.concatenate([chain[after][period] for chain, _, after, period in rows]),
            clusters=np.concatenate([self.households[period] for _, _, _, period in rows]),
            seed=1,
        )


def share_of_gain(one: Chains, other: Chains, *, samples: int = 2_000) -> Interval:
    """What one chain learned of each new period over what the other did; NaN where the other learned none."""
    sums: list[Floats] = []
    cells = [(seed, place) for seed in range(len(one.seeds)) for place in range(1, one.periods)]
    households = np.concatenate([one.households[place] for _, place in cells])
    _, number = np.unique(households, return_inverse=True)
    for chains in (one, other):
        gains = [chains.seeds[seed][place + 1][place] - chains.seeds[seed][0][place] for seed, place in cells]
        sums.append(np.bincount(number, weights=np.concatenate(gains)).astype(np.float64))
    both = np.stack(sums)
    generator = np.random.default_rng(1)
    many = both.shape[1]
    drawn = [np.bincount(generator.integers(0, many, many), minlength=many) for _ in range(samples)]
    found = [_over(*(both @ weights)) for weights in drawn]
    low, high = np.nanquantile(found, (0.025, 0.975)) if not np.isnan(found).all() else (np.nan, np.nan)
    return Interval(_over(*both.sum(axis=1)), float(low), float(high))


def _over(one: float, other: float) -> float:
    return float(one / other) if other > 0 else float("nan")
