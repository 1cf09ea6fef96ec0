"""An item's state against its point: what is written, what is encoded first, what is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumers.assembly import CONTEXT, Assembly, Encoded, assemble, fingerprints_of
from model.text import ProductText
from schemas.events import ProductUpserted
from schemas.items import ItemState, context_fingerprint
from schemas.vectors import CONTENT, LEXICAL, Point, Vector

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
RECIPE = ProductText()
NOTHING = Assembly(None, None, ())


def state(revision: int = 1, **fields: Any) -> ItemState:
    product = ProductUpserted(
        product_id="p1",
        revision=revision,
        occurred_at=NOW,
        **{"title": "Red lamp", "price": "10.00", "currency": "EUR", **fields},
    )
    return ItemState("p1", revision, NOW, product)


def deleted(revision: int = 2) -> ItemState:
    return ItemState("p1", revision, NOW, None)


def fingerprint(of: ItemState) -> str:
    assert of.product is not None
    return RECIPE.fingerprint(of.product)


def vector_of(of: ItemState) -> Encoded:
    return Encoded(fingerprint=fingerprint(of), vector=[0.6, 0.8])


def compare(
    of: ItemState | None, point: Point | None, encoded: Encoded | None = None, now: datetime = LATER
) -> Assembly:
    return assemble("p1", of, point, recipe=RECIPE, encoded=encoded, now=now)


def point_of(of: ItemState) -> Point:
    """The point as a whole write of that state leaves it."""
    point = compare(of, None, vector_of(of), NOW).point
    assert point is not None
    return point


def tombstone() -> Point:
    point = compare(deleted(), point_of(state())).point
    assert point is not None
    return point


def vectors_of(assembly: Assembly) -> Mapping[str, Vector]:
    assert assembly.point is not None
    return assembly.point.vectors


def test_a_new_item_waits_for_its_first_vector_and_shows_nothing_before() -> None:
    found = compare(state(), None)
    assert found.point is None
    assert found.wanted is not None
    assert found.wanted.fingerprint == fingerprint(state())
    assert found.moved == ()


def test_a_new_item_with_its_vector_is_a_whole_point() -> None:
    found = compare(state(), None, vector_of(state()))
    assert found.wanted is None
    assert found.moved == (CONTENT, LEXICAL, CONTEXT)
    assert found.point is not None
    product = state().product
    assert product is not None
    assert found.point.vectors == {CONTENT: [0.6, 0.8], LEXICAL: RECIPE.lexical(product)}
    assert found.point.payload["fingerprints"] == {
        CONTENT: fingerprint(state()),
        LEXICAL: fingerprint(state()),
        CONTEXT: context_fingerprint(product),
    }
    assert set(found.point.payload["updated_at"].values()) == {LATER.isoformat()}


def test_a_vector_of_another_text_is_not_used() -> None:
    found = compare(state(), None, vector_of(state(title="Blue lamp")))
    assert found.point is None
    assert found.wanted is not None


def test_a_point_that_equals_its_state_is_left_alone() -> None:
    assert compare(state(), point_of(state())) == NOTHING
    assert compare(state(revision=7), point_of(state())) == NOTHING  # a new revision of the same words


def test_a_new_price_is_written_around_the_vectors_that_are_there() -> None:
    before = point_of(state())
    found = compare(state(2, price="5.00"), before)
    assert found.wanted is None
    assert found.moved == (CONTEXT,)
    assert found.point is not None
    assert found.point.vectors == before.vectors
    assert found.point.payload["price"] == 5.0
    assert found.point.payload["updated_at"] == {
        CONTENT: NOW.isoformat(),
        LEXICAL: NOW.isoformat(),
        CONTEXT: LATER.isoformat(),
    }


def test_a_new_price_is_visible_while_the_new_text_waits_under_the_old_fingerprint() -> None:
    before, after = point_of(state()), state(2, price="5.00", title="Blue lamp")
    found = compare(after, before)
    assert found.moved == (CONTEXT,)
    assert found.point is not None
    assert found.point.payload["price"] == 5.0
    assert found.point.vectors == before.vectors
    assert fingerprints_of(found.point)[CONTENT] == fingerprint(state())  # so that the hint stays open
    assert fingerprints_of(found.point)[LEXICAL] == fingerprint(state())
    assert found.wanted is not None
    assert found.wanted.fingerprint == fingerprint(after)
    # Once more before the encoder is done: nothing left to write, and still wanted.
    again = compare(after, found.point)
    assert (again.point, again.moved) == (None, ())
    assert again.wanted == found.wanted
    # The vector comes: only the text moves.
    done = compare(after, found.point, vector_of(after))
    assert done.wanted is None
    assert done.moved == (CONTENT, LEXICAL)
    assert done.point is not None
    assert compare(after, done.point) == NOTHING


def test_a_new_title_alone_shows_once_its_vector_has_come() -> None:
    """The title is payload too, but no part of the context: it never shows beside another text's vector."""
    found = compare(state(2, title="Blue lamp"), point_of(state()))
    assert found.point is None
    assert found.wanted is not None


def test_a_deleted_item_becomes_a_tombstone_without_vectors_once() -> None:
    found = compare(deleted(9), point_of(state()))
    assert found.moved == ("deleted",)
    assert found.wanted is None
    assert vectors_of(found) == {}
    assert found.point is not None
    assert found.point.payload["deleted"] is True
    assert found.point.payload["revision"] == 9
    assert found.point.payload["deleted_at"] == int(LATER.timestamp())
    assert compare(deleted(9), found.point) == NOTHING


def test_an_unknown_item_with_a_point_becomes_a_tombstone_of_its_last_revision() -> None:
    found = compare(None, point_of(state(5)))
    assert found.point is not None
    assert found.point.payload["deleted"] is True
    assert found.point.payload["revision"] == 5


@pytest.mark.parametrize("gone", [None, deleted()])
def test_a_hint_for_an_item_that_is_gone_writes_nothing_where_no_point_is(gone: ItemState | None) -> None:
    assert compare(gone, None) == NOTHING
    assert compare(gone, tombstone()) == NOTHING


def test_an_item_that_comes_back_is_encoded_anew_and_keeps_nothing_of_its_tombstone() -> None:
    back = state(3)
    waiting = compare(back, tombstone())
    assert waiting.point is None  # a tombstone has no vector to keep
    assert waiting.wanted is not None
    found = compare(back, tombstone(), vector_of(back))
    assert found.point is not None
    assert found.point.payload["deleted"] is False
    assert "deleted_at" not in found.point.payload
    assert set(found.point.payload["updated_at"].values()) == {LATER.isoformat()}


def test_a_deleted_item_is_not_brought_back_by_a_vector_that_comes_late() -> None:
    found = compare(deleted(), point_of(state()), vector_of(state()))
    assert found.point is not None
    assert found.point.payload["deleted"] is True
    assert compare(deleted(), None, vector_of(state())) == NOTHING


def test_a_point_of_an_older_payload_layout_is_written_out_again() -> None:
    before = point_of(state())
    marks = {**before.payload["fingerprints"], CONTEXT: "an older PAYLOAD_VERSION"}
    found = compare(state(), replace(before, payload={**before.payload, "fingerprints": marks}))
    assert found.moved == (CONTEXT,)
    assert found.wanted is None
