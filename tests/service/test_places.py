"""service/places.py: a map keeps what is near near, and the same items always lie in the same places."""

from __future__ import annotations

from itertools import combinations
from math import dist

import numpy as np
import pytest

from service.places import placed


def cloud(seed: int = 3, *, items: int = 30, dimension: int = 16) -> dict[str, list[float]]:
    draw = np.random.default_rng(seed)
    return {f"i{number:02}": draw.normal(size=dimension).tolist() for number in range(items)}


def test_what_lies_on_a_plane_is_drawn_true() -> None:
    draw = np.random.default_rng(5)
    flat = draw.normal(size=(20, 2)) @ np.linalg.qr(draw.normal(size=(12, 2)))[0].T
    vectors = {f"i{number}": row.tolist() for number, row in enumerate(flat)}
    places, shown = placed(vectors)
    assert shown == pytest.approx(1.0)
    pairs = list(combinations(vectors, 2))
    apart = np.array([dist(vectors[one], vectors[two]) for one, two in pairs])
    drawn = np.array([dist(places[one], places[two]) for one, two in pairs])
    assert np.corrcoef(apart, drawn)[0, 1] == pytest.approx(1.0, abs=1e-6)


def test_everything_lies_within_the_frame_and_touches_it() -> None:
    places, shown = placed(cloud())
    values = [abs(value) for place in places.values() for value in place]
    assert max(values) == pytest.approx(1.0)
    assert 0 < shown < 1


def test_the_order_of_the_items_moves_nothing() -> None:
    vectors = cloud()
    assert placed(vectors) == placed(dict(reversed(vectors.items())))


@pytest.mark.parametrize("items", [0, 1, 2])
def test_few_items_are_no_error(items: int) -> None:
    places, shown = placed(cloud(items=items))
    assert len(places) == items
    assert shown == pytest.approx(1.0)


def test_equal_items_lie_in_one_place() -> None:
    places, shown = placed({name: [1.0, 2.0, 3.0] for name in "abc"})
    assert set(places.values()) == {(0.0, 0.0)}
    assert shown == 1.0
