"""service/api.py over HTTP: routes, odd ids, bad input, missing stores, metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.index_edge import EdgeIndex
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from adapters.redis_reviews import ReviewStore, ReviewWrite
from app.local import LocalRedis
from schemas.api import Answer, ItemView
from schemas.errors import Transient
from service.settings import ServiceSettings
from tests.service.shop import Shop, StaticReleases, product

ODD = "odd/ü<b>&/similar"
JSON = {"Content-Type": "application/json"}


def problem(response: Any, status: int) -> dict[str, Any]:
    """The response as a problem of that status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


def test_the_short_form_answers_as_the_long_one(client: TestClient) -> None:
    short = client.get(
        "/v1/items/s1/similar?limit=3&weights=content:1,lexical:2&explain=true&brand_cap=1&category=Shoes"
    )
    long = client.post(
        "/v1/similar",
        json={
            "seeds": [{"item_id": "s1"}],
            "limit": 3,
            "weights": {"content": 1, "lexical": 2},
            "explain": True,
            "filter": {"brand_cap": 1, "category": ["Shoes"]},
        },
    )
    assert short.status_code == long.status_code == 200
    answers = [Answer.model_validate_json(response.content) for response in (short, long)]
    assert answers[0].items == answers[1].items
    assert len(answers[0].items) == 3


def test_a_preset_fills_in_what_the_short_form_leaves_out(client: TestClient) -> None:
    def ids(query: str) -> set[str]:
        response = client.get(f"/v1/items/s1/similar?limit=20&{query}")
        return {hit["item_id"] for hit in response.json()["items"]}

    assert "s2" not in ids("")
    assert "s2" in ids("preset=same_product")
    assert "s2" not in ids("preset=same_product&group=collapse")


def test_an_answer_says_where_its_time_went(client: TestClient) -> None:
    response = client.get("/v1/items/s1/similar")
    spans = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    assert 0 < float(spans["index"]) <= float(spans["total"])
    assert response.json()["took_ms"] > 0
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_search_finds_what_its_words_say(client: TestClient) -> None:
    found = client.post("/v1/search", json={"text": "espresso", "limit": 2}).json()
    assert {hit["item_id"] for hit in found["items"]} == {"c1", "c2"}
    assert found["release_id"] == "r1"


def test_an_item_shows_its_state_and_what_queries_see(client: TestClient) -> None:
    item = ItemView.model_validate_json(client.get("/v1/items/s6").content)
    assert (item.revision, item.indexed_revision, item.price) == (7, 7, "210")
    assert item.attributes == {"Colour": "Blue"}
    assert set(item.dimensions) == {"content", "lexical", "context"}


def test_an_item_shows_its_rating_with_the_prior_of_the_settings(
    fresh_shop: Shop, redis_server: LocalRedis, namespace: str
) -> None:
    with connect(RedisSettings(url=redis_server.url)) as opened:
        reviews = ReviewStore(client=opened, namespace=namespace)
        for number, rating in enumerate((5.0, 4.4, None)):
            reviews.apply([ReviewWrite("s6", f"r{number}", 1, 1, bytes(8), 0, rating=rating)])
    settings = ServiceSettings.model_validate({"rating_prior": {"mean": 3.0, "count": 2}})
    with TestClient(fresh_shop.app(settings)) as client:
        assert client.get("/v1/items/s6").json()["rating"] == {
            "mean": 4.7,
            "count": 2,
            "histogram": {"0": 0, "1": 0, "2": 0, "3": 0, "4": 1, "5": 1},
            "bayesian_mean": 3.85,
        }
        assert client.get("/v1/items/s1").json()["rating"] is None


def test_an_item_that_waits_for_its_vectors_has_no_dimension_yet(fresh_shop: Shop) -> None:
    fresh_shop.write_state([product("new", "not encoded yet")])
    with TestClient(fresh_shop.app()) as client:
        item = client.get("/v1/items/new").json()
        assert (item["title"], item["dimensions"], item["indexed_revision"]) == ("not encoded yet", {}, None)
        refused = client.get("/v1/items/new/similar")
        problem(refused, 409)
        assert int(refused.headers["retry-after"]) >= 1


