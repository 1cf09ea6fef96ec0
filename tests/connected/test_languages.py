"""A shop that sells in Chinese and in English: one catalogue, one encoder, asked in either by its words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from adapters.index_edge import EdgeIndex
from adapters.index_port import release_of
from adapters.releases import ReleaseSettings, ReleaseStore
from app.local import LocalRedis, TansuBroker
from model.release import first_release, load_release
from model.settings import ModelSettings
from schemas.events import ProductUpserted
from service.api import create_app
from service.settings import ServiceSettings
from tests.service.shop import StaticReleases, product
from tests.support.draining import quick_settings
from tests.support.pipeline import Pipeline
from tests.support.tiny_multilingual import write_tiny_multilingual

WORDS = "weights=lexical:1"
CATALOGUE: list[ProductUpserted] = [
    product("zh1", "越野跑鞋 男款 红色", category=["鞋靴", "跑鞋"], brand="踏云", language="zh"),
    product("zh2", "女士越野跑鞋透气轻便黑色", category=["鞋靴", "跑鞋"], brand="踏云", language="zh"),
    product("zh3", "黄铜台灯 护眼", category=["家居", "灯具"], language="zh"),
    product("zh4", "透明手机壳 防摔", category=["数码", "手机配件"], language="zh"),
    product("zh5", "Norda 001 越野跑鞋 白色", category=["鞋靴", "跑鞋"], brand="Norda", language="zh"),
    product("en1", "Trail running shoe red", category=["Shoes", "Running"], brand="Norda", language="en"),
    product("en2", "Women's trail running shoe, light", category=["Shoes", "Running"], language="en"),
    product("en3", "Brass desk lamp", category=["Home", "Lamps"], language="en"),
    product("en4", "Clear phone case", category=["Phones", "Cases"], language="en"),
    product("en5", "Norda 001 trail shoe white", category=["Shoes", "Running"], brand="Norda", language="en"),
]


@pytest.fixture(scope="module")
def client(
    tansu: TansuBroker, redis_server: LocalRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """The API over the catalogue, published to the embedded stack's broker, Redis and index."""
    folder = tmp_path_factory.mktemp("languages")
    settings = ModelSettings(
        name=str(write_tiny_multilingual(folder / "multilingual-e5-small")), device="cpu", engine="torch"
    )
    releases = ReleaseStore(ReleaseSettings(url=str(folder / "releases")))
    manifest = first_release(settings, releases, created_at=datetime(2026, 11, 26, tzinfo=UTC))
    release = load_release(releases, manifest.release_id, settings)
    index = EdgeIndex(Path(folder / "index"))
    with Pipeline(
        kafka=quick_settings(tansu),
        redis_url=redis_server.url,
        namespace="languages.",
        index=index,
        encoder=release.encoder,
        recipe=release.recipe,
    ) as pipeline:
        pipeline.publish(CATALOGUE)
        pipeline.wait_until_drained()
        alias = pipeline.names.namespace + "items"
        index.set_alias(alias, pipeline.collection)
        known = StaticReleases({release_of(pipeline.collection): release})  # type: ignore[dict-item]
        app = create_app(
            index=index, store=pipeline.store, releases=known, settings=ServiceSettings(), alias=alias
        )
        with TestClient(app) as running:
            yield running
    index.close()
    release.encoder.close()


def ids(client: TestClient, query: str) -> list[str]:
    response = client.get(query)
    assert response.status_code == 200, response.text
    return [hit["item_id"] for hit in response.json()["items"]]


def searched(client: TestClient, text: str, **weights: float) -> list[str]:
    body = {"text": text, "limit": 10, "weights": weights or {"lexical": 1}, "filter": {"min_score": 0.05}}
    response = client.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    return [hit["item_id"] for hit in response.json()["items"]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("越野跑鞋", {"zh1", "zh2", "zh5"}),
        # A word inside a run without spaces, and its characters in another order of words.
        ("透气跑鞋", {"zh2"}),
        ("手机壳", {"zh4"}),
        ("trail running shoe", {"en1", "en2", "en5"}),
        ("desk lamp", {"en3"}),
    ],
)
def test_words_of_either_language_find_what_is_written_in_it(
    client: TestClient, text: str, found: set[str]
) -> None:
    hits = searched(client, text)
    assert set(hits[: len(found)]) == found
    # Some ten other items share no character with it: nothing of the other language is among the hits.
    assert {hit[:2] for hit in hits} == {next(iter(found))[:2]}


def test_a_model_number_finds_both_languages(client: TestClient) -> None:
    assert set(searched(client, "Norda 001")[:2]) == {"zh5", "en5"}


def test_neighbours_of_an_item_speak_its_language_first_and_say_which_words_they_share(
    client: TestClient,
) -> None:
    assert set(ids(client, f"/v1/items/zh1/similar?{WORDS}&limit=2")) == {"zh2", "zh5"}
    assert set(ids(client, f"/v1/items/en1/similar?{WORDS}&limit=2")) == {"en2", "en5"}
    answer = client.get(f"/v1/items/zh1/similar?{WORDS}&limit=3&explain=true").json()
    terms = {hit["item_id"]: hit["explanation"]["shared"]["terms"] for hit in answer["items"]}
    assert "越野跑鞋" in terms["zh2"]
    assert "越野跑鞋" in terms["zh5"]


def test_a_filter_by_category_or_brand_in_chinese_holds(client: TestClient) -> None:
    assert set(ids(client, "/v1/items/en1/similar?category=鞋靴&limit=10")) == {"zh1", "zh2", "zh5"}
    assert set(ids(client, "/v1/items/zh1/similar?brand=踏云&limit=10")) == {"zh2"}


def test_every_item_has_a_vector_of_the_one_encoder(client: TestClient) -> None:
    for item in CATALOGUE:
        shown = client.get(f"/v1/items/{item.product_id}").json()
        assert {"content", "lexical"} <= set(shown["dimensions"])
    assert len(searched(client, "红色 shoe", content=1)) >= 5
