"""From a record on catalog.products to a point in the index, through both consumers, on either broker."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from schemas.events import ProductDeleted, ProductUpserted
from schemas.vectors import CONTENT, LEXICAL, SparseVector
from tests.support.fake_encoder import FakeEncoder
from tests.support.pipeline import Pipeline

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)


def product(product_id: str = "p1", revision: int = 1, **more: Any) -> ProductUpserted:
    fields: dict[str, Any] = {"title": f"Wireless headphones {product_id}", "price": "19.90", **more}
    return ProductUpserted(product_id=product_id, revision=revision, occurred_at=NOW, **fields)


def deletion(product_id: str = "p1", revision: int = 2) -> ProductDeleted:
    return ProductDeleted(product_id=product_id, revision=revision, occurred_at=NOW)


def encoder_of(pipeline: Pipeline) -> FakeEncoder:
    assert isinstance(pipeline.encoder, FakeEncoder)
    return pipeline.encoder


def payload(pipeline: Pipeline, product_id: str = "p1") -> dict[str, Any]:
    point = pipeline.point(product_id)
    assert point is not None
    return dict(point.payload)


def test_a_published_product_is_a_point_with_both_vectors_and_its_payload(pipeline: Pipeline) -> None:
    pipeline.publish([product(brand="Acme", category=["Audio", "Headphones"], in_stock=True)])
    pipeline.wait_until_drained()
    point = pipeline.point("p1")
    assert point is not None
    assert point.payload["title"] == "Wireless headphones p1"
    assert point.payload["price_exact"] == "19.90"
    assert point.payload["category"] == ["Audio", "Headphones", "Audio > Headphones"] or set(
        point.payload["category"]
    ) == {"Audio", "Headphones", "Audio > Headphones"}
    expected = pipeline.recipe.lexical(product(brand="Acme", category=["Audio", "Headphones"]))
    lexical, content = point.vectors[LEXICAL], point.vectors[CONTENT]
    assert isinstance(lexical, SparseVector)
    assert lexical.indices == expected.indices
    assert len(content) == pipeline.encoder.dimension


def test_a_new_price_runs_no_encoder_and_a_new_title_runs_it_once(pipeline: Pipeline) -> None:
    encoder = encoder_of(pipeline)
    pipeline.publish([product()])
    pipeline.wait_until_drained()
    before = pipeline.point("p1")
    assert len(encoder.texts) == 1
    pipeline.publish([product(revision=2, price="5.00")])
    pipeline.wait_until_drained()
    cheaper = pipeline.point("p1")
    assert before is not None
    assert cheaper is not None
    assert len(encoder.texts) == 1
    assert cheaper.payload["price"] == 5.0
    assert cheaper.vectors == before.vectors
    pipeline.publish([product(revision=3, price="5.00", title="Garden hose, 20 m")])
    pipeline.wait_until_drained()
    renamed = pipeline.point("p1")
    assert renamed is not None
    assert len(encoder.texts) == 2
    assert renamed.vectors[CONTENT] != before.vectors[CONTENT]
    assert renamed.payload["fingerprints"] != before.payload["fingerprints"]


def test_a_deleted_product_is_a_tombstone_and_comes_back_only_when_published_anew(pipeline: Pipeline) -> None:
    pipeline.publish([product(), product("p2")])
    pipeline.wait_until_drained()
    pipeline.publish([deletion(revision=5)])
    pipeline.wait_until_drained()
    tombstone = pipeline.point("p1")
    assert tombstone is not None
    assert tombstone.payload["deleted"] is True
    assert not tombstone.vectors
    pipeline.publish([product(revision=4, title="A late event")])
    pipeline.wait_until_drained()
    assert payload(pipeline)["deleted"] is True
    pipeline.publish([product(revision=6, title="Back again")])
    pipeline.wait_until_drained()
    assert payload(pipeline)["deleted"] is False
    assert payload(pipeline)["title"] == "Back again"
    assert payload(pipeline, "p2")["deleted"] is False


def test_a_null_record_deletes_as_well(pipeline: Pipeline) -> None:
    pipeline.publish([product()])
    pipeline.send("p1", None)
    pipeline.wait_until_drained()
    point = pipeline.point("p1")
    assert point is None or point.payload["deleted"] is True
    pipeline.publish([product(revision=9)])
    pipeline.wait_until_drained()
    assert payload(pipeline)["deleted"] is False


def test_an_older_revision_changes_nothing(pipeline: Pipeline) -> None:
    pipeline.publish([product(revision=10, title="New")])
    pipeline.wait_until_drained()
    before = payload(pipeline)
    pipeline.publish([product(revision=9, title="Old")])
    pipeline.wait_until_drained()
    assert payload(pipeline) == before
