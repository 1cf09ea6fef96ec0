"""service/selection.py: rules hit by hit, and maximal marginal relevance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.api import Filter
from service.fusion import Scored
from service.selection import Rules, chosen, marginal


def scored(product_id: str, score: float, **payload: Any) -> Scored:
    return Scored(product_id, score, {}, {}, {"title": product_id, **payload})


def rules(**wanted: Any) -> Rules:
    return Rules(Filter.model_validate({"group": "any", **wanted}), None)


def ids(pool: list[Scored], wanted: Rules, limit: int = 10) -> list[str]:
    return [one.scored.product_id for one in chosen(pool, wanted, limit)]


@st.composite
def pools(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores, best first, and the cosines of as many vectors."""
    count = draw(st.integers(1, 12))
    scores = sorted(draw(st.lists(st.floats(-1, 1), min_size=count, max_size=count)), reverse=True)
    vectors = np.random.default_rng(draw(st.integers(0, 10_000))).standard_normal((count, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.array(scores), vectors @ vectors.T


@given(pool=pools(), limit=st.integers(1, 12))
def test_without_diversity_the_order_is_that_of_the_scores(pool: Any, limit: int) -> None:
    scores, similarity = pool
    assert marginal(scores, lambda place: similarity[place], diversity=0.0, limit=limit) == list(
        range(min(limit, len(scores)))
    )


@settings(deadline=None)
@given(pool=pools(), diversity=st.floats(0, 1))
def test_each_place_goes_to_the_most_marginal_relevance(pool: Any, diversity: float) -> None:
    scores, similarity = pool
    order = marginal(scores, lambda place: similarity[place], diversity=diversity, limit=len(scores))
    assert sorted(order) == list(range(len(scores)))

    def worth(place: int, before: list[int]) -> float:
        nearest = max([0.0, *(float(similarity[place][other]) for other in before)])
        return float((1 - diversity) * scores[place] - diversity * nearest)

    for position, place in enumerate(order):
        best = max(worth(other, order[:position]) for other in order[position:])
        assert worth(place, order[:position]) == pytest.approx(best, abs=1e-9)


def test_diversity_prefers_what_is_unlike_the_hits_before_it() -> None:
    scores = np.array([0.9, 0.89, 0.5])
    similarity = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert marginal(scores, lambda place: similarity[place], diversity=0.0, limit=2) == [0, 1]
    assert marginal(scores, lambda place: similarity[place], diversity=0.5, limit=2) == [0, 2]


def test_who_is_refused_takes_no_place_and_pushes_nobody_away() -> None:
    scores = np.array([0.9, 0.89, 0.5])
    similarity = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = marginal(
        scores, lambda place: similarity[place], diversity=0.5, limit=3, admit=lambda place: place != 0
    )
    assert found == [1, 2]


def test_a_hit_says_how_many_better_ones_it_went_before() -> None:
    pool = [scored("a", 0.9), scored("b", 0.89), scored("c", 0.5)]
    similarity = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = chosen(pool, rules(), 3, diversity=0.5, likeness=lambda place: similarity[place])
    assert [(one.scored.product_id, one.overtook) for one in found] == [("a", 0), ("c", 1), ("b", 0)]
    assert [one.overtook for one in chosen(pool, rules(), 3)] == [None] * 3


def test_a_full_brand_and_a_group_already_shown_are_passed_over_and_counted() -> None:
    pool = [
        scored("a", 0.9, brand="norda", group_id="g"),
        scored("b", 0.8, brand="norda", group_id="g"),
        scored("c", 0.7, brand="norda"),
        scored("d", 0.6, brand="hoka"),
        scored("e", 0.5),
    ]
    found = chosen(pool, rules(brand_cap=1, group="collapse"), 10)
    assert [(one.scored.product_id, one.collapsed, one.capped) for one in found] == [
        ("a", 0, 0),
        ("d", 1, 1),
        ("e", 1, 1),
    ]
    assert ids(pool, rules(), 10) == ["a", "b", "c", "d", "e"]
    assert ids(pool, rules(brand_cap=2), 2) == ["a", "b"]


def test_what_was_deleted_meanwhile_is_not_shown() -> None:
    pool = [scored("a", 0.9, deleted=True), Scored("b", 0.8, {}, {}, {}), scored("c", 0.7, deleted=False)]
    assert ids(pool, rules()) == ["c"]
