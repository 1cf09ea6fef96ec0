"""From a record on catalog.reviews to a vector, a payload and an answer of the API, on either broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from schemas.events import ReviewPosted, ReviewRemoved
from schemas.vectors import CONTENT, REVIEWS
from service.api import create_app
from service.settings import ServiceSettings
from tests.connected.test_pipeline import encoder_of, payload, product
from tests.service.shop import StaticReleases
from tests.support.pipeline import Pipeline

NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)
BATTERY = "The battery lasts four long days without charging."
HINGE = "One hinge broke during the second careful month."


def review(review_id: str, text: str, *, rating: float = 4.0, **more: Any) -> ReviewPosted:
    fields: dict[str, Any] = {"product_id": "p1", "user_id": "shopper-1", "occurred_at": NOW, **more}
    return ReviewPosted(review_id=review_id, text=text, rating=rating, **fields)


def removal(review_id: str) -> ReviewRemoved:
    return ReviewRemoved(review_id=review_id, product_id="p1", occurred_at=NOW + timedelta(seconds=1))


@pytest.fixture
def reviewed(pipeline: Pipeline) -> Pipeline:
    """The pipeline with its third consumer."""
    pipeline.start_reviews()
    return pipeline


def client_of(pipeline: Pipeline) -> TestClient:
    """The API over the pipeline's index and state."""
    alias = pipeline.names.namespace + "items"
    pipeline.index.set_alias(alias, pipeline.collection)
    app = create_app(
        index=pipeline.index,
        store=pipeline.store,
        releases=StaticReleases(),
        settings=ServiceSettings(),
        alias=alias,
    )
    return TestClient(app)


def test_published_reviews_are_a_vector_a_rating_in_the_payload_and_an_answer(reviewed: Pipeline) -> None:
    reviewed.publish([product(), product("p2")])
    reviewed.publish([review("r1", BATTERY, rating=5), review("r2", HINGE, rating=2, helpful_votes=9)])
    reviewed.wait_until_drained()
    point = reviewed.point("p1")
    assert point is not None
    (expected,) = encoder_of(reviewed).encode([f"{HINGE} {BATTERY}"])
    assert np.allclose(np.asarray(point.vectors[REVIEWS]), np.asarray(expected), atol=1e-3)
    assert (point.payload["rating_mean"], point.payload["rating_count"]) == (3.5, 2)
    assert "hinge" not in repr(point.payload)
    assert "shopper-1" not in repr(point.payload)
    other = reviewed.point("p2")
    assert other is not None
    assert REVIEWS not in other.vectors

    with client_of(reviewed) as client:
        item = client.get("/v1/items/p1").json()
        assert item["rating"]["mean"] == 3.5
        assert item["rating"]["count"] == 2
        assert item["rating"]["histogram"] == {"0": 0, "1": 0, "2": 1, "3": 0, "4": 0, "5": 1}
        assert item["rating"]["bayesian_mean"] == pytest.approx((4.0 * 5 + 7) / 7, abs=1e-4)
        assert {"reviews", "content", "lexical", "context"} == set(item["dimensions"])
        assert client.get("/v1/items/p2").json()["rating"] is None
        hits = client.get("/v1/items/p2/similar?weights=content:1").json()["items"]
        assert hits[0]["item"]["rating"] == {"mean": 3.5, "count": 2}


def test_stars_alone_run_no_encoder_and_new_words_run_it_once(reviewed: Pipeline) -> None:
    reviewed.publish([product(), review("r1", BATTERY)])
    reviewed.wait_until_drained()
    encoder, before = encoder_of(reviewed), reviewed.point("p1")
    assert before is not None
    calls = len(encoder.texts)
    reviewed.publish([review("r2", "", rating=1)])
    reviewed.wait_until_drained()
    after = reviewed.point("p1")
    assert after is not None
    assert len(encoder.texts) == calls
    assert after.payload["rating_mean"] == 2.5
    assert after.vectors == before.vectors
    reviewed.publish([review("r3", HINGE)])
    reviewed.wait_until_drained()
    assert len(encoder.texts) == calls + 1
    assert payload(reviewed)["rating_count"] == 3


def test_a_removed_review_leaves_rating_and_vector(reviewed: Pipeline) -> None:
    reviewed.publish([product(), review("r1", BATTERY)])
    reviewed.wait_until_drained()
    assert payload(reviewed)["rating_count"] == 1
    reviewed.publish([removal("r1")])
    reviewed.publish([review("r1", BATTERY)])  # redelivered late
    reviewed.wait_until_drained()
    point = reviewed.point("p1")
    assert point is not None
    assert REVIEWS not in point.vectors
    assert CONTENT in point.vectors
    assert (point.payload["rating_mean"], point.payload["rating_count"]) == (None, 0)


def test_reviews_of_a_product_that_comes_later_wait_for_it(reviewed: Pipeline) -> None:
    reviewed.publish([review("r1", BATTERY, rating=3)])
    reviewed.wait_until_drained()
    assert reviewed.point("p1") is None
    reviewed.publish([product()])
    reviewed.wait_until_drained()
    point = reviewed.point("p1")
    assert point is not None
    assert REVIEWS in point.vectors
    assert point.payload["rating_mean"] == 3.0
