"""The oracle of the failure proofs sees each kind of damage, or its zeros would mean nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from consumers.assembly import Encoded, assemble
from model.text import ProductText
from schemas.events import ProductDeleted, ProductEvent, ProductUpserted
from schemas.items import ItemState
from schemas.vectors import CONTENT, Point
from tests.support.chaos import Catalogue, difference
from tests.support.fake_encoder import FakeEncoder

NOW = datetime(2026, 11, 25, tzinfo=UTC)
RECIPE = ProductText()


def points_of(events: Iterable[ProductEvent]) -> dict[str, Point]:
    """What a consumer that has seen these events in this order, and nothing else, would have written."""
    points: dict[str, Point] = {}
    for event in events:
        product = event if isinstance(event, ProductUpserted) else None
        encoded = {}
        if product is not None:
            (vector,) = FakeEncoder().encode([RECIPE.content(product)])
            encoded = {RECIPE.fingerprint(product): Encoded(RECIPE.fingerprint(product), vector)}
        made = assemble(
            event.product_id,
            ItemState(event.product_id, event.order, NOW, product),
            points.get(event.product_id),
            recipe=RECIPE,
            encoded=encoded,
            now=NOW,
        )
        if made.point is not None:
            points[event.product_id] = made.point
    return points


def test_a_point_made_from_the_newest_event_is_no_difference() -> None:
    shop = Catalogue(1, 20)
    list(shop.events(200))
    found = difference(shop.newest, points_of(shop.newest.values()))
    assert found.nothing
    assert found.items == 20


def test_a_missing_point_and_a_hidden_one_are_lost() -> None:
    shop = Catalogue(1, 2)
    points = points_of(shop.first())
    (missing, hidden) = shop.newest
    gone = points_of([*shop.newest.values(), ProductDeleted(product_id=hidden, revision=9, occurred_at=NOW)])
    assert difference(shop.newest, {hidden: gone[hidden]}).lost == [missing, hidden]
    assert difference(shop.newest, points).nothing


def test_an_older_price_or_the_vector_of_another_text_is_stale() -> None:
    shop = Catalogue(1, 2)
    before = points_of(shop.first())
    list(shop.again(text=False))
    assert difference(shop.newest, before).stale == list(shop.newest)
    points = points_of(shop.newest.values())
    (first, second) = shop.newest
    swapped = {**points[first].vectors, CONTENT: points[second].vectors[CONTENT]}
    points[first] = replace(points[first], vectors=swapped)
    assert difference(shop.newest, points).stale == [first]


def test_a_deleted_product_that_is_live_is_resurrected() -> None:
    shop = Catalogue(3, 40)
    events = list(shop.events(400))
    deleted = [key for key, event in shop.newest.items() if isinstance(event, ProductDeleted)]
    assert deleted, "the seed deletes nothing"
    late = points_of(one for one in events if isinstance(one, ProductUpserted))
    assert difference(shop.newest, late).resurrected == deleted


def test_some_events_of_the_shop_are_older_than_what_came_before_them() -> None:
    shop, highest, late = Catalogue(5, 50), dict[str, int](), 0
    for event in shop.events(1_000):
        late += event.order < highest.get(event.product_id, 0)
        highest[event.product_id] = max(event.order, highest.get(event.product_id, 0))
    assert late > 20
    assert {key: event.order for key, event in shop.newest.items()} == highest
