"""Ratings: the Bayesian mean lies between the shop's prior and what was given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.items import Rating, RatingPrior


def test_few_ratings_stay_near_the_prior_and_many_leave_it() -> None:
    prior = RatingPrior(mean=4.0, count=5.0)
    assert Rating(1.0, 1).bayesian_mean(prior) == 3.5
    assert Rating(1.0, 995).bayesian_mean(prior) == pytest.approx(1.015)
    assert Rating(1.0, 1).bayesian_mean(RatingPrior(mean=4.0, count=0.0)) == 1.0


@given(st.floats(0, 5), st.integers(1, 10**9), st.floats(0, 5), st.floats(0, 1e6))
def test_the_bayesian_mean_lies_between_prior_and_mean(
    mean: float, count: int, prior: float, weight: float
) -> None:
    found = Rating(mean, count).bayesian_mean(RatingPrior(mean=prior, count=weight))
    assert min(mean, prior) - 1e-9 <= found <= max(mean, prior) + 1e-9
