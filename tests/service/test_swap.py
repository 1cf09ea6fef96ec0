"""A request lives in one collection, whatever the alias does meanwhile; an instance may lag behind the alias.

The second release's vectors are the first one's under a fixed rotation: whoever mixes the two gets other
scores than either. The alias moves in the middle of every request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from adapters.index_port import LIVE_ALIAS, collection_name
from schemas.api import Answer, SearchRequest, Seed, SimilarRequest
from schemas.vectors import CONTENT, DENSE_DIMENSIONS, Point, Vector, item_vectors
from service.catalogue import Catalogue
from service.query import QueryEngine
from service.settings import ServiceSettings
from service.timing import Timings
from tests.service.shop import COLLECTION, PRODUCTS, RELEASE, Shop, StaticRelease, manifest
from tests.support.fake_encoder import FakeEncoder
from tests.support.moving_alias import MovingAlias

SECOND = "r2"
SECOND_COLLECTION = collection_name(SECOND)
#: Where the second release takes each coordinate from.
ROTATION = np.random.default_rng(3).permutation(FakeEncoder().dimension)


class RotatedEncoder(FakeEncoder):
    """The same vectors, rotated."""

    def encode(
        self, texts: Sequence[str], *, query: bool = False, background: bool = False
    ) -> list[list[float]]:
        """See FakeEncoder."""
        return [rotated(vector) for vector in super().encode(texts, query=query, background=background)]


def rotated(vector: Sequence[float]) -> list[float]:
    found: list[float] = np.array(vector)[ROTATION].tolist()
    return found


@pytest.fixture
def two(fresh_shop: Shop) -> Iterator[Shop]:
    """The shop with a second release beside the live one."""
    encoder = RotatedEncoder()
    fresh_shop.releases.known[SECOND] = StaticRelease(
        encoder, fresh_shop.recipe, manifest(SECOND, encoder.dimension)
    )
    fresh_shop.index.ensure_collection(SECOND_COLLECTION, item_vectors(encoder.dimension))
    points = [fresh_shop.point(product) for product in PRODUCTS]
    fresh_shop.upsert([_rotated_point(point) for point in points], SECOND_COLLECTION)
    yield fresh_shop
    fresh_shop.index.set_alias(LIVE_ALIAS, COLLECTION)


def _rotated_point(point: Point) -> Point:
    vectors: dict[str, Vector] = {
        name: rotated(vector) if name in DENSE_DIMENSIONS else vector  # type: ignore[arg-type]
        for name, vector in point.vectors.items()
    }
    return Point(point.product_id, vectors, point.payload)


def engine(shop: Shop, index: Any) -> QueryEngine:
    catalogue = Catalogue(index=index, store=shop.store, releases=shop.releases)
    return QueryEngine(catalogue=catalogue, settings=ServiceSettings())


def wrong_scores(shop: Shop, answer: Answer, seed: list[float]) -> int:
    """Hits whose content score is not the cosine of the seed and the item in the release that is named."""
    encoder = shop.releases.loaded(answer.release_id).encoder
    products = {product.product_id: product for product in PRODUCTS}
    own = rotated(seed) if answer.release_id == SECOND else seed
    wrong = 0
    for hit in answer.items:
        (vector,) = encoder.encode([shop.recipe.content(products[hit.item_id])])
        wrong += abs(float(np.dot(own, vector)) - hit.dimensions["content"].score) > 1e-3
    return wrong


@pytest.mark.parametrize("through_alias", [False, True], ids=["as it is", "control: the alias at every call"])
def test_scores_are_those_of_one_release_while_the_alias_moves(two: Shop, through_alias: bool) -> None:
    moving = MovingAlias(two.index, (COLLECTION, SECOND_COLLECTION), through_alias=through_alias)
    asked = engine(two, moving)
    wrong = hits = 0
    named = set()
    for product in PRODUCTS:
        request = SimilarRequest(seeds=[Seed(item_id=product.product_id)], weights={"content": 1.0})
        answers = [asked.similar(request, Timings())]
        # Whichever it is now: each release begins a request.
        two.index.set_alias(LIVE_ALIAS, SECOND_COLLECTION)
        answers.append(asked.similar(request, Timings()))
        for answer in answers:
            named.add(answer.release_id)
            hits += len(answer.items)
            wrong += wrong_scores(two, answer, two.encode(product))
        two.index.set_alias(LIVE_ALIAS, COLLECTION)
    assert named == {RELEASE, SECOND}
    assert hits > 100
    if through_alias:
        assert wrong > hits / 2, "a mix of two releases has to show"
    else:
        assert wrong == 0
    print(f"{hits} hits, {wrong} off by more than 1e-3")


def test_until_its_encoder_is_loaded_an_instance_answers_from_the_collection_before(two: Shop) -> None:
    waiting = two.releases.known.pop(SECOND)
    asked = engine(two, two.index)
    search = SearchRequest(text="trail running shoe")
    assert asked.search(search, Timings()).release_id == RELEASE
    two.index.set_alias(LIVE_ALIAS, SECOND_COLLECTION)
    assert asked.search(search, Timings()).release_id == RELEASE
    by_item = SimilarRequest(seeds=[Seed(item_id="s1")])
    assert asked.similar(by_item, Timings()).release_id == RELEASE
    two.releases.known[SECOND] = waiting
    answer = asked.search(search, Timings())
    assert answer.release_id == SECOND
    assert answer.items[0].dimensions[CONTENT].score > 0.3


def test_an_instance_is_not_ready_when_it_has_neither_the_encoder_nor_a_collection_before(two: Shop) -> None:
    two.releases.known.pop(SECOND)
    two.index.set_alias(LIVE_ALIAS, SECOND_COLLECTION)
    with TestClient(two.app()) as client:
        assert client.get("/health/ready").status_code == 503
        assert client.post("/v1/search", json={"text": "shoe"}).status_code == 503
        found = client.get("/v1/items/s1/similar")  # by item it needs no encoder
        assert found.status_code == 200
        assert found.json()["release_id"] == SECOND


def test_a_collection_before_that_has_been_removed_is_not_asked(two: Shop) -> None:
    two.releases.known.pop(SECOND)
    with TestClient(two.app()) as client:
        assert client.get("/v1/items/s1/similar").json()["release_id"] == RELEASE
        two.index.set_alias(LIVE_ALIAS, SECOND_COLLECTION)
        two.index.drop_collection(COLLECTION)
        assert client.get("/v1/items/s1/similar").json()["release_id"] == SECOND
        two.index.ensure_collection(COLLECTION, item_vectors(two.encoder.dimension))
