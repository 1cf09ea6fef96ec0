"""GET /v1/items/{item_id}/opinions, and queries that ask for what reviewers come to."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from schemas.errors import Transient
from schemas.opinions import AspectOpinion, ItemOpinions, KnownOpinions, OpinionsView, Quote
from tests.service.shop import Shop
from tests.service.test_api import problem

QUIET = AspectOpinion(
    aspect="noise",
    sentiment=0.6,
    count=4,
    positive=4,
    negative=0,
    tendency="good",
    evidence=[Quote(review_id="r1", text="So quiet.", sentiment=0.8)],
)
HEARD = ItemOpinions(head="opinions-1", reviews=9, aspects=[QUIET])


class Reader:
    """Implements schemas.opinions.OpinionReader."""

    def __init__(self, head: str | None, item: ItemOpinions | None) -> None:
        self._known = KnownOpinions(head, item)

    def of(self, product_id: str) -> KnownOpinions:
        """See the protocol."""
        return self._known


class AwayReader(Reader):
    """A store that does not answer."""

    def of(self, product_id: str) -> KnownOpinions:
        """Nothing comes back."""
        raise Transient("Redis did not answer within 5 s")


def opinions(shop: Shop, reader: Any) -> OpinionsView:
    with TestClient(shop.app(opinions=reader)) as client:
        response = client.get("/v1/items/s1/opinions")
    assert response.status_code == 200, response.text
    return OpinionsView.model_validate_json(response.content)


def test_an_items_opinions_are_shown_with_their_evidence(shop: Shop) -> None:
    view = opinions(shop, Reader("opinions-1", HEARD))
    assert (view.head, view.reviews, view.aspects) == ("opinions-1", 9, [QUIET])
    assert view.evidence == "1 aspects in 9 reviews"


def test_it_is_said_when_nobody_listens_or_another_head_has(shop: Shop) -> None:
    nobody = opinions(shop, Reader(None, None))
    assert nobody.head is None
    assert "simstream opinions train" in nobody.evidence
    assert "no head listens any more" in opinions(shop, Reader(None, HEARD)).evidence
    assert "by the head before opinions-2" in opinions(shop, Reader("opinions-2", HEARD)).evidence
    assert "no review" in opinions(shop, Reader("opinions-1", None)).evidence


def test_a_store_that_is_away_is_named_and_unknown_items_are_404(shop: Shop) -> None:
    for reader in (AwayReader(None, None), None):
        with TestClient(shop.app(opinions=reader)) as client:
            assert problem(client.get("/v1/items/s1/opinions"), 503)["errors"][0]["store"] == "items"
    with TestClient(shop.app(opinions=Reader(None, None))) as client:
        problem(client.get("/v1/items/nothing/opinions"), 404)


def test_a_query_may_ask_for_what_reviewers_come_to(fresh_shop: Shop) -> None:
    with TestClient(fresh_shop.app()) as client:

        def found(*terms: str) -> list[str]:
            body = {"seeds": [{"item_id": "s1"}], "filter": {"opinions": list(terms), "group": "any"}}
            response = client.post("/v1/similar", json={**body, "limit": 50})
            assert response.status_code == 200, response.text
            return [one["item_id"] for one in response.json()["items"]]

        everything = found()
        assert found("noise: good") == []
        fresh_shop.say("s5", ["fit: bad", "noise: good"])
        fresh_shop.say("s7", ["noise: good"])
        assert sorted(found("noise: good")) == ["s5", "s7"]
        assert found("noise: good", "not fit: bad") == ["s7"]
        assert set(found("not noise: good")) == set(everything) - {"s5", "s7"}
        wrong = {"seeds": [{"item_id": "s1"}], "filter": {"opinions": ["quiet"]}}
        problem(client.post("/v1/similar", json=wrong), 422)


def test_an_item_and_a_hit_say_what_reviewers_come_to(fresh_shop: Shop) -> None:
    fresh_shop.say("s5", ["fit: bad", "noise: good"])
    with TestClient(fresh_shop.app()) as client:
        assert client.get("/v1/items/s5").json()["opinions"] == ["fit: bad", "noise: good"]
        hits = client.get("/v1/items/s1/similar?limit=50&group=any").json()["items"]
    said = {hit["item_id"]: hit["item"]["opinions"] for hit in hits}
    assert said.pop("s5") == ["fit: bad", "noise: good"]
    assert said
    assert not any(said.values())
