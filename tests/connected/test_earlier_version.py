"""What an earlier version wrote is read and gone on with by this one; what a later one adds is passed over.

The files in tests/upgrades were written by the commit that their folder is named after, run as it was
(tests/support/earlier_version.py). docs/operations.md, Upgrades, has the rules that these are proofs of.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adapters.kafka import Record
from adapters.redis_backup import remove_keys
from adapters.state_export import export_state
from adapters.state_generation import FIRST
from consumers.handler import Handler
from consumers.progress import Delivery, Progress
from schemas import items
from schemas.errors import Halt, PoisonMessage
from schemas.events import EVENT_MODELS, ItemUpdated
from schemas.parsing import parse_event
from schemas.releases import Manifest
from schemas.rollouts import Rollout
from schemas.topics import Topics
from schemas.vectors import Point, SparseVector
from tests.connected.conftest import MakePipeline
from tests.support.fake_encoder import FakeEncoder
from tests.support.pipeline import Pipeline

VERSIONS = sorted((Path(__file__).parent.parent / "upgrades").iterdir())
WRITTEN_UNDER = "earlier."
STATE = ("products", "reviews", "events")

pytestmark = [
    pytest.mark.parametrize("broker", ["tansu"], indirect=True),
    pytest.mark.parametrize("version", VERSIONS, ids=lambda folder: folder.name),
]


@cache
def fixture(version: Path, name: str) -> Any:
    return json.loads((version / f"{name}.json").read_text())


def records(version: Path, topics: Topics, *roles: str, **change: Any) -> list[Record]:
    """Records as that version's consumers read them."""
    return [
        Record(
            getattr(topics, one["role"]).name,
            change.get("topic_id", one["topic_id"]),
            one["partition"],
            one["offset"],
            one["timestamp_ms"],
            None if one["key"] is None else one["key"].encode(),
            None if one["value"] is None else one["value"].encode(),
        )
        for one in fixture(version, "records")
        if one["role"] in roles
    ]


def restore(version: Path, pipeline: Pipeline, *, rename: Callable[[str], str] = lambda key: key) -> None:
    """Put that version's state into the pipeline's namespace."""
    (node,) = pipeline.nodes.primaries()
    client: Any = node
    namespace = pipeline.names.namespace
    for one in fixture(version, "state"):
        key = rename(namespace + one["key"].removeprefix(WRITTEN_UNDER))
        value = one["value"]
        if one["type"] == "hash":
            client.hset(key, mapping={raw(name): raw(inner) for name, inner in value})
        elif one["type"] == "zset":
            client.zadd(key, {raw(member): float(score) for member, score in value})
        elif one["type"] == "set":
            client.sadd(key, *map(raw, value))
        else:
            client.set(key, raw(value))


def raw(text: str) -> bytes:
    return text.encode("latin-1")


def handlers(pipeline: Pipeline) -> dict[str, Handler[Any]]:
    """Those that write item state, as they run in this version."""
    return {
        "products": pipeline.products_handler(),
        "reviews": pipeline.reviews_handler(),
        "events": pipeline.behaviour_handler(),
    }


def apply(pipeline: Pipeline, given: Mapping[str, Sequence[Record]]) -> list[str]:
    """Handle records, by the role of their topic, until all of it is done; the export of the state."""
    for role, handler in handlers(pipeline).items():
        try:
            handler.adopt(handler.store_epoch())
            progress = Progress(None)
            deliveries = [Delivery(handler.decode(one), one.offset, progress) for one in given.get(role, ())]
            if deliveries:
                handler.handle(deliveries)
            deadline = time.monotonic() + 30.0
            while not all(one.settled for one in deliveries):
                assert handler.fatal() is None, handler.fatal()
                assert time.monotonic() < deadline, f"{role} is not done"
                time.sleep(0.01)
        finally:
            handler.close()
    lines = export_state(nodes=pipeline.nodes, namespace=pipeline.names.namespace)
    return [line.decode() for line in lines]


def by_role(version: Path, pipeline: Pipeline, **change: Any) -> dict[str, list[Record]]:
    return {role: records(version, pipeline.topics, role, **change) for role in STATE}


def later(given: Iterable[Record]) -> list[Record]:
    """The same changes once more, as new events behind the old ones."""
    found = []
    for number, one in enumerate(given):
        if one.value is not None:
            body = json.loads(one.value)
            if "revision" in body:
                body["revision"] += 1_000
            if "event_id" in body:
                body["event_id"] += "-later"
            moved = one._replace(offset=one.offset + 10_000, timestamp_ms=one.timestamp_ms + 60_000 + number)
            found.append(moved._replace(value=json.dumps(body).encode()))
    return found


