"""An item's state against its point: what is written, what is encoded first, what is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumers.assembly import (
    Assembly,
    Encoded,
    Shoppers,
    assemble,
    behaviour_moved,
    fingerprints_of,
)
from consumers.review_digest import reviews_text
from model.text import ProductText
from schemas.events import ProductUpserted
from schemas.items import (
    CONTEXT,
    BehaviourState,
    ItemState,
    Rating,
    ReviewState,
    context_fingerprint,
    reviews_fingerprint,
)
from schemas.vectors import BEHAVIOUR, CONTENT, LEXICAL, REVIEWS, Point, SparseVector, Vector

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
RECIPE = ProductText()
NOTHING = Assembly(None, (), ())


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
    vectors = {encoded.fingerprint: encoded} if encoded is not None else {}
    return assemble("p1", of, point, recipe=RECIPE, encoded=vectors, now=now)


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
    assert [one.fingerprint for one in found.wanted] == [fingerprint(state())]
    assert found.moved == ()


def test_a_new_item_with_its_vector_is_a_whole_point() -> None:
    found = compare(state(), None, vector_of(state()))
    assert not found.wanted
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
    assert found.wanted


def test_a_point_that_equals_its_state_is_left_alone() -> None:
    assert compare(state(), point_of(state())) == NOTHING
    assert compare(state(revision=7), point_of(state())) == NOTHING  # a new revision of the same words


def test_a_new_price_is_written_around_the_vectors_that_are_there() -> None:
    before = point_of(state())
    found = compare(state(2, price="5.00"), before)
    assert not found.wanted
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
    assert [one.fingerprint for one in found.wanted] == [fingerprint(after)]
    # Once more before the encoder is done: nothing left to write, and still wanted.
    again = compare(after, found.point)
    assert (again.point, again.moved) == (None, ())
    assert again.wanted == found.wanted
    # The vector comes: only the text moves.
    done = compare(after, found.point, vector_of(after))
    assert not done.wanted
    assert done.moved == (CONTENT, LEXICAL)
    assert done.point is not None
    assert compare(after, done.point) == NOTHING


def test_a_new_title_alone_shows_once_its_vector_has_come() -> None:
    """The title is payload too, but no part of the context: it never shows beside another text's vector."""
    found = compare(state(2, title="Blue lamp"), point_of(state()))
    assert found.point is None
    assert found.wanted


def test_a_deleted_item_becomes_a_tombstone_without_vectors_once() -> None:
    found = compare(deleted(9), point_of(state()))
    assert found.moved == ("deleted",)
    assert not found.wanted
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
    assert waiting.wanted
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
    assert not found.wanted


# --- reviews and behaviour --------------------------------------------------------------------------


def whole(
    of: ItemState, point: Point | None, *, shoppers: Shoppers | None = None, now: datetime = LATER
) -> Assembly:
    """With every text of the state encoded."""
    encoded = {fingerprint(of): vector_of(of)}
    if of.reviews is not None:
        mark = reviews_fingerprint(reviews_text(of.reviews.digest, of.opinions))
        encoded[mark] = Encoded(mark, [0.0, 1.0])
    return assemble("p1", of, point, recipe=RECIPE, encoded=encoded, now=now, shoppers=shoppers)


REVIEWED = replace(state(), reviews=ReviewState("Bright. Lasts for years.", Rating(4.5, 2)))


def test_a_digest_is_encoded_beside_the_product_and_has_a_vector_of_its_own() -> None:
    waiting = compare(REVIEWED, point_of(state()))
    # Whoever does not listen to reviews has the marks that stood before anybody could.
    assert [(one.fingerprint, one.text) for one in waiting.wanted] == [
        ("0a0f5eddaa4e8a4b", "Bright. Lasts for years.")
    ]
    assert waiting.moved == (CONTEXT,)  # the rating shows at once
    assert waiting.point is not None
    assert (waiting.point.payload["rating_mean"], waiting.point.payload["rating_count"]) == (4.5, 2)
    done = whole(REVIEWED, waiting.point)
    assert done.moved == (REVIEWS,)
    assert vectors_of(done)[REVIEWS] == [0.0, 1.0]
    assert done.point is not None
    assert whole(REVIEWED, done.point) == NOTHING


def test_a_new_digest_keeps_the_old_vector_until_its_own_has_come() -> None:
    before = whole(REVIEWED, None).point
    after = replace(REVIEWED, reviews=ReviewState("Broke at once.", Rating(4.5, 2)))
    found = compare(after, before)
    assert (found.point, len(found.wanted)) == (None, 1)
    cheaper = compare(replace(after, product=state(price="1.00").product), before)
    assert vectors_of(cheaper)[REVIEWS] == [0.0, 1.0]


