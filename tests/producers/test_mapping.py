from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from producers.mapping import TARGETS, EventMaker, InvalidMapping, mapping_of
from schemas.events import ProductDeleted, ProductUpserted, ReviewPosted, UserEvent
from schemas.parsing import InvalidEvent

NOW = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
ROW: dict[str, Any] = {"product_id": "1", "title": "A kettle"}


def make(values: Mapping[str, Any], target: str = "products", **options: Any) -> Any:
    wanted = TARGETS[target]
    return EventMaker(wanted, mapping_of(wanted, **options), clock=lambda: NOW).event(values)


def product(values: Mapping[str, Any], **options: Any) -> ProductUpserted:
    event = make(values, **options)
    assert isinstance(event, ProductUpserted)
    return event


def refusal(values: Mapping[str, Any], target: str = "products", **options: Any) -> str:
    with pytest.raises(InvalidEvent) as caught:
        make(values, target, **options)
    return str(caught.value)


def test_a_row_without_kind_and_time_gets_those_of_the_command_and_the_clock() -> None:
    event = product(ROW)
    assert (event.kind, event.occurred_at, event.revision) == ("product_upserted", NOW, None)


def test_columns_are_mapped_and_those_of_a_fields_own_name_need_no_entry() -> None:
    event = product(
        {"sku": "7", "product_name": "Pan", "amount": "19.90", "brand": "Aldengard", "junk": "x"},
        columns=["product_id=sku", "title=product_name", "price=amount"],
    )
    assert (event.product_id, event.title, event.price, event.brand) == (
        "7",
        "Pan",
        Decimal("19.90"),
        "Aldengard",
    )
    assert event.attributes == {}


def test_a_mapped_column_wins_over_one_of_the_fields_own_name() -> None:
    assert product({**ROW, "name": "Pan"}, columns=["title=name"]).title == "Pan"


def test_attributes_come_from_their_own_columns_mapped_ones_and_on_request_from_the_rest() -> None:
    values = {**ROW, "attributes.colour": "red", "Groesse": "L", "Material": "wool", "empty": ""}
    assert product(values).attributes == {"colour": "red"}
    assert product(values, columns=["attributes.size=Groesse"]).attributes == {"colour": "red", "size": "L"}
    assert product(values, columns=["attributes.size=Groesse"], rest_as_attributes=True).attributes == {
        "colour": "red",
        "size": "L",
        "Material": "wool",
    }


def test_a_json_object_of_attributes_is_joined_by_single_columns() -> None:
    values = {**ROW, "attributes": '{"a": 1.50, "b": ["x", "y"]}', "attributes.c": "z"}
    assert product(values).attributes == {"a": "1.50", "b": ["x", "y"], "c": "z"}


def test_a_cell_of_attributes_that_cannot_be_read_is_refused_beside_single_columns_too() -> None:
    cell = {"attributes": "colour=black;size=3"}
    said = refusal({**ROW, **cell})
    assert "field 'attributes': Input should be a valid dictionary" in said
    assert refusal({**ROW, **cell, "attributes.size": "40"}) == said
    assert refusal({**ROW, **cell}, constants=["attributes.size=40"]) == said


@pytest.mark.parametrize(
    ("given", "separator", "path"),
    [
        ("Home > Kitchen>  Pans ", ">", ["Home", "Kitchen", "Pans"]),
        ("Home/Kitchen", "/", ["Home", "Kitchen"]),
        ("Home", ">", ["Home"]),
        ('["Home", "Pots > Pans"]', ">", ["Home", "Pots > Pans"]),
        (["Home", "Kitchen"], ">", ["Home", "Kitchen"]),
        ("", ">", []),
        (None, ">", []),
    ],
)
def test_a_category_is_a_list_or_a_path_with_separators(given: Any, separator: str, path: list[str]) -> None:
    assert product({**ROW, "category": given}, category_separator=separator).category == path


def test_constants_fill_what_a_row_leaves_open() -> None:
    options = {"constants": ["currency=EUR", "attributes.source=import"]}
    assert product(ROW, **options).currency == "EUR"
    assert product({**ROW, "currency": "USD"}, **options).currency == "USD"
    assert product({**ROW, "currency": " "}, **options).currency == "EUR"
    assert product(ROW, **options).attributes == {"source": "import"}


