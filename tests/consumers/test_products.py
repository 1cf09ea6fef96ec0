"""Product records: what is poison and why, what is written, when it settles."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.kafka import Headers, Record
from adapters.redis_client import Outcome
from adapters.redis_items import Applied, ProductWrite
from consumers.products import ProductChange, ProductsHandler
from consumers.progress import Delivery, Progress
from schemas.errors import PoisonMessage, Transient
from schemas.events import ItemChanged
from schemas.fields import MAX_REVISION
from schemas.topics import Topics

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
TOPICS = Topics.named()


class Store:
    """Answers every write with the next outcome, newer when none is given."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.written: list[ProductWrite] = []

    def apply(self, writes: Sequence[ProductWrite]) -> list[Applied]:
        self.written += writes
        return [
            Applied(self.outcomes.pop(0) if self.outcomes else Outcome.NEWER, text_changed=True)
            for _ in writes
        ]


class Publisher:
    """Remembers what is sent; acknowledges when told."""

    def __init__(self, error: Exception | None = None, *, silent: bool = False) -> None:
        self.sent: list[tuple[str, ItemChanged]] = []
        self.error = error
        self.silent = silent
        self.acknowledgements: list[Callable[[Exception | None], None]] = []

    def send(
        self,
        topic: str,
        *,
        key: str,
        value: bytes,
        headers: Headers = (),
        on_ack: Callable[[Exception | None], None],
    ) -> None:
        hint = ItemChanged.model_validate_json(value)
        assert hint.product_id == key
        self.sent.append((topic, hint))
        self.acknowledgements.append(on_ack)
        if not self.silent:
            on_ack(self.error)

    def send_batch(
        self, topic: str, records: Sequence[tuple[str, bytes, Callable[[Exception | None], None]]]
    ) -> None:
        for key, value, on_ack in records:
            self.send(topic, key=key, value=value, on_ack=on_ack)


def handler(store: Store | None = None, publisher: Publisher | None = None) -> ProductsHandler:
    collaborators: dict[str, Any] = {"store": store or Store(), "publisher": publisher or Publisher()}
    return ProductsHandler(topics=TOPICS, ack_timeout_seconds=0.05, **collaborators)


def record(
    value: bytes | dict[str, Any] | None = None,
    *,
    key: bytes | None = b"p1",
    timestamp_ms: int = NOW_MS,
    headers: tuple[tuple[str, bytes], ...] = (),
    offset: int = 7,
) -> Record:
    body = json.dumps(value).encode() if isinstance(value, dict) else value
    return Record("catalog.products", "topic-id", 3, offset, timestamp_ms, key, body, headers)


def event(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "product_upserted",
        "product_id": "p1",
        "revision": 4,
        "occurred_at": "2026-11-24T08:00:00Z",
        "title": "Red lamp",
        **fields,
    }


def deliveries(*changes: ProductChange) -> list[Delivery[ProductChange]]:
    progress = Progress(None)
    return [Delivery(change, number, progress) for number, change in enumerate(changes)]


