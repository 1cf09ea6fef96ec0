"""service/routes.py beyond single answers: tags, batches, pages, and a document that says what is true."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel

from schemas.api import Answer, ItemView, Page, ReleaseView
from schemas.api_bulk import BatchAnswer, Published
from schemas.api_watch import MapView, PipelineView, RecentView, ReleasesView, UpdatesView
from schemas.behaviour import Trending, Window
from schemas.events import ProductUpserted, ReviewPosted, UserEvent
from schemas.insights import RelationsView
from schemas.reports import Reported, ReportRequest
from service import examples
from service.access import Keyring
from service.keys import ApiSettings, Scope, new_key
from service.workers import has
from tests.service.shop import PRODUCTS, Shop, product
from tests.service.test_api import AwayIndex, problem
from tests.support.fake_behaviour import FakeBehaviour

# --- tags ----------------------------------------------------------------------------------------


def test_an_item_that_has_not_changed_is_not_sent_again(fresh_shop: Shop) -> None:
    with TestClient(fresh_shop.app()) as client:
        first = client.get("/v1/items/s1")
        tag = first.headers["etag"]
        again = client.get("/v1/items/s1", headers={"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        fresh_shop.publish([product("s1", "another title", revision=8)])
        changed = client.get("/v1/items/s1", headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag


def test_neighbours_have_a_tag_that_leaves_out_how_long_they_took(client: TestClient) -> None:
    first, second = (client.get("/v1/items/s1/similar") for _ in range(2))
    assert first.headers["etag"] == second.headers["etag"]
    assert first.headers["etag"].startswith('W/"')
    same = client.get("/v1/items/s1/similar", headers={"If-None-Match": first.headers["etag"]})
    assert same.status_code == 304
    assert client.get("/v1/items/s1/similar?limit=2").headers["etag"] != first.headers["etag"]


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (['"a"'], True),
        (['W/"a"'], True),
        (['"b", W/"a"'], True),
        (['"b"', '"a"'], True),
        (["*"], True),
        (['"b"'], False),
        (["a"], False),
        ([], False),
        (["", '"', ",,,"], False),
    ],
)
def test_tags_are_compared_weakly(sent: list[str], found: bool) -> None:
    assert has(sent, '"a"') is found
    assert has(sent, 'W/"a"') is found


def test_a_problem_has_no_tag_and_is_never_not_modified(client: TestClient) -> None:
    response = client.get("/v1/items/nowhere", headers={"If-None-Match": "*"})
    problem(response, 404)
    assert "etag" not in response.headers


# --- batches -------------------------------------------------------------------------------------


def test_each_query_of_a_batch_is_answered_as_if_it_had_come_alone(client: TestClient) -> None:
    queries: list[dict[str, Any]] = [
        {"seeds": [{"item_id": "s1"}], "limit": 3},
        {"seeds": [{"item_id": "nowhere"}]},
        {"seeds": [{"item_id": "c1"}, {"item_id": "s1", "weight": -0.3}], "explain": True},
        {"text": "espresso"},
        {"seeds": [{"item_id": "s1"}], "weights": {"reviews": -1, "behaviour": 1}, "limit": 1},
    ]
    batch = BatchAnswer.model_validate_json(
        client.post("/v1/similar/batch", json={"queries": queries}).content
    )
    assert len(batch.answers) == len(queries)
    for query, entry in zip(queries, batch.answers, strict=True):
        alone = client.post("/v1/similar", json=query)
        if alone.status_code == 200:
            assert entry.answer is not None
            assert entry.answer.items == Answer.model_validate_json(alone.content).items
        else:
            assert entry.problem is not None
            assert entry.problem.model_dump() == alone.json()


def test_a_batch_is_bounded_and_its_wrong_fields_are_named(client: TestClient) -> None:
    seed = {"seeds": [{"item_id": "s1"}]}
    for body, field in (
        ({"queries": []}, "queries"),
        ({"queries": [seed] * 33}, "queries"),
        ({"queries": [seed, {"seeds": []}]}, "queries.1"),
        ({}, "queries"),
    ):
        assert problem(client.post("/v1/similar/batch", json=body), 422)["errors"][0]["field"] == field


def test_a_batch_takes_of_the_rate_what_its_queries_would_and_keeps_candidates_for_admins(shop: Shop) -> None:
    key, kept = new_key("shop", frozenset({Scope.READ}))
    ring = Keyring(ApiSettings(keys=(kept.entry(),), rate_per_second=0.001, burst=10), monotonic=lambda: 0.0)
    head = {"Authorization": f"Bearer {key}"}
    with TestClient(shop.app(keyring=ring)) as client:

        def status(count: int, **more: str) -> int:
            queries = [{"seeds": [{"item_id": "s1"}], **more}] * count
            return client.post("/v1/similar/batch", json={"queries": queries}, headers=head).status_code

        assert status(1, release_id="r1") == 403
        assert [status(4), status(4), status(4)] == [200, 200, 429]


def test_a_missing_store_fails_the_batch_as_a_whole(shop: Shop, tmp_path: Any) -> None:
    index = AwayIndex(tmp_path)
    with TestClient(shop.app(index=index)) as client:
        response = client.post("/v1/similar/batch", json={"queries": [{"seeds": [{"item_id": "s1"}]}]})
        assert problem(response, 503)["errors"][0]["store"] == "index"
    index.close()


# --- pages ---------------------------------------------------------------------------------------


class Many(FakeBehaviour):
    """Every product trends, each a little less than the one before."""

    def trending(self, window: Window, *, limit: int) -> list[Trending]:
        """See the protocol."""
        rows = [Trending(event.product_id, 100.0 - place) for place, event in enumerate(PRODUCTS)]
        return rows[:limit]


def test_pages_follow_each_other_without_a_gap_or_a_repetition(shop: Shop) -> None:
    with TestClient(shop.app(behaviour=Many())) as client:
        whole = client.get("/v1/trending?limit=200").json()
        assert whole["next_offset"] is None
        walked: list[str] = []
        offset: int | None = 0
        while offset is not None:
            page = Page.model_validate_json(client.get(f"/v1/trending?limit=4&offset={offset}").content)
            assert 0 < len(page.items) <= 4
            walked += [hit.item_id for hit in page.items]
            offset = page.next_offset
        assert walked == [hit["item_id"] for hit in whole["items"]]
        assert len(walked) == len(set(walked)) > 8
        beyond = client.get("/v1/trending?offset=1000").json()
        assert (beyond["items"], beyond["next_offset"]) == ([], None)
        problem(client.get("/v1/trending?offset=-1"), 422)


# --- the document --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "value"),
    [
        (Answer, examples.ANSWER),
        (Page, examples.TRENDING),
        (BatchAnswer, examples.BATCH),
        (ItemView, examples.ITEM),
        (ReleaseView, examples.RELEASE),
        (MapView, examples.MAP),
        (PipelineView, examples.PIPELINE),
        (RecentView, examples.RECENT),
        (RelationsView, examples.RELATIONS),
        (ReportRequest, examples.REPORT),
        (Reported, examples.REPORTED),
        (ReleasesView, examples.RELEASES),
        (UpdatesView, examples.UPDATES),
        (Published, examples.PUBLISHED),
        (UserEvent, examples.EVENT),
        (ProductUpserted, examples.PRODUCT),
        (ReviewPosted, examples.REVIEW),
    ],
)
def test_an_example_is_what_its_model_says_and_nothing_more(
    model: type[BaseModel], value: dict[str, Any]
) -> None:
    shown = model.model_validate(value).model_dump(mode="json")
    assert set(value) <= set(shown)


def test_every_route_of_the_design_is_there_with_examples_and_problems(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    paths = document["paths"]
    assert set(paths) == {
        "/v1/items/{item_id}",
        "/v1/items/{item_id}/price",
        "/v1/items/{item_id}/opinions",
        "/v1/items/{item_id}/relations",
        "/v1/items/{item_id}/similar",
        "/v1/similar",
        "/v1/similar/batch",
        "/v1/search",
        "/v1/users/{user_id}/recommendations",
        "/v1/users/{user_id}/recent",
        "/v1/trending",
        "/v1/map",
        "/v1/release",
        "/v1/releases",
        "/v1/pipeline",
        "/v1/updates",
        "/v1/events",
        "/v1/products",
        "/v1/reviews",
        "/v1/reports",
        "/health/live",
        "/health/ready",
        "/metrics",
    }
    assert "type" in document["components"]["schemas"]["Problem"]["properties"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            for status, response in operation["responses"].items():
                kinds = set(response.get("content", {}))
                if int(status) >= 400:
                    assert kinds == {"application/problem+json"}, (where, status)
                    assert response["content"]["application/problem+json"]["example"]["status"] == int(status)
                elif path.startswith("/v1") and int(status) < 300:
                    kind = "text/event-stream" if path == "/v1/updates" else "application/json"
                    assert "example" in response["content"][kind], where
            if path.startswith("/v1"):
                assert {"401", "403", "422", "429", "503"} <= set(operation["responses"]), where
    for path in ("/v1/similar", "/v1/similar/batch", "/v1/search", "/v1/map", "/v1/events"):
        sent = paths[path]["post"]["requestBody"]["content"]["application/json"]
        reference = sent["schema"].get("$ref", "").rpartition("/")[2]
        assert (
            sent.get("examples")
            or sent["schema"].get("examples")
            or (document["components"]["schemas"][reference]["examples"])
        )


def test_the_document_asks_for_a_key_where_the_service_does(shop: Shop) -> None:
    _, kept = new_key("shop", frozenset({Scope.READ}))
    locked = shop.app(keyring=Keyring(ApiSettings(keys=(kept.entry(),)))).openapi()
    opened = shop.app().openapi()
    assert locked["paths"]["/v1/similar"]["post"]["security"] == [{"key": []}]
    assert "security" not in locked["paths"]["/health/ready"]["get"]
    assert "security" not in opened["paths"]["/v1/similar"]["post"]
