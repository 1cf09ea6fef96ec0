"""model/evaluation.py: ranks in a full ranking, and intervals that cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.evaluation import compare, hits_at, ndcg_at, ranks_of


def rows(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, dtype=np.int64)


def test_a_rank_counts_what_is_nearer_without_the_query_itself() -> None:
    angles = np.array([0.0, 0.1, 0.3, 0.2])
    vectors: NDArray[np.float32] = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert ranks_of(vectors, rows(0, 0, 0), rows(1, 2, 3)).tolist() == [0, 2, 1]
    assert ranks_of(vectors, rows(0), rows(2), left_out=rows(1)).tolist() == [1]


def test_a_model_that_makes_everything_alike_finds_nothing() -> None:
    vectors = np.full((101, 4), 0.5, dtype=np.float32)
    ranks = ranks_of(vectors, rows(0, 1), rows(5, 6))
    assert ranks.tolist() == [49.5, 49.5]
    assert hits_at(ranks, 10).sum() == 0


def test_vectors_that_are_not_finite_rank_nothing() -> None:
    vectors = np.full((3, 2), np.nan, dtype=np.float32)
    with pytest.raises(ValueError, match="not finite"):
        ranks_of(vectors, rows(0), rows(1))


def test_ndcg_is_one_for_the_first_place_and_falls() -> None:
    assert ndcg_at(np.array([0.0, 2.0, 10.0]), 10).tolist() == [1.0, 0.5, 0.0]


def test_the_interval_holds_the_gain_and_knows_clusters() -> None:
    generator = np.random.default_rng(3)
    before = (generator.random(4000) < 0.05).astype(np.float64)
    after = np.maximum(before, generator.random(4000) < 0.03)
    alone = compare(before, after, clusters=np.arange(4000), seed=1, samples=500)
    assert alone.gain.low < alone.gain.value < alone.gain.high
    assert alone.difference.low > 0
    # The same answer forty times is no more evidence than once.
    many = compare(
        np.repeat(before[:100], 40),
        np.repeat(after[:100], 40),
        clusters=np.repeat(np.arange(100), 40),
        seed=1,
        samples=500,
    )
    assert many.difference.high - many.difference.low > 3 * (alone.difference.high - alone.difference.low)
