"""consumers/hints.py: what is read as a hint, and which ones matter to whom."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adapters.kafka import Record
from consumers.hints import by_item, read_hint
from consumers.progress import Delivery, Progress
from schemas.errors import PoisonKind, PoisonMessage
from schemas.events import ItemChanged

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def record(body: bytes | None) -> Record:
    return Record("items.changed", "t", 0, 1, 1_000, b"a", body, ())


def deliveries(*named: tuple[str, list[str]]) -> list[Delivery[ItemChanged]]:
    progress = Progress(0)
    return [
        Delivery(ItemChanged(product_id=product_id, dimensions=dimensions, occurred_at=NOW), offset, progress)
        for offset, (product_id, dimensions) in enumerate(named)
    ]


def test_a_hint_is_read_as_it_was_published() -> None:
    hint = ItemChanged(product_id="a", dimensions=["context"], occurred_at=NOW)
    assert read_hint(record(hint.model_dump_json().encode())) == hint


@pytest.mark.parametrize(
    ("body", "said", "kind"),
    [
        (None, "must not be a null record", "null"),
        (b"{", "Invalid JSON", "invalid"),
        (b'{"kind": "item_changed"}', "'product_id'", "invalid"),
        (b'{"kind": "item_updated"}', "'kind'", "invalid"),
    ],
)
def test_what_is_no_hint_is_poison_of_its_kind(body: bytes | None, said: str, kind: PoisonKind) -> None:
    with pytest.raises(PoisonMessage) as caught:
        read_hint(record(body))
    assert said in caught.value.reason
    assert caught.value.kind == kind


def test_hints_are_gathered_by_item_and_those_that_do_not_matter_are_settled() -> None:
    given = deliveries(
        ("b", ["reviews"]), ("a", ["content"]), ("b", ["reviews", "context"]), ("a", []), ("c", ["reviews"])
    )
    found = by_item(given, no_matter=frozenset({"reviews", "behaviour"}))
    # A hint that names nothing may be about anything.
    assert {name: [one.offset for one in parts] for name, parts in found.items()} == {"a": [1, 3], "b": [2]}
    assert [one.offset for one in given if one.settled] == [0, 4]
