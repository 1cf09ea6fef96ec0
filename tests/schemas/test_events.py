from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.events import (
    Frozen,
    ItemChanged,
    ProductDeleted,
    ProductUpserted,
    ReviewPosted,
    ReviewRemoved,
    UserEvent,
)
from schemas.fields import MAX_REVISION
from schemas.parsing import InvalidEvent, fields_parser, parse_event

WHEN = "2026-11-24T08:00:00Z"
PRODUCT: dict[str, Any] = {
    "kind": "product_upserted",
    "product_id": "B00X",
    "occurred_at": WHEN,
    "title": "A kettle",
}
REVIEW: dict[str, Any] = {
    "kind": "review_posted",
    "review_id": "r1",
    "product_id": "B00X",
    "occurred_at": WHEN,
}
EVENT: dict[str, Any] = {
    "kind": "user_event",
    "event_id": "e1",
    "type": "view",
    "user_id": "u1",
    "product_id": "B00X",
    "occurred_at": WHEN,
}


def product(**changes: Any) -> ProductUpserted:
    event = parse_event(json.dumps({**PRODUCT, **changes}), ProductUpserted, ProductDeleted)
    assert isinstance(event, ProductUpserted)
    return event


def refusal(body: Any, *models: type[Frozen]) -> str:
    with pytest.raises(InvalidEvent) as caught:
        parse_event(body if isinstance(body, str | bytes) else json.dumps(body), *models)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"title": None}, "field 'title': Input should be a valid string"),
        ({"title": "  "}, "field 'title': String should have at least 1 character"),
        ({"title": "x" * 2001}, "field 'title': String should have at most 2000 characters"),
        ({"product_id": ""}, "field 'product_id': String should have at least 1 character"),
        ({"product_id": "x" * 257}, "field 'product_id': String should have at most 256 characters"),
        ({"product_id": 5}, "field 'product_id': Input should be a valid string"),
        ({"price": "19,90"}, "field 'price': Input should be a valid decimal"),
        ({"price": -1}, "field 'price': Input should be greater than or equal to 0"),
        ({"price": "NaN"}, "field 'price': Input should be a finite number"),
        ({"price": math.nan}, "field 'price': Input should be a finite number"),
        ({"price": math.inf}, "field 'price': Input should be a finite number"),
        ({"price": "1.123456789"}, "field 'price': Decimal input should have no more than 8 decimal places"),
        ({"currency": "eur"}, "field 'currency': String should match pattern"),
        ({"occurred_at": "2026-11-24T08:00:00"}, "field 'occurred_at': Input should have timezone info"),
        ({"occurred_at": "yesterday"}, "field 'occurred_at': Input should be a valid datetime"),
        ({"occurred_at": "0001-01-01T00:00:00Z"}, "field 'occurred_at': expected a time between the years"),
        ({"occurred_at": None}, "field 'occurred_at': Input should be a valid datetime"),
        ({"revision": "7"}, "field 'revision': Input should be a valid integer"),
        ({"revision": -1}, "field 'revision': Input should be greater than or equal to 0"),
        ({"revision": MAX_REVISION + 1}, "field 'revision': Input should be less than or equal to"),
        ({"revision": True}, "field 'revision': Input should be a valid integer"),
        ({"category": "A > B"}, "field 'category': Input should be a valid array"),
        ({"category": ["x"] * 21}, "field 'category': List should have at most 20 items"),
        ({"category": [None]}, "field 'category.0': Input should be a valid string"),
        ({"attributes": {"a": {"b": 1}}}, "field 'attributes.a': expected text, a number, true or false"),
        ({"attributes": {"a": math.nan}}, "field 'attributes.a': expected a finite number"),
        ({"attributes": {"a": ["x", math.inf]}}, "field 'attributes.a': expected a finite number"),
        (
            {"attributes": {"a": "x" * 2001}},
            "field 'attributes.a': expected at most 2000 characters, got 2001",
        ),
        ({"attributes": []}, "field 'attributes': Input should be an object"),
        ({"in_stock": "maybe"}, "field 'in_stock': Input should be a valid boolean"),
        (
            {"kind": "product"},
            "field 'kind' is 'product': expected one of 'product_upserted', 'product_deleted'",
        ),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(change: dict[str, Any], said: str) -> None:
    assert refusal({**PRODUCT, **change}, ProductUpserted, ProductDeleted).startswith(said)


@pytest.mark.parametrize("name", ["product_id", "occurred_at", "title"])
def test_a_missing_field_is_named(name: str) -> None:
    body = {key: value for key, value in PRODUCT.items() if key != name}
    assert refusal(body, ProductUpserted) == f"field '{name}' is missing: it is required"


