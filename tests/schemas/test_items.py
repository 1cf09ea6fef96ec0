"""Ratings lie between the shop's prior and what was given; a picture's mark comes back as it was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.items import PictureMark, Rating, RatingPrior


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


@pytest.mark.parametrize("refused", [None, "kind", "too large: 9 MiB"])
def test_a_picture_s_mark_comes_back_from_its_point(refused: str | None) -> None:
    mark = PictureMark("a1b2c3", refused)
    assert PictureMark.read(mark.fingerprint) == mark
    assert PictureMark.read(mark.fingerprint).picture == "a1b2c3"


def test_the_mark_of_a_refused_picture_is_what_stands_on_points_already() -> None:
    assert PictureMark("a1b2c3", "kind").fingerprint == "a1b2c3:kind"
    assert PictureMark("a1b2c3").fingerprint == "a1b2c3"