def test_a_deleted_item_is_gone_and_an_unknown_one_is_not_found(fresh_shop: Shop) -> None:
    gone = product("s1", "gone", revision=8)
    fresh_shop.write_state([gone], deleted=True)
    fresh_shop.upsert([fresh_shop.tombstone("s1")])
    with TestClient(fresh_shop.app()) as client:
        for path in ("/v1/items/s1", "/v1/items/s1/similar"):
            problem(client.get(path), 410)
        for path in ("/v1/items/nowhere", "/v1/items/nowhere/similar"):
            problem(client.get(path), 404)


@pytest.mark.parametrize(
    "path", [quote(ODD, safe=""), quote(ODD, safe="/").replace("/similar", "%2Fsimilar")]
)
def test_ids_with_slashes_markup_and_unicode_work(client: TestClient, path: str) -> None:
    assert client.get(f"/v1/items/{path}").json()["item_id"] == ODD
    assert client.get(f"/v1/items/{path}/similar").json()["items"]


@pytest.mark.parametrize(
    "item_id", ["<script>alert(1)</script>", "a\x00b", "\u202eevil", "x" * 256, "\n", "."]
)
def test_an_unknown_id_comes_back_only_escaped(client: TestClient, item_id: str) -> None:
    response = client.get(f"/v1/items/{quote(item_id, safe='').replace('.', '%2E')}/similar")
    problem(response, 404)
    assert b"<" not in response.content
    assert response.content.isascii()


@pytest.mark.parametrize("odd", ["a%0Ab", "%0A", "a%0D%0A", "a%E2%80%A8"])
def test_an_id_with_an_end_of_line_is_an_id_like_any_other(client: TestClient, odd: str) -> None:
    for route in ("", "/similar", "/price", "/relations", "/opinions"):
        said = problem(client.get(f"/v1/items/{odd}{route}"), 404)
        assert said["detail"] != "Not Found", "the router has not found the route"
    # This service knows no shoppers, and says so where the route is found.
    problem(client.get(f"/v1/users/{odd}/recent"), 503)


