"""Pictures from a web server to a vector and an answer, through a broker, Redis, an index and a tiny CLIP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from fastapi.testclient import TestClient

from adapters.index_edge import EdgeIndex
from adapters.picture_fetch import Fetcher, FetchSettings, is_public
from adapters.pictures import PictureReader, PictureSettings
from app.local import LocalRedis, TansuBroker
from consumers.embeddings import EmbeddingsHandler, EmbeddingsSettings
from consumers.pictures import ImageSettings, Marks, Pictures
from model.image_encoder import load_image_encoder
from model.settings import ModelSettings
from schemas.events import ItemChanged, ProductUpserted
from schemas.vectors import CONTENT, IMAGE, item_vectors
from service.api import create_app
from service.settings import ServiceSettings
from tests.service.shop import NOW, StaticReleases, product
from tests.support.draining import quick_settings
from tests.support.fake_encoder import FakeEncoder
from tests.support.pictures import IMAGE_DIMENSION, PictureServer, picture_server, png, write_tiny_clip
from tests.support.pipeline import Pipeline

RED, DARK_RED, BLUE = (220, 20, 20), (190, 20, 20), (20, 20, 220)


@pytest.fixture(scope="module")
def server() -> Iterator[PictureServer]:
    with picture_server() as running:
        running.pages |= {"/red": png(RED), "/dark": png(DARK_RED), "/blue": png(BLUE), "/text.png": b"hello"}
        yield running


@pytest.fixture(scope="module")
def pipeline(
    tansu: TansuBroker,
    redis_server: LocalRedis,
    server: PictureServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pipeline]:
    """Products and embeddings with pictures on, allowed to ask this machine's loopback."""
    folder = tmp_path_factory.mktemp("images")
    index = EdgeIndex(folder / "index")
    clip = write_tiny_clip(folder / "clip")
    made = Pipeline(
        kafka=quick_settings(tansu),
        redis_url=redis_server.url,
        namespace="images.",
        index=index,
    )
    index.drop_collection(made.collection)  # the pipeline's own has no pictures
    index.ensure_collection(made.collection, item_vectors(made.encoder.dimension, IMAGE_DIMENSION))

    def announce(product_id: str) -> None:
        hint = ItemChanged(product_id=product_id, dimensions=[IMAGE], occurred_at=NOW)
        topic = made.topics.changed_bulk.name
        made.publisher.send(topic, key=product_id, value=hint.model_dump_json().encode())

    fetcher = Fetcher(
        FetchSettings(ports=(80, 443, server.port), seconds=60.0),
        public=lambda address: address == "127.0.0.1" or is_public(address),
    )
    pictures = Pictures(
        marks=Marks("tiny"),
        reader=PictureReader(fetcher, PictureSettings()),
        encoder=load_image_encoder(str(clip), ModelSettings(device="cpu")),
        announce=announce,
        settings=ImageSettings(attempts=2, pause_seconds=0.05),
    )
    handler = EmbeddingsHandler(
        store=made.store,
        index=index,
        collection=made.collection,
        encoder=made.encoder,
        recipe=made.recipe,
        publisher=made.publisher,
        topics=made.topics,
        settings=EmbeddingsSettings(),
        pictures=pictures,
    )
    made.start_products()
    made.start_embeddings(handler)
    yield made
    made.stop()
    index.close()


def until_marked(pipeline: Pipeline, name: str, holds: Callable[[str | None], bool]) -> str | None:
    deadline = time.monotonic() + 60.0
    while True:
        pipeline.check()
        point = pipeline.point(name)
        mark = (point.payload.get("fingerprints") or {}).get(IMAGE) if point is not None else None
        if point is not None and holds(mark):
            return str(mark)
        assert time.monotonic() < deadline, f"{name}: {mark}"
        time.sleep(0.02)


def shown(name: str, url: str | None, revision: int = 1) -> ProductUpserted:
    return product(name, f"Lamp {name}", image_url=url, revision=revision)


def refused(reason: str, mark: str | None) -> bool:
    return mark is not None and mark.endswith(f":{reason}")


def marked(mark: str | None) -> bool:
    return mark is not None and ":" not in mark


