"""service/fusion.py: evidence, the weighted mean over what both sides have, factors."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.vectors import BEHAVIOUR, CONTENT, LEXICAL, VECTOR_DIMENSIONS
from service.fusion import (
    Asked,
    Factors,
    age_seconds,
    category_factor,
    evidence,
    evidence_of,
    freshness_factor,
    fused,
    weights_for,
)
from tests.service.shop import NOW

SHOPPERS = st.floats(0, 1e9)
HALF = st.floats(1e-3, 1e6)
SCORE = st.floats(-1, 1)
WEIGHT = st.floats(0.01, 100)
DIMENSIONS = st.sampled_from(VECTOR_DIMENSIONS)
SCORES = st.dictionaries(DIMENSIONS, SCORE, min_size=1)
WEIGHTS = st.fixed_dictionaries(dict.fromkeys(VECTOR_DIMENSIONS, WEIGHT))


@given(one=SHOPPERS, other=SHOPPERS, half=HALF)
def test_more_shoppers_are_never_less_evidence(one: float, other: float, half: float) -> None:
    fewer, more = sorted((one, other))
    assert 0 <= evidence(fewer, half) <= evidence(more, half) < 1 + 1e-12


@given(half=HALF)
def test_evidence_is_a_half_at_its_setting_and_nothing_without_shoppers(half: float) -> None:
    assert evidence(half, half) == pytest.approx(0.5)
    assert evidence(0, half) == 0


def test_evidence_of_several_seeds_is_the_mean_by_the_size_of_their_weights() -> None:
    assert evidence_of([(1.0, 5)], 5) == 0.5
    assert evidence_of([(3.0, 5), (-1.0, 0)], 5) == pytest.approx(0.375)
    assert evidence_of([(0.0, 5)], 5) == 0


@given(scores=SCORES, weights=WEIGHTS)
def test_the_fused_score_lies_between_the_scores_it_is_made_from(
    scores: dict[str, float], weights: dict[str, float]
) -> None:
    assert min(scores.values()) - 1e-9 <= fused(scores, weights) <= max(scores.values()) + 1e-9


@given(scores=SCORES, weights=WEIGHTS, missing=DIMENSIONS)
def test_a_dimension_that_a_side_lacks_is_renormalised_away(
    scores: dict[str, float], weights: dict[str, float], missing: str
) -> None:
    rest = {name: score for name, score in scores.items() if name != missing}
    # Whatever it weighs, and as if it had never been asked for.
    assert fused(rest, weights) == fused(rest, {**weights, missing: 50.0})
    without = {name: weight for name, weight in weights.items() if name != missing}
    assert fused(rest, weights) == fused(rest, without)


@given(scores=SCORES, weights=WEIGHTS, scale=st.floats(0.1, 10))
def test_only_the_proportions_of_the_weights_matter(
    scores: dict[str, float], weights: dict[str, float], scale: float
) -> None:
    scaled = {name: weight * scale for name, weight in weights.items()}
    assert fused(scores, scaled) == pytest.approx(fused(scores, weights), abs=1e-9)


def test_nothing_in_common_is_a_zero_and_a_negative_weight_counts_by_its_size() -> None:
    assert fused({}, {CONTENT: 1.0}) == 0
    assert fused({CONTENT: 0.9, LEXICAL: 0.5}, {CONTENT: 1.0, LEXICAL: -1.0}) == pytest.approx(0.2)


@given(text=SCORE, shared=SCORE, one=SHOPPERS, other=SHOPPERS)
def test_the_more_shoppers_the_seeds_have_the_more_a_hit_is_judged_by_them(
    text: float, shared: float, one: float, other: float
) -> None:
    def score(shoppers: float) -> float:
        known = evidence(shoppers, 5)
        asked = [Asked(CONTENT, [1.0], 1.0), Asked(BEHAVIOUR, [1.0], 2.0, evidence=known)]
        return fused({CONTENT: text, BEHAVIOUR: shared}, weights_for(asked))

    fewer, more = sorted((one, other))
    assert abs(score(more) - shared) <= abs(score(fewer) - shared) + 1e-9


LEAVES = {("Sport", "Shoes")}


@pytest.mark.parametrize(
    ("wanted", "path", "factor"),
    [
        (0.0, ["Home"], None),
        (0.5, ["Sport", "Shoes"], None),
        (0.5, ["Sport"], 0.5),
        (0.5, ["Sport", "Shoes", "Trail"], 0.5),
        (0.5, [], None),
        (-0.7, ["Sport", "Shoes"], pytest.approx(0.3)),
        (-0.7, ["Home"], None),
        (1.0, ["Home"], 0.0),
    ],
)
def test_the_leaf_category_decides_who_loses(wanted: float, path: list[str], factor: float | None) -> None:
    assert category_factor(wanted, LEAVES, path) == factor
    assert category_factor(wanted, set(), path) is None


def test_an_item_loses_half_of_what_age_can_take_in_a_half_life() -> None:
    assert freshness_factor(0.4, 0, 100) == 1
    assert freshness_factor(0.4, 100, 100) == pytest.approx(0.8)
    assert freshness_factor(0.4, 1e9, 100) == pytest.approx(0.6)
    assert freshness_factor(0.4, -50, 100) == 1  # a clock that runs ahead


def test_neither_a_new_price_nor_a_new_release_makes_an_item_new() -> None:
    old, new = (NOW - timedelta(days=30)).isoformat(), NOW.isoformat()
    for occurred_at, encoded_at, days in ((old, old, 30), (new, old, 30), (old, new, 30), (new, new, 0)):
        payload = {"occurred_at": occurred_at, "updated_at": {"content": encoded_at}}
        assert age_seconds(payload, NOW) == days * 86_400
    assert age_seconds({}, NOW) is None


def test_factors_multiply_and_leave_negative_scores_alone() -> None:
    assert Factors(0.5, 0.8).of(0.5) == pytest.approx(0.2)
    assert Factors(None, 0.8).of(0.5) == pytest.approx(0.4)
    assert Factors(0.5, 0.8).of(-0.5) == -0.5
    assert Factors().of(0.5) == 0.5