# --- decode ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (record(b"{not json"), "Invalid JSON"),
        (record(b""), "Invalid JSON"),
        (record(b"null"), "the message"),
        (record(b"[1,2]"), "the message"),
        (record(b'{"kind": "product_upserted", "title": "\xff\xfe"}'), "Invalid JSON"),
        (record(b'{"a":' * 5_000 + b"1" + b"}" * 5_000), "recursion limit"),
        (record(event(kind="product_renamed")), "product_renamed"),
        (record({"product_id": "p1"}), "kind"),
        (record(event(title="")), "field 'title'"),
        (record(event(title="   ")), "field 'title'"),
        (record(event(title=None)), "field 'title'"),
        (record(event(title="x" * 2_001)), "field 'title'"),
        (record(event(description="x" * 2_000_000)), "field 'description'"),
        (record(event(price="NaN")), "field 'price'"),
        (record(event(price="Infinity")), "field 'price'"),
        (record(event(price=-1)), "field 'price'"),
        (record(json.dumps(event(price="@")).replace('"@"', "NaN").encode()), "field 'price'"),
        (record(event(currency="euro")), "field 'currency'"),
        (record(event(category="Audio")), "field 'category'"),
        (record(event(attributes={"colour": {"deep": "red"}})), "field 'attributes"),
        (record(event(in_stock="perhaps")), "field 'in_stock'"),
        (record(event(revision="4")), "field 'revision'"),
        (record(event(revision=4.5)), "field 'revision'"),
        (record(event(revision=MAX_REVISION + 1)), "field 'revision'"),
        (record(event(revision=-1)), "field 'revision'"),
        (record(event(occurred_at="2026-11-24T08:00:00")), "field 'occurred_at'"),
        (record(event(occurred_at="yesterday")), "field 'occurred_at'"),
        (record(event(product_id="")), "field 'product_id'"),
        (record(event(product_id="x" * 257), key=b"x" * 257), "key"),
        (record(event(), key=None), "the record has no key: key records of this topic by product_id"),
        (record(event(), key=b""), "the record's key"),
        (record(event(), key=b"\xff"), "the record's key is not UTF-8"),
        (record(event(), key=b"p2"), "the record's key is 'p2' but field 'product_id' is 'p1'"),
        (record(None, key=None), "the record has no key"),
    ],
)
def test_what_can_never_be_applied_is_poison_and_says_which_field(bad: Record, said: str) -> None:
    with pytest.raises(PoisonMessage) as caught:
        handler().decode(bad)
    assert said in caught.value.reason
    assert len(caught.value.reason) < 2_000


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (record(b"no JSON"), "invalid"),
        (record(event(), key=None), "key"),
        (record(event(), key=b"\xff"), "key"),
        (record(event(), key=b"p2"), "key"),
        (record(event(revision=None, occurred_at=(NOW + timedelta(hours=1)).isoformat())), "clock"),
    ],
)
def test_poison_has_a_kind_for_its_metric(bad: Record, kind: str) -> None:
    with pytest.raises(PoisonMessage) as caught:
        handler().decode(bad)
    assert caught.value.kind == kind


def test_a_clock_that_is_ahead_is_poison_only_where_the_revision_comes_from_it() -> None:
    ahead = (NOW + timedelta(minutes=10, seconds=1)).isoformat()
    with pytest.raises(PoisonMessage, match="more than 10 minutes ahead of the record's timestamp"):
        handler().decode(record(event(revision=None, occurred_at=ahead)))
    assert handler().decode(record(event(revision=4, occurred_at=ahead))).write.revision == 4
    just = (NOW + timedelta(minutes=10)).isoformat()
    assert handler().decode(record(event(revision=None, occurred_at=just))).occurred_at > NOW


@pytest.mark.parametrize("timestamp_ms", [2**63 - 1, 253_402_300_799_999, -1, -(2**62)])
def test_a_record_at_the_end_of_time_is_read_or_refused_but_never_stops_the_loop(timestamp_ms: int) -> None:
    """Records carry whatever timestamp their producer wrote; negative control: a sum of dates overflows."""
    last = "9998-12-31T23:59:59Z"
    with pytest.raises(PoisonMessage, match="occurred_at"):
        handler().decode(record(event(revision=None, occurred_at=last), timestamp_ms=timestamp_ms))
    assert handler().decode(record(event(occurred_at=last), timestamp_ms=timestamp_ms)).write.revision == 4
    tombstone = handler().decode(record(None, timestamp_ms=timestamp_ms))
    assert tombstone.write.revision is None
    assert ItemChanged(product_id="p1", occurred_at=tombstone.occurred_at)  # what is announced of it
    with pytest.raises(OverflowError):
        datetime.fromtimestamp(253_402_300_799, tz=UTC) + timedelta(minutes=10)


def test_a_revision_is_derived_from_the_time_in_microseconds() -> None:
    change = handler().decode(record(event(revision=None, occurred_at="2026-11-24T08:00:00.000001Z")))
    assert change.write.revision == NOW_MS * 1000 + 1
    early = handler().decode(record(event(revision=None, occurred_at="1970-01-01T00:00:00Z")))
    assert early.write.revision == 0