@pytest.mark.parametrize("odd", ["odd", "a%0Ab"])
def test_an_id_that_ends_as_a_route_does_is_told_from_it_by_the_path_as_it_was_sent(
    fresh_shop: Shop, odd: str
) -> None:
    endings = ("similar", "price", "relations", "opinions")
    ids = {ending: f"{unquote(odd)}/{ending}" for ending in endings}
    fresh_shop.publish([product(item_id, "Leather boot") for item_id in ids.values()])
    with TestClient(fresh_shop.app()) as client:
        for ending, item_id in ids.items():
            assert client.get(f"/v1/items/{odd}%2F{ending}").json()["item_id"] == item_id
            problem(client.get(f"/v1/items/{odd}/{ending}"), 404)  # of an item "odd", which there is not
            of_it = client.get(f"/v1/items/{odd}%2F{ending}/{ending}")
            assert of_it.status_code == (503 if ending == "opinions" else 200), "nobody keeps opinions here"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=ten", "limit"),
        ("limt=5", "limt"),
        ("weights=content:x", "weights.content"),
        ("weights=content:nan", "weights.content"),
        ("weights=nothing:1", "weights.nothing"),
        ("weights=content:-1", "weights"),
        ("brand_cap=0", "filter.brand_cap"),
        ("group=all", "group"),
        ("min_score=inf", "filter.min_score"),
        ("preset=complement", "preset"),
        ("diversity=1.5", "diversity"),
        ("freshness=-0.1", "freshness"),
        ("same_category=2", "same_category"),
    ],
)
def test_a_wrong_parameter_is_named(client: TestClient, query: str, field: str) -> None:
    errors = problem(client.get(f"/v1/items/s1/similar?{query}"), 422)["errors"]
    assert [error["field"] for error in errors] == [field]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ({"seeds": []}, ""),
        ({"seeds": [{"item_id": "s1", "item": {"title": "x"}}]}, "seeds.0"),
        ({"seeds": [{"item_id": "s1", "weight": -1}]}, ""),
        ({"seeds": [{"item_id": "x" * 257}]}, "seeds.0.item_id"),
        ({"seeds": [{"item": {"title": " "}}]}, "seeds.0.item.title"),
        ({"seeds": [{"item": {"title": "x", "price": "NaN"}}]}, "seeds.0.item.price"),
        ({"seeds": [{"item_id": "s1"}], "limit": 201}, "limit"),
        ({"seeds": [{"item_id": "s1"}], "limit": 10**30}, "limit"),
        ({"seeds": [{"item_id": "s1"}], "filter": {"colour": "red"}}, "filter.colour"),
        ({"seeds": [{"item_id": "s1"}], "filter": {"price": {"min": 1}}}, "filter.price.currency"),
        ({"seeds": [{"item_id": "s1"}] * 51}, "seeds"),
        ({"seeds": [{"item_id": "s1"}], "preset": "cheaper"}, "preset"),
        ({"seeds": [{"item_id": "s1"}], "diversity": "much"}, "diversity"),
        ({"seeds": [{"item_id": "s1", "occurred_at": "2026-11-24T08:00:00"}]}, "seeds.0.occurred_at"),
        ({"seeds": [{"item_id": "s1"}], "half_life_seconds": 0}, "half_life_seconds"),
    ],
)
def test_a_wrong_field_is_named(client: TestClient, body: dict[str, Any], field: str) -> None:
    errors = problem(client.post("/v1/similar", json=body), 422)["errors"]
    assert [error["field"] for error in errors] == [field]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b'{"text": "\\ud800"}',
        b'{"text": NaN}',
        b'{"text": "a", "limit": 1e999}',
        b'{"\\ud800": 1}',
        b"[" * 100_000,
        b'{"text": ' + b'{"a":' * 900 + b"1" + b"}" * 901,
    ],
)
def test_a_body_that_is_no_request_is_refused_with_its_reason(client: TestClient, body: bytes) -> None:
    for path in ("/v1/similar", "/v1/search"):
        problem(client.post(path, content=body, headers=JSON), 422)


def test_a_body_that_does_not_say_it_is_json_is_told_so(client: TestClient) -> None:
    refused = problem(
        client.post("/v1/search", content=b'{"text": "shoe"}', headers={"Content-Type": "text/plain"}), 422
    )
    assert "application/json" in refused["detail"]


def test_nul_and_other_odd_text_is_searched_like_any_other(client: TestClient) -> None:
    for text in ("a\x00b", "\u202e", "🙂", "x" * 2_000, "' OR 1=1 --"):
        assert client.post("/v1/search", json={"text": text}).status_code == 200


def test_a_body_over_the_limit_is_refused_also_when_it_comes_in_chunks(shop: Shop) -> None:
    with TestClient(shop.app(ServiceSettings(max_body_bytes=2_000))) as client:
        body = json.dumps({"text": "x" * 1_500}).encode()
        assert client.post("/v1/search", content=body, headers=JSON).status_code == 200

        def chunks() -> Iterator[bytes]:
            yield from (b" " * 100 for _ in range(100))

        problem(client.post("/v1/search", content=b" " * 2_001, headers=JSON), 413)
        problem(client.post("/v1/search", content=chunks(), headers=JSON), 413)


def test_routes_that_do_not_exist_and_wrong_methods_are_problems_too(client: TestClient) -> None:
    problem(client.get("/v1/nothing"), 404)
    assert "POST" in client.get("/v1/search").headers["allow"]
    problem(client.get("/v1/search"), 405)


def test_the_release_says_what_it_runs_as(client: TestClient) -> None:
    release = client.get("/v1/release").json()
    assert (release["release_id"], release["model"], release["dimension"]) == ("r1", "fake", 32)
    assert (release["collection"], release["points"]) == ("items__r1__1", 13)


def test_metrics_count_answers_by_route_and_never_by_item(client: TestClient) -> None:
    client.get("/v1/items/some-private-id")
    text = client.get("/metrics").text
    assert 'simstream_http_requests_total{route="/v1/items/{item_id}",status="404"}' in text
    assert "some-private-id" not in text


