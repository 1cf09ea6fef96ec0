"""model/drift.py: what has moved is told from what sampling alone would make."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import numpy as np
import pytest
from numpy.typing import NDArray

from model.drift import (
    catalogue_cells,
    change_of_mean,
    embedding_stability,
    population_stability,
    weighted_sample,
)
from schemas.events import Product


def test_the_index_is_that_of_the_formula() -> None:
    # Large counts, so that the half observation in each cell is nothing: (q - p) ln(q / p), added up.
    before, after = {"a": 500_000, "b": 500_000}, {"a": 800_000, "b": 200_000}
    expected = 0.3 * np.log(0.8 / 0.5) + (0.2 - 0.5) * np.log(0.2 / 0.5)
    assert population_stability(before, after) == pytest.approx(expected, abs=1e-5)
    assert population_stability(after, before) == pytest.approx(expected, abs=1e-5)
    assert population_stability(before, before) == 0
    assert population_stability({}, after) == 0


def test_two_samples_of_one_shop_are_stable_and_a_new_department_is_not() -> None:
    generator = np.random.default_rng(1)
    one, other = (Counter(map(str, generator.integers(0, 40, 1_000))) for _ in range(2))
    assert population_stability(one, other) < 0.1
    assert population_stability(one, other + Counter({"new department": 400})) > 0.25


def vectors(seed: int, shift: float = 0.0) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).normal(size=(500, 24)).astype(np.float32)
    found[:, :12] *= 3
    found[:, 0] += shift
    return found


def test_vectors_of_one_distribution_are_stable_and_moved_ones_are_not() -> None:
    assert embedding_stability(vectors(1), vectors(2)) < 0.2
    assert embedding_stability(vectors(1), vectors(2, shift=6.0)) > 0.25
    assert embedding_stability(vectors(1), vectors(2)[:3]) == 0


def test_a_catalogue_is_counted_by_category_and_price_band() -> None:
    products = [
        Product(title="a", category=["toys", "cars"], price=Decimal(5), currency="EUR"),
        Product(title="b", category=["toys"], price=Decimal(7), currency="EUR"),
        Product(title="c"),
    ]
    assert catalogue_cells(products) == {"category": {"toys": 2, "": 1}, "price": {"EUR 2": 2}}


def test_a_mean_that_fell_is_told_from_one_that_did_not() -> None:
    generator = np.random.default_rng(3)
    high, low = (generator.random(400) < share for share in (0.4, 0.2))
    fell = change_of_mean(high.astype(float), low.astype(float), seed=1)
    assert fell.low < fell.value < fell.high < 0
    same = change_of_mean(high.astype(float), np.roll(high, 7).astype(float), seed=1)
    assert same.low < 0 < same.high
    with pytest.raises(ValueError, match="nothing"):
        change_of_mean(np.zeros(0), np.zeros(3), seed=1)


def test_a_sample_keeps_what_is_looked_at_more() -> None:
    items = ["often"] * 900 + ["seldom"] * 100
    found = weighted_sample(items, most=200, seed=1)
    assert len(found) == 200
    assert 150 < found.count("often") < 200
    assert weighted_sample(["a", "b"], most=5, seed=1) == ["a", "b"]