def test_a_missing_kind_is_named_with_those_the_topic_carries() -> None:
    said = refusal({"product_id": "1"}, ProductUpserted, ProductDeleted)
    assert said == "field 'kind' is missing: expected one of 'product_upserted', 'product_deleted'"


def test_at_most_five_fields_are_named_and_the_rest_counted() -> None:
    wrong = {"price": "a", "currency": "b", "revision": "c", "title": None, "product_id": 1, "in_stock": "d"}
    said = refusal({**PRODUCT, **wrong, "occurred_at": "e"}, ProductUpserted)
    assert said.count("field '") == 5
    assert said.endswith("; and 2 more")


def test_a_huge_value_is_shortened_in_the_reason() -> None:
    assert len(refusal({**PRODUCT, "title": "x" * 1_000_000}, ProductUpserted)) < 300


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"5",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"kind": "product_upserted", "title": "\xff"}',
        b'{"kind": "product_upserted", "title": "\\ud83d"}',
        b"[" * 100_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    ],
    ids=["empty", "null", "number", "list", "half", "utf-16", "latin-1", "surrogate", "deep", "deep object"],
)
def test_what_is_no_json_object_is_refused_in_words(body: bytes) -> None:
    said = refusal(body, ProductUpserted, ProductDeleted)
    assert said.startswith(("the message: ", "field 'kind'"))
    assert len(said) < 300


def test_amounts_sent_as_text_are_exact() -> None:
    for text in ("19.90", "0.1", "123456789012.12345678", "0"):
        assert product(price=text).price == Decimal(text)
    assert product(price=19.9).price == Decimal("19.9")


def test_null_says_the_same_as_leaving_an_optional_field_out() -> None:
    names = set(ProductUpserted.model_fields) - {"kind", "product_id", "occurred_at", "title"}
    assert product(**dict.fromkeys(names)) == product()
    review = parse_event(json.dumps({**REVIEW, "helpful_votes": None, "rating": None}), ReviewPosted)
    assert review == parse_event(json.dumps(REVIEW), ReviewPosted)
    event = parse_event(json.dumps({**EVENT, "quantity": None, "value": None}), UserEvent)
    assert event.quantity == 1


def test_attributes_become_words_and_unknown_ones_are_left_out() -> None:
    given = {"a": 1, "b": 1.5, "c": True, "d": None, "e": ["x", 2, None], "f": "z"}
    assert product(attributes=given).attributes == {
        "a": "1",
        "b": "1.5",
        "c": "true",
        "e": ["x", "2"],
        "f": "z",
    }


@pytest.mark.parametrize("digits", [2_001, 4_300])
def test_an_attribute_that_is_a_number_is_at_most_as_long_as_one_that_is_text(digits: int) -> None:
    for written in ("{}", '[1, "x", {}]'):
        body = json.dumps({**PRODUCT, "attributes": {"a": "?"}}).replace('"?"', written)
        with pytest.raises(InvalidEvent, match=r"attributes\.a"):
            parse_event(body.replace("{}", "9" * digits), ProductUpserted)
    kept = product(attributes={"a": 10**1_999, "b": [-(10**1_998)]})
    assert parse_event(kept.model_dump_json(), ProductUpserted) == kept
    too_exact = {"a": Decimal("0." + "1" * 2_000)}
    with pytest.raises(ValidationError, match="at most 2000 characters"):
        ProductUpserted.model_validate({**PRODUCT, "attributes": too_exact})


def test_unknown_fields_are_ignored() -> None:
    assert product(colour_of_the_box={"deep": [1]}) == product()


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        product().title = "other"  # type: ignore[misc]


def test_a_derived_revision_is_the_time_in_microseconds_whatever_the_zone() -> None:
    moment = datetime(2026, 11, 24, 8, 0, 0, 123457, tzinfo=UTC)
    expected = 1_795_507_200_123_457
    for zone in (UTC, timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(hours=11))):
        assert product(occurred_at=moment.astimezone(zone).isoformat()).order == expected
    assert product(revision=7, occurred_at=moment.isoformat()).order == 7


ids = st.text(min_size=1, max_size=256)
moments = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001 - Hypothesis adds the zone
    max_value=datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
