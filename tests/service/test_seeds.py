"""service/seeds.py: several seeds as one vector per dimension."""

from __future__ import annotations

import math
from datetime import timedelta

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
    decayed,
    inline_parts,
    item_part,
)
from tests.service.shop import NOW, PRODUCTS, SHOPPERS, Shop, StaticRelease, manifest
from tests.support.fake_encoder import FakeEncoder


def test_dense_seeds_add_up_with_their_weights_to_a_unit_vector() -> None:
    found = combined_dense([(2.0, [1.0, 0.0]), (-1.0, [0.0, 1.0])])
    assert found is not None
    assert found[0] == pytest.approx([2 / math.sqrt(5), -1 / math.sqrt(5)])
    assert found[1] == pytest.approx(math.sqrt(5))


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
    assert (part.weight, part.product_id, part.shoppers) == (-1.0, "s6", 0)
    touched = next(product for product in PRODUCTS if product.product_id == "s1")
    assert item_part(Seed(item_id="s1"), shop.point(touched)).shoppers == len(SHOPPERS["s1"])


def test_a_seed_loses_half_of_its_weight_for_every_half_life_before_the_newest() -> None:
    seeds = [
        Seed(item_id="new", weight=2, occurred_at=NOW),
        Seed(item_id="old", weight=2, occurred_at=NOW - timedelta(hours=2)),
        Seed(item_id="disliked", weight=-1, occurred_at=NOW - timedelta(hours=1)),
        Seed(item_id="timeless", weight=3),
    ]
    assert [seed.weight for seed in decayed(seeds, 3_600)] == pytest.approx([2, 0.5, -0.5, 3])
    # Only the distance to the newest counts: the same session a year later weighs the same.
    later = [
        seed.model_copy(update={"occurred_at": seed.occurred_at + timedelta(days=365)})
        for seed in seeds
        if seed.occurred_at is not None
    ]
    assert [seed.weight for seed in decayed(later, 3_600)] == pytest.approx([2, 0.5, -0.5])


def test_a_seed_older_than_any_number_can_say_weighs_nothing() -> None:
    seeds = [
        Seed(item_id="new", occurred_at=NOW),
        Seed(item_id="old", occurred_at=NOW - timedelta(days=20_000)),
    ]
    assert [seed.weight for seed in decayed(seeds, 1)] == [1.0, 0.0]