def test_the_api_describes_itself(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    similar = document["paths"]["/v1/similar"]["post"]
    assert "503" in similar["responses"]
    assert document["components"]["schemas"]["SimilarRequest"]["examples"]
    assert client.get("/docs").status_code == 200


class AwayIndex(EdgeIndex):
    """An index whose engine does not answer."""

    def resolve(self, alias: str) -> str | None:
        """Nothing comes back."""
        raise Transient("the engine did not answer within 10 s")


def test_a_missing_index_is_named_and_comes_with_a_time_to_wait(shop: Shop, tmp_path: Path) -> None:
    index = AwayIndex(tmp_path)
    with TestClient(shop.app(index=index)) as client:
        for response in (
            client.get("/v1/items/s1/similar"),
            client.post("/v1/search", json={"text": "shoe"}),
            client.get("/v1/release"),
            client.get("/health/ready"),
        ):
            assert problem(response, 503)["errors"][0]["store"] == "index"
            assert int(response.headers["retry-after"]) >= 1
        assert client.get("/health/live").status_code == 200
    index.close()


def test_without_item_state_neighbours_of_items_are_answered_all_the_same(shop: Shop) -> None:
    with TestClient(shop.app()) as client:
        well = client.get("/v1/items/s1/similar").json()
        same = [hit["item_id"] for hit in well["items"]]
        assert well["notes"] == []
    nobody = connect(RedisSettings(url="redis://127.0.0.1:1/0", timeout_seconds=0.5))
    with TestClient(shop.app(store=ItemStore(client=nobody))) as client:
        # The first answer comes from before anybody knew; the next ones say what they miss.
        until = time.monotonic() + 10.0
        while not (answer := client.get("/v1/items/s1/similar")).json()["notes"]:
            assert answer.status_code == 200
            assert time.monotonic() < until, "no answer says that item state is away"
        assert "item state (Redis)" in answer.json()["notes"][0]
        assert [hit["item_id"] for hit in answer.json()["items"]] == same
        batch = client.post("/v1/similar/batch", json={"queries": [{"seeds": [{"item_id": "s1"}]}]}).json()
        assert batch["answers"][0]["answer"]["notes"] == answer.json()["notes"]
        assert problem(client.get("/v1/items/s1"), 503)["errors"][0]["store"] == "items"
        ready = client.get("/health/ready")
        assert ready.status_code == 200
        assert ready.json()["status"] == "degraded"
        assert [each["store"] for each in ready.json()["missing"]] == ["items"]
    nobody.close()


def test_without_the_encoder_texts_wait_and_the_process_is_not_ready(shop: Shop, client: TestClient) -> None:
    assert client.get("/health/ready").json() == {"status": "ready", "missing": []}
    with TestClient(shop.app(releases=StaticReleases())) as bare:
        assert bare.get("/v1/items/s1/similar").status_code == 200
        assert problem(bare.post("/v1/search", json={"text": "x"}), 503)["errors"][0]["store"] == "encoder"
        assert problem(bare.get("/health/ready"), 503)["errors"][0]["store"] == "encoder"


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = (
    "seeds",
    "text",
    "weights",
    "filter",
    "limit",
    "explain",
    "release_id",
    "preset",
    "diversity",
    "freshness",
    "same_category",
    "half_life_seconds",
    "occurred_at",
    "group",
    "item",
    "item_id",
    "title",
    "price",
)
_LIKELY = st.recursive(
    _LEAVES | st.sampled_from(["s1", "c1", "EUR", "discovery", "any", "2026-11-24T08:00:00Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=5),
    max_leaves=15,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=_JSON | st.dictionaries(st.sampled_from(_FIELDS), _LIKELY, max_size=5),
    path=st.sampled_from(("similar", "search")),
)
def test_no_json_makes_the_service_fail(client: TestClient, body: Any, path: str) -> None:
    content = json.dumps(body, ensure_ascii=True).encode("ascii")
    response = client.post(f"/v1/{path}", content=content, headers=JSON)
    assert response.status_code < 500, response.text
