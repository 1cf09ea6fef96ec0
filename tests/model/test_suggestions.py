"""model/suggestions.py and model/pair_features.py: the least sure pairs, spread, and none that is known."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.pair_features import FEATURES, Likeness
from model.suggestions import Suggestions, layout, spread, suggested, unsure
from model.text import ProductText
from schemas.events import Product

COLUMN = {name: place for place, name in enumerate(FEATURES)}


def unit(degrees: NDArray[np.float64]) -> NDArray[np.float32]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


# --- features ----------------------------------------------------------------------------------------


def test_what_two_products_share_is_told_in_numbers_and_nothing_known_is_zero() -> None:
    products = [
        Product.model_validate(fields)
        for fields in (
            {
                "title": "Sony turntable PSLX350H",
                "brand": "Sony",
                "category": ["audio", "hifi"],
                "price": "100",
                "currency": "EUR",
            },
            {
                "title": "turntable, pslx350h (Sony)",
                "brand": "SONY",
                "category": ["audio"],
                "price": "50",
                "currency": "EUR",
            },
            {"title": "Bose speaker AM53BK", "brand": "Bose", "price": "100", "currency": "USD"},
        )
    ]
    likeness = Likeness(
        products, unit(np.array([0.0, 60.0, 90.0])), recipe=ProductText(), together={(0, 2): np.e - 1}
    )
    same, other = likeness(np.array([[1, 0], [2, 0]]))
    assert same[COLUMN["content"]] == pytest.approx(0.5, abs=1e-6)
    assert same[COLUMN["words"]] == same[COLUMN["codes"]] == 1
    assert same[COLUMN["category"]] == 0.5
    assert same[COLUMN["brand"]] == 1
    assert same[COLUMN["price"]] == pytest.approx(np.log(2))
    assert (same[COLUMN["priced"]], same[COLUMN["behaviour"]]) == (1, 0)
    assert same[COLUMN["lexical"]] > 0.5 > other[COLUMN["lexical"]]
    # Currencies are not compared; a category that one has not says nothing.
    assert (other[COLUMN["price"]], other[COLUMN["priced"]], other[COLUMN["category"]]) == (0, 0, 0)
    assert other[COLUMN["brand"]] == -1
    assert other[COLUMN["behaviour"]] == pytest.approx(1)


# --- choosing ----------------------------------------------------------------------------------------


def test_the_pairs_asked_first_are_those_nearest_to_one_half() -> None:
    order = unsure(np.array([0.99, 0.45, 0.02, 0.7, 0.5]), np.random.default_rng(0))
    assert order.tolist() == [4, 1, 3, 2, 0] or order.tolist() == [4, 1, 3, 0, 2]
    assert order[:3].tolist() == [4, 1, 3]


def test_the_first_batch_goes_evenly_from_alike_to_unlike_and_not_by_how_many_pairs_there_are() -> None:
    features = np.zeros((100, len(FEATURES)))
    # Ninety pairs are nothing alike.
    likeness = np.concatenate([np.linspace(0.1, 1.0, 10), np.linspace(0, 0.09, 90)])
    features[:, COLUMN["content"]] = features[:, COLUMN["lexical"]] = likeness
    order = layout(features, 10)
    assert sorted(order.tolist()) == list(range(100))
    assert np.sort(likeness[order[:10]]) == pytest.approx(np.linspace(0, 1, 10), abs=0.1)


def test_no_product_is_asked_about_too_often_and_kinds_are_in_proportion() -> None:
    kinds = ["a"] * 6 + ["b"] * 3 + ["c"]
    pairs = np.array(list(combinations(range(10), 2)))
    order = np.arange(len(pairs))
    taken = spread(pairs, order, kinds, count=4, most_per_item=1)
    often = Counter(pairs[taken].ravel().tolist())
    assert max(often.values()) == 1
    assert Counter(kinds[pairs[row, 0]] for row in taken) == {"a": 3, "b": 1}
    # Without the cap the first product is in every pair, and with a kind that has too few others step in.
    free = spread(pairs, order, ["a"] * 10, count=4, most_per_item=9)
    assert Counter(pairs[free].ravel().tolist())[0] == 4
    few = spread(
        np.array([[0, 1], [2, 3]]), np.array([0, 1]), ["a", "a", "b", "b", "b", "b"], count=2, most_per_item=1
    )
    assert few == [0, 1]


# --- the whole ---------------------------------------------------------------------------------------

WORDS = ("lamp", "shoe", "drill", "tent", "sofa", "kettle")
PRODUCTS = [
    Product(title=f"{WORDS[row // 10]} {row % 10} of make {row % 5}", category=[WORDS[row // 10]])
    for row in range(60)
]
VECTORS = unit(np.arange(60, dtype=np.float64) * 3)


def proposed(
    *,
    labelled: dict[tuple[int, int], float] | None = None,
    together: dict[tuple[int, int], float] | None = None,
    left_out: frozenset[tuple[int, int]] = frozenset(),
    groups: NDArray[np.int64] | None = None,
    most_per_item: int = 1,
) -> Suggestions:
    return suggested(
        Likeness(PRODUCTS, VECTORS, recipe=ProductText(), together=together),
        VECTORS,
        groups=np.arange(60) if groups is None else groups,
        kinds=[product.category[0] for product in PRODUCTS],
        labelled=labelled or {},
        left_out=left_out,
        together=together or {},
        count=20,
        most_per_item=most_per_item,
        seed=1,
    )


def labels() -> dict[tuple[int, int], float]:
    """Together where both are within three of each other; sixty pairs that go over the whole range."""
    draw = np.random.default_rng(3).integers(0, 60, (120, 2))
    return {(int(a), int(b)): float(b - a <= 3) for a, b in np.sort(draw, axis=1) if a < b and b - a < 12}


def test_with_labels_it_asks_where_the_classifier_is_unsure_and_about_every_kind() -> None:
    known = labels()
    found = proposed(labelled=known)
    assert found.basis == "labels"
    assert len(found.pairs) == 20
    probabilities = np.array([pair.probability for pair in found.pairs], dtype=float)
    gaps = np.array([pair.b - pair.a for pair in found.pairs])
    # The border lies at three: pairs a good way to either side of it are sure.
    assert np.abs(np.median(gaps) - 3.5) < 2.5
    assert (np.abs(probabilities - 0.5) < 0.45).all()
    rows = [row for pair in found.pairs for row in pair[:2]]
    assert max(Counter(rows).values()) == 1
    assert len({PRODUCTS[pair.a].category[0] for pair in found.pairs}) == len(WORDS)
    assert not {(pair.a, pair.b) for pair in found.pairs} & known.keys()


def test_labels_of_one_kind_teach_nothing_and_pairs_are_laid_out() -> None:
    for known in ({}, {(0, 1): 1.0, (2, 3): 1.0}):
        found = proposed(labelled=known)
        assert found.basis == "nothing"
        assert all(pair.probability is None for pair in found.pairs)
        assert len(found.pairs) == 20


def test_without_labels_what_shoppers_had_together_teaches_and_is_not_what_it_is_told_by() -> None:
    together = {(row, row + 1): 1.0 for row in range(0, 58, 2)}
    found = proposed(together=together)
    assert found.basis == "behaviour"
    # Would behaviour tell it, every pair without any were surely apart: none would be near one half.
    gaps = [abs(pair.probability - 0.5) for pair in found.pairs if pair.probability is not None]
    assert len(gaps) == 20
    assert np.median(gaps) < 0.4


def test_duplicates_are_one_product_and_known_pairs_are_never_asked_again() -> None:
    groups = np.arange(60)
    groups[1] = groups[0]
    first = proposed(groups=groups, most_per_item=3)
    assert 1 not in {row for pair in first.pairs for row in pair[:2]}
    known = frozenset((pair.a, pair.b) for pair in first.pairs)
    second = proposed(groups=groups, most_per_item=3, left_out=known)
    assert not {(pair.a, pair.b) for pair in second.pairs} & known
    assert len(second.pairs) == 20