def test_pictures_become_vectors_and_what_has_none_is_renormalised(
    pipeline: Pipeline, server: PictureServer
) -> None:
    pipeline.publish(
        [
            shown("red", server.url("/red")),
            shown("dark", server.url("/dark")),
            shown("blue", server.url("/blue")),
            shown("none", None),
            shown("gone", server.url("/404")),
            shown("text", server.url("/text.png")),
            # The test's allowance is for loopback alone.
            shown("inside", "http://169.254.169.254/latest/meta-data/"),
        ]
    )
    for name in ("red", "dark", "blue"):
        until_marked(pipeline, name, marked)
    for name, reason in (("gone", "status"), ("text", "kind"), ("inside", "address")):
        until_marked(pipeline, name, partial(refused, reason))
    alias = pipeline.names.namespace + "items"
    pipeline.index.set_alias(alias, pipeline.collection)
    app = create_app(
        index=pipeline.index,
        store=pipeline.store,
        releases=StaticReleases(),
        settings=ServiceSettings(),
        alias=alias,
    )
    with TestClient(app) as client:
        hits = client.get("/v1/items/red/similar?weights=image:1").json()["items"]
        # The two that have a picture, the like one first, its score the dimension's own.
        assert [hit["item_id"] for hit in hits[:2]] == ["dark", "blue"]
        assert hits[0]["score"] == pytest.approx(hits[0]["dimensions"]["image"]["score"], abs=1e-6)
        assert not any("image" in hit["dimensions"] for hit in hits[2:])
        mixed = client.get("/v1/items/red/similar?weights=image:1,content:1&limit=9").json()["items"]
        by_id = {hit["item_id"]: hit for hit in mixed}
        assert set(by_id["none"]["dimensions"]) == {"content"}
        assert by_id["none"]["score"] == pytest.approx(
            by_id["none"]["dimensions"]["content"]["score"], abs=1e-6
        )
        assert set(by_id["dark"]["dimensions"]) == {"content", "image"}
        # By default a picture weighs nothing, and a refused one is no dimension.
        plain = client.get("/v1/items/red/similar").json()["items"]
        assert not any("image" in hit["dimensions"] for hit in plain)
        assert "image" in client.get("/v1/items/red").json()["dimensions"]
        assert "image" not in client.get("/v1/items/text").json()["dimensions"]


def test_another_picture_replaces_the_first_and_a_price_fetches_nothing(
    pipeline: Pipeline, server: PictureServer
) -> None:
    pipeline.publish([shown("swap", server.url("/red"))])
    first = until_marked(pipeline, "swap", marked)
    asked, encoder = len(server.asked), pipeline.encoder
    assert isinstance(encoder, FakeEncoder)
    texts = len(encoder.texts)
    cheaper = product("swap", "Lamp swap", image_url=server.url("/red"), price="3.00", revision=2)
    pipeline.publish([cheaper])
    pipeline.wait_until_drained()
    assert (len(server.asked), len(encoder.texts)) == (asked, texts)
    before = pipeline.point("swap")
    assert before is not None
    assert IMAGE in before.vectors
    pipeline.publish([shown("swap", server.url("/blue"), revision=3)])
    until_marked(pipeline, "swap", lambda mark: marked(mark) and mark != first)
    after = pipeline.point("swap")
    assert after is not None
    assert after.vectors[IMAGE] != before.vectors[IMAGE]
    assert after.vectors[CONTENT] == before.vectors[CONTENT]
    pipeline.publish([shown("swap", None, revision=4)])
    until_marked(pipeline, "swap", lambda mark: mark is None)
    bare = pipeline.point("swap")
    assert bare is not None
    assert IMAGE not in bare.vectors


def test_a_picture_that_was_lost_with_its_process_is_found_by_reconcile(
    pipeline: Pipeline, server: PictureServer
) -> None:
    marks = Marks("tiny")
    pipeline.publish([shown("lost", server.url("/red"))])
    until_marked(pipeline, "lost", marked)
    assert pipeline.reconciler(picture_mark=marks.of).run().announced == 0
    # As it is when a process ended between the item's first vectors and its picture.
    point = pipeline.point("lost")
    assert point is not None
    bare = {name: mark for name, mark in point.payload["fingerprints"].items() if name != IMAGE}
    vectors = {name: vector for name, vector in point.vectors.items() if name != IMAGE}
    pipeline.index.upsert(
        pipeline.collection,
        [type(point)("lost", vectors, {**point.payload, "fingerprints": bare})],
        ticket=pipeline.store.draw_ticket(),
    )
    assert pipeline.reconciler().run().announced == 0  # who knows nothing of pictures misses none
    assert pipeline.reconciler(picture_mark=marks.of).run().outdated == 1
    until_marked(pipeline, "lost", marked)
