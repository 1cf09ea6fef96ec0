"""service/judging.py: figures of a query as worked out by hand, and intervals that know their width."""

from __future__ import annotations

import math

import pytest

from service.judging import interval, judged


def test_figures_of_one_query_are_those_worked_out_by_hand() -> None:
    found = judged(["x", "a", "y", "b", "c"], {"a", "b", "c", "d"}, 4)
    assert found["recall"] == 2 / 4
    best = 1 + 1 / math.log2(3) + 1 / math.log2(4) + 1 / math.log2(5)
    assert found["ndcg"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / best)
    assert found["hit_rate"] == 1.0


def test_a_perfect_answer_is_worth_one_and_an_empty_one_nothing() -> None:
    assert judged(["a", "b"], {"a", "b"}, 10) == {"recall": 1.0, "ndcg": 1.0, "hit_rate": 1.0}
    assert judged([], {"a"}, 10) == {"recall": 0.0, "ndcg": 0.0, "hit_rate": 0.0}
    with pytest.raises(ValueError, match="relevant"):
        judged(["a"], set(), 10)


def test_an_interval_holds_the_mean_and_is_that_of_the_normal_law_where_there_are_many() -> None:
    values = [0.0, 1.0] * 500
    found = interval(values, seed=1)
    assert found.mean == 0.5
    assert found.count == 1_000
    assert found.low == pytest.approx(0.5 - 1.96 * 0.5 / math.sqrt(1_000), abs=0.004)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.5 / math.sqrt(1_000), abs=0.004)
    assert interval(values, seed=1) == found


def test_a_difference_is_significant_only_away_from_zero() -> None:
    assert interval([0.1, 0.2, 0.3] * 20, seed=1).significant
    assert not interval([-0.1, 0.1] * 30, seed=1).significant
    assert interval([-0.1] * 10, seed=1).significant
    with pytest.raises(ValueError, match="one value"):
        interval([], seed=1)
