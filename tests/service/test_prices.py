"""GET /v1/items/{item_id}/price: a price among its comparables, the evidence, and what cannot be said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from schemas.errors import Transient
from schemas.insights import PriceView
from service.catalogue import Catalogue
from service.prices import Prices, PriceSettings
from service.rulebook import RuleBook, RuleSettings
from service.settings import ServiceSettings
from tests.service.shop import NOW, Shop, product
from tests.service.test_api import AwayIndex, problem

LAMPS = 12


def lamp(number: int, price: str, **fields: Any) -> Any:
    about = {"category": ["Home", "Lamps"], "currency": "EUR", "brand": "Lumen", **fields}
    return product(f"lamp{number}", f"Desk lamp of brass, model {number}", price=price, **about)


@pytest.fixture
def lamps(fresh_shop: Shop) -> Shop:
    """Twelve lamps for about 40 EUR, one for 160, a pack of six, one in dollars, two without comparison."""
    usual = [lamp(number, str(36 + number)) for number in range(LAMPS)]
    fresh_shop.publish(
        [
            *usual,
            lamp(20, "160"),
            lamp(21, "230", attributes={"pack size": "6"}),
            lamp(22, "40", currency="USD"),
            lamp(23, "160", category=["Office", "Lamps"]),
            product("free", "Desk lamp of brass, for nothing", category=["Home", "Lamps"]),
        ]
    )
    return fresh_shop


def price(client: TestClient, item: str) -> PriceView:
    response = client.get(f"/v1/items/{item}/price")
    assert response.status_code == 200, response.text
    return PriceView.model_validate_json(response.content)


def test_a_price_out_of_line_is_named_with_its_evidence(lamps: Shop) -> None:
    with TestClient(lamps.app()) as client:
        found = price(client, "lamp20")
    assert found.outlier
    assert found.ratio == pytest.approx(3.9, abs=0.2)
    assert found.position == 1.0
    assert found.basis == "same pack, same condition"
    assert found.band is not None
    assert (found.band.items, found.band.currency) == (LAMPS, "EUR")
    assert 36 <= found.band.low < found.band.median < found.band.high <= 48
    assert f"what {LAMPS} comparable items cost" in found.evidence
    assert "above" in found.evidence
    # Neither the dollars, nor the other shelf, nor the pack, nor the shoes.
    assert {one.item_id for one in found.comparables} <= {f"lamp{number}" for number in range(LAMPS)}
    near = [one.similarity for one in found.comparables]
    assert near == sorted(near, reverse=True)


def test_a_usual_price_and_a_pack_that_only_looks_dear_are_not(lamps: Shop) -> None:
    with TestClient(lamps.app()) as client:
        usual, pack = price(client, "lamp5"), price(client, "lamp21")
        assert not usual.outlier
        assert usual.position is not None
        assert 0.3 < usual.position < 0.6
        assert (pack.pack, pack.outlier, pack.basis) == (6, False, "unit price, same condition")
        assert "for a pack of 6" in pack.evidence
    with TestClient(lamps.app()) as client:
        lamps.publish([lamp(21, "230")])
        assert price(client, "lamp21").outlier


@pytest.mark.parametrize(
    ("item", "said"),
    [("free", "no price"), ("lamp22", "0 comparable items have a price"), ("c1", "no price")],
)
def test_what_cannot_be_said_is_null_and_says_why(lamps: Shop, item: str, said: str) -> None:
    with TestClient(lamps.app()) as client:
        found = price(client, item)
    assert said in found.evidence
    assert (found.outlier, found.score, found.band, found.comparables) == (False, None, None, [])


def test_settings_say_when_a_price_is_out_of_line(lamps: Shop) -> None:
    strict = PriceSettings(score=100.0)
    many = PriceSettings(least=LAMPS + 2)
    for settings, judged in ((strict, True), (many, False)):
        with TestClient(lamps.app(prices=settings)) as client:
            found = price(client, "lamp20")
            assert not found.outlier
            assert (found.band is not None) is judged


def test_the_shop_s_rules_make_nothing_comparable(lamps: Shop, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("blocked: {words: [lamp]}\nalways_similar: [{items: [lamp20, s6]}]")
    with TestClient(lamps.app(rules=RuleBook(RuleSettings(file=path)))) as client:
        assert client.get("/v1/items/lamp20/similar?group=any").json()["items"][0]["item_id"] == "s6"
        found = price(client, "lamp20")
        assert found.band is not None
        assert found.band.items == LAMPS


def test_an_id_that_ends_like_the_route_is_an_item(lamps: Shop) -> None:
    lamps.publish([product("odd/price", "An odd thing", price="3", currency="EUR")])
    with TestClient(lamps.app()) as client:
        assert client.get("/v1/items/odd%2Fprice").json()["title"] == "An odd thing"
        assert price(client, "odd%2Fprice").price == "3"
        answer = client.get("/v1/items/lamp20/price")
        again = client.get("/v1/items/lamp20/price", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304


def test_unknown_and_deleted_items_are_named(lamps: Shop) -> None:
    lamps.write_state([lamp(30, "40")], deleted=True)
    with TestClient(lamps.app()) as client:
        problem(client.get("/v1/items/nobody/price"), 404)
        problem(client.get("/v1/items/lamp30/price"), 410)


def test_a_judgement_waits_for_the_index_and_takes_what_is_gone_for_no_outlier(lamps: Shop) -> None:
    catalogue = Catalogue(index=lamps.index, store=lamps.store, releases=lamps.releases)
    prices = Prices(catalogue=catalogue, service=ServiceSettings())
    dear = prices.judged("lamp20", now=NOW)
    assert dear is not None
    assert (dear.outlier, dear.price, dear.found_at) == (True, "160", NOW)
    assert dear.ratio == pytest.approx(3.9, abs=0.2)
    usual = prices.judged("lamp5", now=NOW)
    assert usual is not None
    assert not usual.outlier
    # State that the index does not show yet, or not at all.
    for waiting in (lamp(20, "41", revision=8), lamp(40, "41")):
        lamps.write_state([waiting])
        assert prices.judged(waiting.product_id, now=NOW) is None
    lamps.upsert([lamps.point(lamp(20, "41", revision=8))])
    cheaper = prices.judged("lamp20", now=NOW)
    assert cheaper is not None
    assert (cheaper.outlier, cheaper.price) == (False, "41")
    # The same once more, as a nightly feed sends it: the point is not written for that.
    lamps.write_state([lamp(20, "41", revision=9)])
    again = prices.judged("lamp20", now=NOW)
    assert again is not None
    assert again.price == "41"
    # At the same revision another price: what the index shows is of the other one.
    lamps.upsert([lamps.point(lamp(20, "160", revision=9))])
    assert prices.judged("lamp20", now=NOW) is None
    lamps.upsert([lamps.point(lamp(20, "41", revision=9))])
    gone = prices.judged("nobody", now=NOW)
    assert gone is not None
    assert (gone.outlier, gone.evidence) == (False, "gone")


def test_a_judgement_without_the_index_is_for_later(lamps: Shop, tmp_path: Path) -> None:
    away = AwayIndex(tmp_path / "away")
    catalogue = Catalogue(index=away, store=lamps.store, releases=lamps.releases)
    with pytest.raises(Transient):
        Prices(catalogue=catalogue, service=ServiceSettings()).judged("lamp20", now=NOW)
    away.close()