def test_a_constant_for_a_field_and_one_for_an_attribute_of_that_name_are_two_things() -> None:
    boxed = {**ROW, "attributes.condition": "boxed"}
    event = product(boxed, constants=["condition=new"])
    assert (event.condition, event.attributes) == ("new", {"condition": "boxed"})
    event = product({**ROW, "condition": "used"}, constants=["attributes.condition=boxed"])
    assert (event.condition, event.attributes) == ("used", {"condition": "boxed"})
    for held in ({"attributes.size": "40"}, {"attributes": '{"size": "40"}'}):
        assert product({**ROW, **held}, constants=["attributes.size=39"]).attributes == {"size": "40"}


def test_whole_numbers_are_good_ids_and_amounts_stay_exact() -> None:
    event = product({"product_id": 123, "title": "x", "price": Decimal("0.10"), "revision": "12"})
    assert (event.product_id, str(event.price), event.revision) == ("123", "0.10", 12)
    assert product({**ROW, "product_id": 123.0}).product_id == "123"


def test_times_without_a_zone_get_the_one_that_was_said_and_others_keep_theirs() -> None:
    berlin = {"zone": ZoneInfo("Europe/Berlin")}
    at_nine = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
    for given in ("2026-01-05 09:00", "2026-01-05T08:00:00Z", datetime(2026, 1, 5, 9, 0), at_nine):  # noqa: DTZ001
        assert product({**ROW, "occurred_at": given}, **berlin).occurred_at == at_nine
    assert product({**ROW, "occurred_at": date(2026, 1, 5)}, **berlin).occurred_at.hour == 0
    assert "--zone" in refusal({**ROW, "occurred_at": "2026-01-05 09:00"})


def test_a_row_may_say_that_it_is_another_kind_of_the_same_topic() -> None:
    assert isinstance(make({"kind": "product_deleted", "product_id": "1"}), ProductDeleted)
    said = refusal({"kind": "review_posted", "product_id": "1"})
    assert "expected one of product_upserted, product_deleted" in said
    assert "the command for its topic" in said


def test_reviews_and_events_are_made_with_the_ids_they_must_bring() -> None:
    review = make({"review_id": 5, "product_id": 1, "rating": "4.5", "helpful_votes": "3"}, "reviews")
    assert isinstance(review, ReviewPosted)
    assert (review.review_id, review.rating, review.helpful_votes) == ("5", 4.5, 3)
    event = make({"event_id": 1, "type": "view", "user_id": 2, "product_id": 3}, "events")
    assert isinstance(event, UserEvent)
    assert "--map review_id=COLUMN" in refusal({"product_id": "1"}, "reviews")
    assert "--map event_id=COLUMN" in refusal({"type": "view", "user_id": "2", "product_id": "3"}, "events")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"price": "$5"}, "price: write it as 19.90, without currency sign"),
        ({"price": float("nan")}, "price: leave it out where it is unknown"),
        ({"currency": "eur"}, "currency: write three capital letters"),
        ({"revision": "seven"}, "revision: write a whole number"),
        ({"in_stock": "perhaps"}, "in_stock: write true or false"),
        ({"title": " "}, "title: it is blank, which counts as missing"),
        ({"attributes": {"a": {"b": 1}}}, "field 'attributes.a': expected text"),
        ({"attributes.a": float("inf")}, "field 'attributes.a': expected a finite number"),
    ],
)
def test_a_refusal_names_the_field_and_the_fix(values: dict[str, Any], said: str) -> None:
    assert said in refusal({**ROW, **values})


def test_a_refusal_names_the_column_a_field_was_read_from_or_that_there_is_none() -> None:
    read = refusal({**ROW, "amount": "x"}, columns=["price=amount"])
    assert "price: it is read from column 'amount', write it as 19.90" in read
    absent = refusal({"product_id": "1", "name": "x"}, columns=["title=nmae"])
    assert (
        "title: it is read from column 'nmae', and there is none; the columns are 'product_id', 'name'"
        in absent
    )


def test_a_document_nested_beyond_reason_is_refused() -> None:
    deep: Any = "x"
    for _ in range(5_000):
        deep = [deep]
    assert "nested too deeply" in refusal({**ROW, "attributes": {"a": deep}})


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["titel=name"], "products have no field 'titel'; they have attributes, brand"),
        (["title"], "write FIELD=COLUMN"),
        (["title="], "write FIELD=COLUMN"),
        (["title=a", "title=b"], "'title' twice: 'a' and 'b'"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused_with_what_could(columns: list[str], said: str) -> None:
    with pytest.raises(InvalidMapping, match=said):
        mapping_of(TARGETS["products"], columns=columns)


def test_user_events_have_no_attributes_to_map() -> None:
    with pytest.raises(InvalidMapping, match=r"no field 'attributes\.a'"):
        mapping_of(TARGETS["events"], columns=["attributes.a=b"])