def test_the_last_review_that_goes_takes_the_vector_with_it() -> None:
    before = whole(REVIEWED, None).point
    for none in (None, ReviewState("", None)):
        found = compare(replace(REVIEWED, reviews=none), before)
        assert found.moved == (REVIEWS, CONTEXT)
        assert REVIEWS not in vectors_of(found)
        assert found.point is not None
        assert REVIEWS not in found.point.payload["fingerprints"]
        assert REVIEWS not in found.point.payload["updated_at"]


def test_what_reviewers_come_to_is_encoded_before_the_digest_and_only_its_shift_encodes_again() -> None:
    heard = replace(REVIEWED, opinions=("fit: bad", "noise: good"))
    before = whole(REVIEWED, None).point
    found = compare(heard, before)
    assert [one.text for one in found.wanted] == ["Good noise. Bad fit. Bright. Lasts for years."]
    assert found.moved == (CONTEXT,), "filters have it at once; the vector keeps its mark until it comes"
    done = whole(heard, found.point)
    assert done.moved == (REVIEWS,)
    assert done.point is not None
    assert whole(heard, done.point) == NOTHING
    # A new price, or an aspect that nobody agrees on, runs no encoder.
    for other in (
        replace(heard, product=state(price="1.00").product),
        replace(heard, opinions=("fit: bad", "looks: mixed", "noise: good")),
    ):
        assert (compare(other, done.point).moved, compare(other, done.point).wanted) == ((CONTEXT,), ())
    assert len(compare(replace(heard, opinions=("fit: good", "noise: good")), done.point).wanted) == 1
    # Nobody listens any more: the digest alone, under the mark that it had.
    assert fingerprints_of(whole(REVIEWED, done.point).point) == fingerprints_of(before)


def test_opinions_without_a_digest_make_no_vector() -> None:
    speechless = replace(state(), reviews=ReviewState("", Rating(4.5, 2)), opinions=("noise: good",))
    found = compare(speechless, point_of(state()))
    assert (found.moved, found.wanted) == ((CONTEXT,), ())
    assert REVIEWS not in vectors_of(found)


def test_a_sketch_that_moved_asks_for_its_vector_and_is_named_by_it() -> None:
    known = replace(state(), behaviour=BehaviourState("s2", shoppers=7))
    before = point_of(state())
    assert behaviour_moved(known, before)
    unread = compare(known, before)
    assert (unread.point, unread.stale, unread.differs) == (None, (BEHAVIOUR,), True)
    vector = SparseVector((3, 9), (0.5, 0.5))
    found = compare_shoppers(known, before, Shoppers("s2/w1", vector))
    assert found.moved == (BEHAVIOUR,)
    assert vectors_of(found)[BEHAVIOUR] == vector
    assert found.point is not None
    assert found.point.payload["shoppers"] == 7
    assert not behaviour_moved(known, found.point)
    assert compare(known, found.point) == NOTHING
    # A price later neither asks for the sketch again nor loses what it made.
    cheaper = compare(replace(known, product=state(price="1.00").product), found.point)
    assert vectors_of(cheaper)[BEHAVIOUR] == vector
    assert cheaper.point is not None
    assert cheaper.point.payload["shoppers"] == 7


def test_a_sketch_without_any_entry_is_told_from_one_that_was_never_written() -> None:
    known = replace(state(), behaviour=BehaviourState("s1", shoppers=0))
    found = compare_shoppers(known, point_of(state()), Shoppers("s1/w1", SparseVector((), ())))
    assert found.point is not None
    stored = replace(found.point, vectors={CONTENT: [0.6, 0.8]})  # the engine keeps no empty vector
    assert compare(known, stored).point is None


def test_shoppers_who_weigh_something_else_by_now_make_another_vector_of_the_same_sketch() -> None:
    known = replace(state(), behaviour=BehaviourState("s1", shoppers=2))
    vector, lighter = SparseVector((3, 9), (0.5, 0.5)), SparseVector((3, 9), (0.5, 0.3))
    written = compare_shoppers(known, point_of(state()), Shoppers("s1/w1", vector)).point
    assert not behaviour_moved(known, written), "their weights are not looked at unless asked for"
    assert compare_shoppers(known, written, Shoppers("s1/w1", vector)) == NOTHING
    found = compare_shoppers(known, written, Shoppers("s1/w2", lighter))
    assert found.moved == (BEHAVIOUR,)
    assert vectors_of(found)[BEHAVIOUR] == lighter
    assert compare_shoppers(known, found.point, Shoppers("s1/w2", lighter)) == NOTHING


def compare_shoppers(of: ItemState, point: Point | None, shoppers: Shoppers) -> Assembly:
    return assemble("p1", of, point, recipe=RECIPE, encoded={}, now=LATER, shoppers=shoppers)