def test_a_null_record_is_a_tombstone_of_its_key() -> None:
    change = handler().decode(record(None, timestamp_ms=NOW_MS + 1))
    assert change.write.product_id == "p1"
    assert change.write.revision is None
    assert change.write.document is None
    assert change.occurred_at == NOW + timedelta(milliseconds=1)


def test_a_deletion_carries_no_document_and_an_upsert_the_whole_one() -> None:
    upsert = handler().decode(record(event(price="19.90", colour="unknown field")))
    assert upsert.write.document is not None
    assert json.loads(upsert.write.document)["price"] == "19.90"
    assert "colour" not in json.loads(upsert.write.document)
    gone = {"kind": "product_deleted", "product_id": "p1", "revision": 5, "occurred_at": NOW.isoformat()}
    assert handler().decode(record(gone)).write.document is None


def test_the_text_hash_moves_with_the_text_and_not_with_the_price() -> None:
    base = handler().decode(record(event(price="1"))).write
    assert handler().decode(record(event(price="2"))).write.text_hash == base.text_hash
    assert handler().decode(record(event(price="2"))).write.body_hash != base.body_hash
    for field in ({"title": "x"}, {"brand": "x"}, {"description": "x"}, {"category": ["x"]}):
        assert handler().decode(record(event(price="1", **field))).write.text_hash != base.text_hash


def test_where_a_record_stands_travels_with_its_write() -> None:
    position = handler().decode(record(event(), offset=9)).write.position
    assert (position.topic_id, position.partition, position.offset, position.timestamp_ms) == (
        "topic-id",
        3,
        9,
        NOW_MS,
    )


# --- handle ----------------------------------------------------------------------------------------


def changes(*events: dict[str, Any], bulk: Sequence[bool] = ()) -> list[Delivery[ProductChange]]:
    decode = handler().decode
    lanes = list(bulk) or [False] * len(events)
    return deliveries(
        *(
            decode(
                record(
                    one,
                    key=one["product_id"].encode(),
                    headers=(("simstream-lane", b"bulk"),) if lane else (),
                    offset=number,
                )
            )
            for number, (one, lane) in enumerate(zip(events, lanes, strict=True))
        )
    )


def test_newer_and_equal_are_announced_and_older_is_silent() -> None:
    publisher = Publisher()
    batch = changes(event(product_id="a"), event(product_id="b"), event(product_id="c"))
    handler(Store(Outcome.NEWER, Outcome.EQUAL, Outcome.OLDER), publisher).handle(batch)
    assert [(topic, hint.product_id) for topic, hint in publisher.sent] == [
        ("items.changed", "a"),
        ("items.changed", "b"),
    ]
    assert all(one.settled for one in batch)


def test_several_changes_of_one_item_in_a_batch_make_one_hint() -> None:
    publisher = Publisher()
    batch = changes(event(revision=1), event(revision=2), event(revision=3))
    handler(publisher=publisher).handle(batch)
    assert len(publisher.sent) == 1
    assert all(one.settled for one in batch)


def test_the_bulk_header_is_handed_on_unless_a_live_change_is_among_them() -> None:
    publisher = Publisher()
    events = [event(product_id=name) for name in "aabb"]
    handler(publisher=publisher).handle(changes(*events, bulk=[True, True, True, False]))
    assert [topic for topic, _ in publisher.sent] == ["items.changed.bulk", "items.changed"]


def test_nothing_settles_before_the_broker_has_the_hint() -> None:
    publisher = Publisher(silent=True)
    batch = changes(event())
    with pytest.raises(Transient, match="did not acknowledge"):
        handler(publisher=publisher).handle(batch)
    assert not batch[0].settled
    publisher.acknowledgements[0](None)  # late, but the effect is whole
    assert batch[0].settled


def test_a_refused_hint_leaves_its_record_unsettled_and_asks_for_another_try() -> None:
    batch = changes(event())
    with pytest.raises(Transient, match="refused announcements: no"):
        handler(publisher=Publisher(RuntimeError("no"))).handle(batch)
    assert not batch[0].settled
    publisher = Publisher()
    handler(Store(Outcome.EQUAL), publisher).handle(batch)  # the loop tries again: equal, announced again
    assert len(publisher.sent) == 1
    assert batch[0].settled
