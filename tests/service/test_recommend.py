"""service/recommend.py over HTTP: a shopper's recommendations, what is trending, an item's figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient

from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from schemas.api import Answer, ItemView
from schemas.behaviour import ItemFigures
from schemas.vectors import BEHAVIOUR, CONTENT
from service.settings import ServiceSettings
from tests.service.shop import Shop, product
from tests.service.test_api import problem
from tests.support.fake_behaviour import FakeBehaviour, visits

WEEK = {"s3": 40.0, "gone": 30.0, "c1": 20.0, "s4": 15.0, "s5": 10.0, "s8": 5.0}
FAKE = FakeBehaviour(
    shopped={
        "runner": visits("s1", ("s5", "cart")),
        "barista": visits("c1", ("s1", "purchase")),
        "only-bought": visits(("s1", "purchase")),
        "looked-away": visits(("s1", "impression")),
        "of-the-past": visits("gone", "never"),
        "odd/id /recommendations": visits("c2"),
    },
    purchases={
        "runner": {"s3", "s4"},
        "barista": {"s1"},
        "only-bought": {"s1"},
        "kitchen-only": {"c2", "gone"},
    },
    items={
        "s1": ItemFigures(
            totals={"view": 120, "purchase": 6},
            windows={"1h": {"view": 2}, "24h": {"view": 20, "purchase": 1}},
            shoppers={"1h": 2.0, "24h": 10.0, "7d": 0.0},
            buyers={"24h": 1.0},
        )
    },
    windows={"7d": WEEK, "24h": {"c1": 4.0, "s5": 3.0}, "1h": {}},
)


@contextmanager
def serving(
    shop: Shop, behaviour: FakeBehaviour | None = FAKE, settings: ServiceSettings | None = None
) -> Iterator[TestClient]:
    with TestClient(shop.app(settings, behaviour=behaviour), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(shop: Shop) -> Iterator[TestClient]:
    with serving(shop) as client:
        yield client


def answered(client: TestClient, path: str, **parameters: Any) -> Answer:
    response = client.get(f"/v1/{path}", params=parameters)
    assert response.status_code == 200, response.text
    return Answer.model_validate_json(response.content)


def ids(answer: Answer) -> list[str]:
    return [hit.item_id for hit in answer.items]


def recommended(client: TestClient, user: str, **parameters: Any) -> Answer:
    return answered(client, f"users/{user}/recommendations", **parameters)


# --- recommendations -------------------------------------------------------------------------------


def test_a_shopper_sees_neighbours_of_recent_items_and_nothing_that_was_bought(client: TestClient) -> None:
    answer = recommended(client, "runner", group="any", limit=20)
    assert answer.notes == []
    assert {"s6", "s7", "s8"} <= set(ids(answer))
    assert set(ids(answer)).isdisjoint({"s1", "s5", "s3", "s4"})


def test_recent_items_without_what_is_weighed_are_as_good_as_none(shop: Shop) -> None:
    # Nobody touched s2: it has no vector `behaviour`.
    fake = FakeBehaviour(shopped={"u": visits("s2")}, windows={"7d": {"c1": 9.0, "s5": 3.0}})
    with serving(shop, fake) as client:
        answer = recommended(client, "u", weights="behaviour:1")
        assert ids(answer) == ["s5"]
        assert "these are trending in the categories" in answer.notes[0]
        assert len(ids(recommended(client, "u"))) > 1
    with serving(shop, fake, ServiceSettings(recommendation_weights={"behaviour": 1.0})) as client:
        assert ids(recommended(client, "u")) == ["s5"]


def test_bought_items_come_back_when_asked_for_also_those_that_recommend(client: TestClient) -> None:
    assert {"s3", "s4"} <= set(ids(recommended(client, "runner", group="any", include_bought=True, limit=20)))
    again = recommended(client, "only-bought", include_bought=True)
    assert ids(again)[0] == "s1"
    assert again.items[0].score == pytest.approx(1.0, abs=1e-3)
    assert "s1" not in ids(recommended(client, "only-bought"))


def test_the_newest_item_weighs_most_and_a_purchase_more_than_a_look(shop: Shop) -> None:
    def first(items: list[Any], **settings: Any) -> str:
        fake = FakeBehaviour(shopped={"u": visits(*items)})
        with serving(shop, fake, ServiceSettings(**settings)) as client:
            return ids(recommended(client, "u", weights="content:1"))[0]

    alike = {"event_weights": {"purchase": 1.0}}
    assert first(["c1", "s1"], **alike) == "c2"
    assert first(["s1", "c1"], **alike) != "c2"
    assert first(["s1", ("c1", "purchase")], **alike) != "c2"
    assert first(["s1", ("c1", "purchase")]) == "c2"
    # Without decay by rank, the weight of the event alone decides.
    assert first(["s1", ("c1", "share")], recent_decay=0.4) != "c2"
    assert first(["s1", ("c1", "share")], recent_decay=1.0) == "c2"


def test_as_many_recent_items_count_as_the_setting_says(shop: Shop) -> None:
    fake = FakeBehaviour(shopped={"u": visits("c1", "s1", "s5")})
    with serving(shop, fake, ServiceSettings(recent_items=1)) as client:
        assert "s1" in ids(recommended(client, "u", limit=20))


def test_each_hit_names_the_items_that_it_came_from(client: TestClient) -> None:
    answer = recommended(client, "barista", explain=True, limit=20, weights="content:1")
    seeds = {
        hit.item_id: hit.explanation.seeds[0].item_id for hit in answer.items if hit.explanation is not None
    }
    assert seeds["c2"] == "c1"
    assert seeds["s5"] == "s1"


def test_a_request_that_names_no_weights_gets_those_of_recommendations(shop: Shop) -> None:
    fake = FakeBehaviour(shopped={"u": visits("s1")})
    asked = {"recommendation_weights": {"lexical": 3.0}, "weights": {"content": 2.0}}
    with serving(shop, fake, ServiceSettings.model_validate(asked)) as client:
        for more, weighed in (({}, {"lexical": 3.0}), ({"weights": "content:1"}, {"content": 1.0})):
            for hit in recommended(client, "u", **more).items:
                assert {name: one.weight for name, one in hit.dimensions.items()} == weighed
        (first, *_) = recommended(client, "u", preset="same_product").items
        assert set(first.dimensions) == {"content", "lexical"}


def test_presets_weights_and_filters_work_as_everywhere(client: TestClient) -> None:
    answer = recommended(
        client, "barista", preset="discovery", weights="content:2,behaviour:1", category="Shoes", limit=3
    )
    assert all(hit.item.category == ["Sport", "Shoes"] for hit in answer.items)
    assert set(answer.items[0].dimensions) <= {CONTENT, BEHAVIOUR}


def test_ids_with_slashes_and_spaces_are_users_too(client: TestClient) -> None:
    answer = recommended(client, "odd%2Fid%20%2Frecommendations")
    assert answer.notes == []
    assert ids(answer)[0] == "c1"


def test_metrics_count_the_route_and_never_name_the_user(client: TestClient) -> None:
    recommended(client, "runner")
    text = client.get("/metrics").text
    assert 'route="/v1/users/{user_id}/recommendations",status="200"' in text
    assert "runner" not in text


@pytest.mark.parametrize("user", ["nobody", "looked-away", "of-the-past"])
def test_a_cold_shopper_sees_what_is_trending_and_is_told_so(client: TestClient, user: str) -> None:
    answer = recommended(client, user)
    if user == "looked-away":
        # An impression is no interest, but its category is known.
        assert ids(answer) == ["s3", "s5", "s8"]
        assert "categories of the user's earlier items" in answer.notes[0]
        return
    assert ids(answer) == ["s3", "c1", "s5", "s8"]
    assert "in the whole catalogue" in answer.notes[0]


def test_a_cold_shopper_who_bought_something_sees_its_categories_without_it(client: TestClient) -> None:
    answer = recommended(client, "kitchen-only")
    assert ids(answer) == ["c1"]
    assert "categories of the user's earlier items" in answer.notes[0]
    nothing_left = recommended(client, "kitchen-only", exclude="c1")
    assert ids(nothing_left) == ["s3", "s5", "s8"]
    assert "in the whole catalogue" in nothing_left.notes[0]


# --- trending --------------------------------------------------------------------------------------


def test_trending_items_are_scored_by_their_shoppers_over_the_most(client: TestClient) -> None:
    answer = answered(client, "trending", window="7d", group="any")
    # What has left the catalogue is not shown.
    assert ids(answer) == ["s3", "c1", "s4", "s5", "s8"]
    assert [hit.score for hit in answer.items] == [1.0, 0.5, 0.375, 0.25, 0.125]
    assert all(hit.dimensions == {} for hit in answer.items)
    assert (answer.release_id, answer.notes) == ("r1", [])


def test_trending_takes_a_day_and_collapses_variants_unless_told_otherwise(client: TestClient) -> None:
    assert ids(answered(client, "trending")) == ["c1", "s5"]
    assert ids(answered(client, "trending", window="7d")) == ["s3", "c1", "s5", "s8"]
    assert ids(answered(client, "trending", window="1h")) == []
    assert ids(answered(client, "trending", window="30d")) == []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"category": "Kitchen"}, ["c1"]),
        ({"category": ["Kitchen", "Sport > Shoes"], "limit": 2}, ["s3", "c1"]),
        ({"category": "nowhere"}, []),
        ({"in_stock": False}, ["s5"]),
        ({"limit": 1}, ["s3"]),
    ],
)
def test_trending_is_filtered_by_what_the_index_shows(
    client: TestClient, wanted: dict[str, Any], expected: list[str]
) -> None:
    assert ids(answered(client, "trending", window="7d", **wanted)) == expected


def test_trending_says_where_it_stopped_looking(shop: Shop) -> None:
    many = {f"gone-{number}": 100.0 - number for number in range(12)} | {"s1": 1.0}
    with serving(shop, FakeBehaviour(windows={"24h": many}), ServiceSettings(trending_read=10)) as client:
        answer = answered(client, "trending")
        assert (ids(answer), answer.notes) == ([], ["only the first 10 items of the window were looked at"])
    with serving(shop, FakeBehaviour(windows={"24h": many})) as client:
        assert ids(answered(client, "trending")) == ["s1"]


# --- what is wrong, and what is missing ------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("trending?window=2h", "window"),
        ("trending?limit=0", "limit"),
        ("trending?limit=201", "limit"),
        ("trending?sort=views", "sort"),
        ("trending?brand_cap=0", "brand_cap"),
        (f"trending?category={'x' * 501}", "category.0"),
        ("users/u/recommendations?limit=ten", "limit"),
        ("users/u/recommendations?preset=all", "preset"),
        ("users/u/recommendations?weights=content:x", "weights.content"),
        ("users/u/recommendations?include_bought=perhaps", "include_bought"),
        ("users/u/recommendations?bought=1", "bought"),
        (f"users/{'u' * 257}/recommendations", "user_id"),
    ],
)
def test_a_wrong_parameter_is_named(client: TestClient, path: str, field: str) -> None:
    errors = problem(client.get(f"/v1/{path}"), 422)["errors"]
    assert [error["field"] for error in errors] == [field]


@pytest.mark.parametrize("path", ["trending", "users/runner/recommendations"])
def test_without_a_behaviour_store_its_routes_say_so_and_the_others_answer(shop: Shop, path: str) -> None:
    with serving(shop, None) as client:
        refused = problem(client.get(f"/v1/{path}"), 503)
        assert refused["errors"] == [{"store": "behaviour", "message": "behaviour store is not configured"}]
        item = ItemView.model_validate_json(client.get("/v1/items/s1").content)
        assert (item.counters, item.behaviour) == ({}, None)
        assert client.get("/v1/items/s1/similar").status_code == 200


@pytest.mark.parametrize("path", ["trending", "users/runner/recommendations", "items/s1"])
def test_a_behaviour_store_that_is_away_is_named_with_a_time_to_wait(shop: Shop, path: str) -> None:
    with serving(shop, FakeBehaviour(away=True)) as client:
        response = client.get(f"/v1/{path}")
        assert problem(response, 503)["errors"][0]["store"] == "behaviour"
        assert int(response.headers["retry-after"]) >= 1


def test_neighbours_of_an_item_need_neither_item_state_nor_behaviour(shop: Shop) -> None:
    nobody = connect(RedisSettings(url="redis://127.0.0.1:1/0", timeout_seconds=0.5))
    away = FakeBehaviour(away=True)
    with TestClient(shop.app(store=ItemStore(client=nobody), behaviour=away)) as client:
        hits = Answer.model_validate_json(client.get("/v1/items/s1/similar?preset=complements").content).items
        assert hits[0].item_id == "c1"
        assert BEHAVIOUR in hits[0].dimensions
    assert away.asked == []
    nobody.close()


# --- an item's figures -----------------------------------------------------------------------------


def test_an_item_shows_what_shoppers_did_with_it(client: TestClient) -> None:
    item = ItemView.model_validate_json(client.get("/v1/items/s1").content)
    assert item.counters == {"view": 120, "purchase": 6}
    assert item.behaviour is not None
    assert item.behaviour.windows["24h"] == {"view": 20, "purchase": 1}
    assert item.behaviour.shoppers["24h"] == 10
    assert item.behaviour.conversion == {"1h": 0.0, "24h": 0.1, "7d": None}
    untouched = ItemView.model_validate_json(client.get("/v1/items/s2").content)
    assert (untouched.counters, untouched.behaviour) == ({}, None)


def test_an_item_waiting_for_its_vectors_is_no_seed_yet(fresh_shop: Shop) -> None:
    fresh_shop.write_state([product("new", "not encoded yet")])
    fake = FakeBehaviour(shopped={"u": visits("new", "c1"), "v": visits("new")}, windows={"7d": {"s1": 1.0}})
    with serving(fresh_shop, fake) as client:
        assert ids(recommended(client, "u", weights="content:1"))[0] == "c2"
        assert ids(recommended(client, "v")) == ["s1"]
