"""service/idf.py: what was asked lately is not asked again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from adapters.index_port import VectorIndex
from schemas.vectors import LEXICAL
from service.idf import LIFETIME_SECONDS, RememberedIdf
from tests.service.shop import COLLECTION, PRODUCTS, Shop


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def asked(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices that the index was asked for."""
    seen: list[int] = []
    real = type(shop.index).idf

    def idf(self: VectorIndex, collection: str, dimension: str, indices: Sequence[int]) -> list[float]:
        seen.extend(indices)
        return real(self, collection, dimension, indices)

    monkeypatch.setattr(type(shop.index), "idf", idf)
    return seen


def test_figures_are_those_of_the_index_in_the_order_asked(shop: Shop, asked: list[int]) -> None:
    indices = list(shop.recipe.lexical(PRODUCTS[0]).indices)
    remembered = RememberedIdf(shop.index, clock=Clock())
    first = remembered.of(COLLECTION, LEXICAL, indices)
    assert first == shop.index.idf(COLLECTION, LEXICAL, indices)
    assert remembered.of(COLLECTION, LEXICAL, indices[::-1]) == first[::-1]


def test_only_what_is_unknown_or_old_is_asked_for(shop: Shop, asked: list[int]) -> None:
    clock = Clock()
    remembered = RememberedIdf(shop.index, clock=clock)
    one, two, three = shop.recipe.lexical(PRODUCTS[0]).indices[:3]
    remembered.of(COLLECTION, LEXICAL, [one, two])
    remembered.of(COLLECTION, LEXICAL, [two, three])
    assert asked == [one, two, three]
    clock.now = LIFETIME_SECONDS + 1
    remembered.of(COLLECTION, LEXICAL, [one])
    assert asked == [one, two, three, one]
