"""service/seeds.py: several seeds as one vector per dimension."""

from __future__ import annotations

import math

import pytest

from model.text import ProductText
from schemas.api import Seed
from schemas.events import Product
from schemas.vectors import CONTENT, LEXICAL, SparseVector
from service.filters import Price
from service.releases import LoadedRelease
from service.seeds import (
    about_payload,
    about_product,
    combined_dense,
    combined_sparse,
    inline_parts,
    item_part,
)
from tests.service.shop import PRODUCTS, Shop, StaticRelease, manifest
from tests.support.fake_encoder import FakeEncoder


def test_dense_seeds_add_up_with_their_weights_to_a_unit_vector() -> None:
    assert combined_dense([(2.0, [1.0, 0.0]), (-1.0, [0.0, 1.0])]) == pytest.approx(
        [2 / math.sqrt(5), -1 / math.sqrt(5)]
    )


def test_seeds_that_cancel_each_other_out_leave_nothing() -> None:
    sparse = SparseVector((1, 5), (0.6, 0.8))
    assert combined_dense([(1.0, [1.0, 0.0]), (-1.0, [1.0, 0.0])]) is None
    assert combined_sparse([(1.0, sparse), (-1.0, sparse)]) is None


def test_sparse_seeds_add_up_to_a_unit_vector_of_ascending_indices() -> None:
    found = combined_sparse(
        [(1.0, SparseVector((5, 9), (0.6, 0.8))), (1.0, SparseVector((1, 9), (1.0, -0.8)))]
    )
    assert found is not None
    vector, norm = found
    assert vector.indices == (1, 5)
    assert norm == pytest.approx(math.hypot(1.0, 0.6))
    assert math.hypot(*vector.values) == pytest.approx(1.0)


def test_inline_products_are_encoded_as_an_event_would_be_and_the_text_as_a_query() -> None:
    encoder, recipe = FakeEncoder(), ProductText()
    release = StaticRelease(encoder, recipe, manifest("r", 32))
    shoe = Product(title="trail shoe", brand="Norda")
    parts = inline_parts([Seed(item=shoe, weight=2)], "boots", load=lambda: release, dense=True)
    assert encoder.texts == [recipe.content(shoe), "boots"]
    assert encoder.queries == [False, True]
    assert [part.weight for part in parts] == [2.0, 1.0]
    assert parts[0].vectors[LEXICAL] == recipe.lexical(shoe)
    assert parts[1].vectors[LEXICAL] == recipe.lexical_query("boots")


def test_words_alone_need_no_encoder() -> None:
    encoder = FakeEncoder()
    release = StaticRelease(encoder, ProductText(), manifest("r", 32))
    parts = inline_parts([Seed(item=Product(title="shoe"))], "boots", load=lambda: release, dense=False)
    assert encoder.calls == 0
    assert all(CONTENT not in part.vectors for part in parts)


def test_items_alone_load_no_release() -> None:
    def load() -> LoadedRelease:
        raise AssertionError("a release was asked for")

    assert inline_parts([Seed(item_id="s1")], None, load=load, dense=True) == []


def test_what_is_known_of_a_seed_is_the_same_inline_and_from_the_index(shop: Shop) -> None:
    event = next(product for product in PRODUCTS if product.product_id == "s6")
    inline, stored = about_product(event), about_payload(shop.point(event).payload)
    assert (inline.brand, inline.category, inline.price) == (stored.brand, stored.category, stored.price)
    assert inline.price == Price(210.0, "EUR")
    assert {"Sense", "SALOMON", "Sport"} <= set(stored.words.split())
    part = item_part(Seed(item_id="s6", weight=-1), shop.point(event))
    assert (part.weight, part.product_id) == (-1.0, "s6")