def clear(pipeline: Pipeline) -> None:
    remove_keys(pipeline.nodes, namespace=pipeline.names.namespace, generation=FIRST)


# --- from then to now ----------------------------------------------------------------------


def test_every_record_of_an_earlier_version_is_read(make_pipeline: MakePipeline, version: Path) -> None:
    pipeline = make_pipeline()
    kinds = set()
    for one in records(version, pipeline.topics, *STATE, "changed", "updated"):
        if one.value is not None:
            event = parse_event(one.value, *EVENT_MODELS)
            kinds.add(type(event).__name__)
            # Nothing that was said is lost on the way through this version's model.
            said = json.loads(one.value)
            kept = event.model_dump(mode="json", include=set(said))
            assert set(kept) == set(said), one.value
    assert {"ProductUpserted", "ProductDeleted", "ReviewPosted", "ReviewRemoved", "UserEvent"} <= kinds
    assert {"ItemChanged", "ItemUpdated"} <= kinds
    pipeline.stop()


def test_state_of_an_earlier_version_says_what_it_said(make_pipeline: MakePipeline, version: Path) -> None:
    pipeline = make_pipeline()
    restore(version, pipeline)
    found = pipeline.store.read([f"p{number}" for number in range(9)])
    assert {name: state.revision for name, state in found.items() if not state.deleted} == {
        "p0": 1,
        "p1": 100,
        "p2": 100,
        "p4": 101,
        "p6": 7,
        "p7": 8,
    }
    assert {name for name, state in found.items() if state.deleted} == {"p3", "p5"}
    sold_out, plain = found["p1"].product, found["p0"].product
    assert sold_out is not None
    assert plain is not None
    assert (sold_out.title, sold_out.in_stock) == ("Sold out", False)
    assert (str(plain.price), plain.attributes["colour"]) == ("19.90", ["black", "white"])
    reviews = found["p1"].reviews
    assert reviews is not None
    assert reviews.rating is not None
    # Those of r1, r7 and r10; r4 was taken back.
    assert (reviews.rating.mean, reviews.rating.count) == (2.0, 3)
    assert "Great sound" in reviews.digest
    # Events 0, 42, 84, 126 and 168 are views of p0; 0 came twice.
    assert pipeline.reader.figures(["p0"])["p0"].totals["view"] == 5
    behaviour = found["p0"].behaviour
    assert behaviour is not None
    # Impressions are no interest: of the twenty shoppers two have nothing else here.
    assert behaviour.shoppers == 18
    recent = {one.item_id for one in pipeline.reader.recent("u3", limit=50)}
    assert recent == {"p0", "p1", "p2", "p3", "p4", "p5"}
    pipeline.stop()


def test_this_version_goes_on_where_an_earlier_one_stopped(
    make_pipeline: MakePipeline, version: Path
) -> None:
    """State that two versions wrote one after the other equals that of this version alone."""
    pipeline = make_pipeline()
    again = by_role(version, pipeline)
    more = {role: [*given, *later(given)] for role, given in again.items()}
    alone = apply(pipeline, more)
    clear(pipeline)
    # Everything comes again, as behind a commit that was not made; then what is new.
    restore(version, pipeline)
    assert apply(pipeline, more) == alone
    assert sum("item:{" in line for line in alone) > 20
    clear(pipeline)
    # Would it be seen if this version did not know what the earlier one has counted?
    restore(version, pipeline)
    other = {role: [one._replace(topic_id="B" + one.topic_id[1:]) for one in more[role]] for role in STATE}
    assert apply(pipeline, {**more, "events": other["events"]}) != alone
    pipeline.stop()


def test_a_key_that_this_version_does_not_know_would_be_found(
    make_pipeline: MakePipeline, version: Path
) -> None:
    pipeline = make_pipeline()
    restore(version, pipeline, rename=lambda key: key.replace(":sketch", ":drawing"))
    with pytest.raises(Halt, match="drawing"):
        list(export_state(nodes=pipeline.nodes, namespace=pipeline.names.namespace))
    pipeline.stop()


def insert(version: Path, pipeline: Pipeline) -> None:
    """That version's points, as they stood in its collection."""
    points = [
        Point(
            one["product_id"],
            {
                name: SparseVector(tuple(vector[0]), tuple(vector[1]))
                if isinstance(vector[0], list)
                else vector
                for name, vector in one["vectors"].items()
            },
            {name: value for name, value in one["payload"].items() if name != "ticket"},
        )
        for one in fixture(version, "points")
    ]
    ticket = max(one["payload"]["ticket"] for one in fixture(version, "points"))
    pipeline.index.upsert(pipeline.collection, points, ticket=ticket)


