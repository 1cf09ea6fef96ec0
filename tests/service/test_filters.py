"""service/filters.py: what a client asks for, as conditions of the index."""

from __future__ import annotations

import sys

import pytest

from schemas.api import Filter
from schemas.vectors import AnyOf, Between, Ids, Where
from service.filters import Price, conditions, holds, narrowed
from tests.service.shop import COLLECTION, PRODUCTS, Shop

DELETED = AnyOf("deleted", (True,))


def test_deleted_items_and_the_seeds_are_never_hits() -> None:
    where, notes = conditions(Filter(exclude=["x", "s"]), seeds=["s"], groups=[], price=None)
    assert where == Where(must_not=(DELETED, Ids(("s", "x"))))
    assert notes == []


def test_brands_and_attributes_match_in_any_case_and_empty_lists_ask_nothing() -> None:
    wanted = Filter(brand=["NORDA"], category=[], attributes={"Colour": ["Blue"], "size": []})
    where, _ = conditions(wanted, seeds=[], groups=[], price=None)
    assert where.must == (AnyOf("brand", ("norda",)), AnyOf("attributes", ("colour=blue",)))


def test_a_price_is_compared_within_its_currency_only() -> None:
    wanted = Filter.model_validate({"price": {"min": "5", "currency": "EUR"}})
    where, _ = conditions(wanted, seeds=[], groups=[], price=None)
    assert where.must == (AnyOf("currency", ("EUR",)), Between("price", 5.0, None))


def test_a_price_ratio_becomes_a_band_around_the_price_of_the_seed() -> None:
    wanted = Filter.model_validate({"price_ratio": {"min": 0.5, "max": 2}})
    where, notes = conditions(wanted, seeds=[], groups=[], price=Price(10.0, "EUR"))
    assert where.must == (AnyOf("currency", ("EUR",)), Between("price", 5.0, 20.0))
    assert notes == []


def test_the_largest_ratio_there_is_means_no_limit(shop: Shop) -> None:
    for wanted, found in (({"max": sys.float_info.max}, {"s1", "s7"}), ({"min": sys.float_info.max}, set())):
        ratio = Filter.model_validate({"price_ratio": wanted})
        where, _ = conditions(ratio, seeds=[], groups=[], price=Price(100.0, None))
        # `c1` has no price, and is in no band.
        ids = [
            each
            for each in ("s1", "s7", "c1")
            if shop.index.count(COLLECTION, Where((*where.must, Ids((each,)))))
        ]
        assert set(ids) == found


def test_a_price_ratio_without_a_price_is_noted_and_not_silently_dropped() -> None:
    wanted = Filter.model_validate({"price_ratio": {"max": 2}})
    where, notes = conditions(wanted, seeds=[], groups=[], price=None)
    assert where.must == ()
    assert notes == ["filter.price_ratio was ignored: no positive seed has a price"]


def test_collapsing_variants_leaves_out_those_of_the_seed() -> None:
    collapsed, _ = conditions(Filter(group="collapse"), seeds=["s"], groups=["g"], price=None)
    kept, _ = conditions(Filter(group="any"), seeds=["s"], groups=["g"], price=None)
    assert AnyOf("group_id", ("g",)) in collapsed.must_not
    assert AnyOf("group_id", ("g",)) not in kept.must_not


def test_a_later_round_leaves_out_what_was_judged() -> None:
    where = Where(must=(AnyOf("in_stock", (True,)),), must_not=(DELETED,))
    assert narrowed(where, ids=[], brands=[], groups=[]) == where
    later = narrowed(where, ids=["a"], brands=["norda"], groups=["g"])
    assert later.must == where.must
    assert later.must_not == (DELETED, Ids(("a",)), AnyOf("brand", ("norda",)), AnyOf("group_id", ("g",)))


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"in_stock": True},
        {"in_stock": False},
        {"category": ["Kitchen", "Sport > Shoes"]},
        {"brand": ["Salomon"]},
        {"attributes": {"colour": ["blue"]}},
        {"price": {"min": "100", "max": "130", "currency": "EUR"}},
        {"exclude": ["s1", "s2"], "category": ["Shoes"]},
    ],
)
def test_a_payload_meets_a_filter_exactly_where_the_index_says_so(
    shop: Shop, wanted: dict[str, object]
) -> None:
    where, _ = conditions(Filter.model_validate(wanted), seeds=["s4"], groups=["norda-001"], price=None)
    ids = [event.product_id for event in PRODUCTS]
    points = shop.index.fetch(COLLECTION, ids, vectors=False).values()
    met = {point.product_id for point in points if holds(where, point.payload)}
    found = {
        product_id
        for product_id in ids
        if shop.index.count(COLLECTION, Where((*where.must, Ids((product_id,))), where.must_not))
    }
    assert met == found
    assert 0 < len(met) < len(ids)