amounts = st.none() | st.decimals(min_value=0, max_value=10**12 - 1, places=8, allow_nan=False)
texts = st.none() | st.text(max_size=200)
attributes = st.dictionaries(
    st.text(max_size=30), st.text(max_size=50) | st.lists(st.text(max_size=20), max_size=4), max_size=6
)
revisions = st.none() | st.integers(0, MAX_REVISION)
products = st.builds(
    ProductUpserted,
    product_id=ids,
    occurred_at=moments,
    revision=revisions,
    title=st.text(min_size=1, max_size=100).filter(str.strip),
    brand=texts,
    category=st.lists(st.text(max_size=40), max_size=5),
    description=texts,
    attributes=attributes,
    price=amounts,
    currency=st.none() | st.from_regex(r"\A[A-Z]{3}\Z"),
    in_stock=st.none() | st.booleans(),
    group_id=st.none() | ids,
)
reviews = st.builds(
    ReviewPosted,
    review_id=ids,
    product_id=ids,
    occurred_at=moments,
    revision=revisions,
    rating=st.none() | st.floats(0, 5),
    text=texts,
    helpful_votes=st.integers(0, MAX_REVISION),
)
others = st.one_of(
    st.builds(ProductDeleted, product_id=ids, occurred_at=moments, revision=revisions),
    st.builds(ReviewRemoved, review_id=ids, product_id=ids, occurred_at=moments, revision=revisions),
    st.builds(UserEvent, event_id=ids, user_id=ids, product_id=ids, occurred_at=moments, value=amounts),
    st.builds(ItemChanged, product_id=ids, occurred_at=moments, dimensions=st.lists(st.text(), max_size=3)),
)


@given(st.one_of(products, reviews, others))
@settings(max_examples=200, deadline=None)
def test_parsing_what_was_written_gives_the_same_event(event: Frozen) -> None:
    assert parse_event(event.model_dump_json(), type(event)) == event
    assert parse_event(event.model_dump_json(exclude_none=True), type(event)) == event


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(ProductUpserted.model_fields)), json_values, max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_values_at_all_are_accepted_or_refused_with_a_named_field(changes: dict[str, Any]) -> None:
    reason = None
    try:
        parse_event(json.dumps({**PRODUCT, **changes}), ProductUpserted, ProductDeleted)
    except InvalidEvent as error:
        reason = str(error)
    if reason is not None:
        assert any(f"field '{name}" in reason for name in changes)


#: What a field may be told, and mostly may not.
_TOLD = [
    *(None, True, 0, 1, -1, 3, 1.5, 2.0, 1e9, 1_000_001, 2**63, 1e30, "", " ", "x", "x" * 256, "x" * 257),
    *(
        "view",
        "rate",
        "View",
        "user_event",
        "item_changed",
        "4",
        " 4 ",
        "4.5",
        "-1",
        "1_000",
        "NaN",
        "Infinity",
    ),
    *("1e400", "0.123456789", "123456789012345678901", "2026-08-03T12:11:10+00:00", "2026-08-03T12:11:10Z"),
    *("2026-08-03T12:11:10", "2026-08-03", "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z", 1_795_600_000),
    *(1_795_600_000_000, -5, 1_795_600_000.25, "\u00fc\u4e2d\U0001f600", "a\u0000b", [], [1], {}, {"a": 1}),
]
_BODIES = [b"", b"{", b"{}", b"[]", b"null", b"1", b"\xff", b'{"kind":"user_event"}', b'{"kind":NaN}']


def _documents() -> Iterator[bytes]:
    """One user event with every field told everything, alone and together; and what is no event at all."""
    whole = {
        "kind": "user_event",
        "event_id": "e1",
        "type": "rate",
        "user_id": "u1",
        "product_id": "p1",
        "occurred_at": "2026-08-03T12:11:10+02:00",
        "session_id": "s1",
        "value": "4",
        "unknown": {"to": ["us"]},
    }
    yield json.dumps(whole).encode()
    yield from _BODIES
    for name in UserEvent.model_fields:
        yield json.dumps({field: told for field, told in whole.items() if field != name}).encode()
        yield from (json.dumps({**whole, name: told}).encode() for told in _TOLD)
        for raw in (b"NaN", b"1e999", b"-0", b'"\\ud800"', b'"\x01"', b"truth"):
            yield json.dumps({**whole, name: "here"}).encode().replace(b'"here"', raw)
        yield json.dumps(whole).encode()[:-1] + b',"' + name.encode() + b'":"twice"}'
    draw = Random(3)
    for _ in range(3_000):
        told = {name: draw.choice(_TOLD) for name in draw.sample(list(UserEvent.model_fields), 2)}
        yield json.dumps({**whole, **told}).encode()


def test_the_quick_way_accepts_and_refuses_exactly_what_the_model_does_and_says_the_same() -> None:
    quick, accepted, refused = fields_parser(UserEvent), 0, 0
    for body in _documents():
        try:
            wanted: Any = parse_event(body, UserEvent).model_dump(exclude_unset=True)
            accepted += 1
        except InvalidEvent as error:
            wanted = str(error)
            refused += 1
        try:
            found: Any = quick(body)
        except InvalidEvent as error:
            found = str(error)
        assert found == wanted, body
        if isinstance(found, dict):
            assert {name: type(told) for name, told in found.items()} == {
                name: type(told) for name, told in wanted.items()
            }
    assert accepted > 400
    assert refused > 2_000