def test_points_of_an_earlier_version_stand_and_are_found_equal_to_its_state(
    make_pipeline: MakePipeline, version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that wrote or encoded everything anew would be a backfill, and has to be said."""
    encoder = FakeEncoder()
    with make_pipeline(encoder=encoder) as pipeline:
        restore(version, pipeline)
        insert(version, pipeline)
        found = pipeline.reconciler().run()
        assert (found.items, found.points, found.announced) == (6, 6, 0)
        # Its hints, that nobody had served yet, are served: by looking, not by encoding.
        for one in records(version, pipeline.topics, "changed"):
            pipeline.shop.send(one.topic, key=one.key, value=one.value)
        pipeline.wait_until_drained()
        assert encoder.calls == 0
        # And a change of what it wrote is seen.
        applied = [one for one in records(version, pipeline.topics, "products") if one.key == b"p6"]
        for one in later(applied):
            cheaper = (one.value or b"").replace(b"19.90", b"9.90")
            pipeline.shop.send(one.topic, key=one.key, value=cheaper)
        pipeline.wait_until_drained()
        point = pipeline.point("p6")
        assert point is not None
        assert point.payload["price"] == 9.9
        assert encoder.calls == 0
        # A version that lays payloads out differently finds all of them to be written.
        monkeypatch.setattr(items, "PAYLOAD_VERSION", items.PAYLOAD_VERSION + 1)
        assert pipeline.reconciler().run().outdated == 6


def test_releases_and_records_of_an_earlier_version_are_read(version: Path, broker: object) -> None:
    manifest = Manifest.model_validate_json((version / "manifest.json").read_bytes())
    assert manifest.dimension == 384
    rollout = Rollout.model_validate_json((version / "rollout.json").read_bytes())
    assert rollout.release_id == manifest.release_id


# --- from later to now ----------------------------------------------------------------------


def newer(one: Record) -> Record:
    """As a later version might write it: with a field that nobody here knows."""
    if one.value is None:
        return one
    return one._replace(value=json.dumps({**json.loads(one.value), "added_later": {"deep": [1]}}).encode())


def test_a_field_that_a_later_version_adds_is_passed_over_everywhere(
    make_pipeline: MakePipeline, version: Path
) -> None:
    pipeline = make_pipeline()
    given = by_role(version, pipeline)
    plain = apply(pipeline, given)
    clear(pipeline)
    with_more = apply(pipeline, {role: [newer(one) for one in found] for role, found in given.items()})

    def without_hashes(lines: Sequence[str]) -> list[str]:
        # The hash of the body orders events of equal revision and time: it is that of the bytes that came,
        # and so are a ledger's entries and the marks of a digest.
        found = []
        for key, value in map(json.loads, lines):
            if key.endswith((":product", ":summary")):
                hashed = {"hash", "mark", "digested"}
                value = {name: inner for name, inner in value.items() if name not in hashed}
            found.append(key if key.endswith(":reviews") else json.dumps([key, value]))
        return found

    assert without_hashes(with_more) == without_hashes(plain)
    assert not any("added_later" in line for line in with_more)
    read = pipeline.store.read(["p0"])
    (node,) = pipeline.nodes.primaries()
    node.hset(pipeline.names.namespace + "item:{p0}:product", "added_later", "1")
    assert pipeline.store.read(["p0"]) == read
    for one in records(version, pipeline.topics, "updated"):
        assert parse_event(newer(one).value or b"", ItemUpdated)
    body = {**fixture(version, "manifest"), "added_later": 1}
    assert Manifest.model_validate(body).dimension == 384
    assert Rollout.model_validate({**fixture(version, "rollout"), "added_later": 1}).wanted is False
    pipeline.stop()


def test_a_kind_or_a_value_that_is_not_known_yet_is_a_dead_letter_and_can_be_put_back(
    make_pipeline: MakePipeline, version: Path
) -> None:
    pipeline = make_pipeline()
    given = by_role(version, pipeline)
    found = handlers(pipeline)
    try:
        for role, old, new in (
            ("products", b"product_upserted", b"product_bundled"),
            ("reviews", b"review_posted", b"review_answered"),
            ("events", b'"view"', b'"wishlist"'),
        ):
            one = next(one for one in given[role] if old in (one.value or b""))
            changed = one._replace(value=(one.value or b"").replace(old, new))
            with pytest.raises(PoisonMessage, match=r"expected one of|Input should be"):
                found[role].decode(changed)
    finally:
        for handler in found.values():
            handler.close()
        pipeline.stop()


def test_a_release_of_another_format_is_refused(version: Path, broker: object) -> None:
    with pytest.raises(ValidationError, match="format"):
        Manifest.model_validate({**fixture(version, "manifest"), "format": 2})
