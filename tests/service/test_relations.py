"""GET /v1/items/{item_id}/relations: substitutes and complements, told apart, and what is never shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from schemas.errors import Transient
from schemas.insights import RelationsView
from schemas.relations import Bundle, Evidence, Known, Mined, Partner, Run
from service.relations import told_apart
from service.rulebook import RuleBook, RuleSettings
from tests.service.shop import Shop, product
from tests.service.test_api import AwayIndex, problem

RUN = Run(run="r", mined_at=datetime(2026, 11, 25, tzinfo=UTC), baskets=1_000, visits=5_000, items=3, pairs=4)


def evidence(lift: float, *, sure: bool = True) -> Evidence:
    return Evidence(together=30, other=120, expected=10.0, lift=lift, lift_low=lift / 2, sure=sure)


def bought(item: str, lift: float, *, seen: float | None = None, later: float | None = None) -> Partner:
    return Partner(
        item_id=item, bought=evidence(lift), seen=None if seen is None else evidence(seen), later=later
    )


def looked(item: str, lift: float) -> Partner:
    return Partner(item_id=item, seen=evidence(lift))


#: Of s1, a running shoe. s2 is a variant of it, s5 and s7 lie on its shelf.
FOUND = Mined(
    baskets=60,
    visits=200,
    partners=(
        bought("c1", 4.0, later=0.75),
        bought("c2", 3.0, seen=8.0),
        bought("s7", 2.0, seen=6.0),
        bought("s8", 6.0, seen=2.0),
        bought("s2", 9.0),
        bought("gone", 9.0),
        looked("s5", 3.0),
        looked("z1", 5.0),
        Partner(item_id="s6", bought=evidence(9.0, sure=False), seen=evidence(9.0, sure=False)),
    ),
    bundles=(Bundle(items=("c1", "c2"), together=6), Bundle(items=("c1", "gone"), together=9)),
)


class Reader:
    """Implements schemas.relations.RelationReader."""

    def __init__(self, found: Mapping[str, Mined], run: Run | None = RUN) -> None:
        self._found = found
        self._run = run

    def of(self, product_id: str) -> Known:
        """See the protocol."""
        return Known(self._run, self._found.get(product_id))

    def of_all(self, product_ids: Sequence[str]) -> tuple[Run | None, Mapping[str, Mined]]:
        """See the protocol."""
        if self._run is None:
            return None, {}
        return self._run, {name: self._found[name] for name in product_ids if name in self._found}


class AwayReader(Reader):
    """A store that does not answer."""

    def of(self, product_id: str) -> Known:
        """Nothing comes back."""
        raise Transient("Redis did not answer within 5 s")


def relations(client: TestClient, path: str = "s1/relations") -> RelationsView:
    response = client.get(f"/v1/items/{path}")
    assert response.status_code == 200, response.text
    return RelationsView.model_validate_json(response.content)


def test_what_goes_together_is_told_from_what_is_compared(shop: Shop) -> None:
    with TestClient(shop.app(relations=Reader({"s1": FOUND}))) as client:
        view = relations(client)
        first, *_ = view.complements
        # Of another shelf, or of the same but bought together more than compared.
        assert [one.item_id for one in view.complements] == ["s8", "c1", "c2"]
        assert [one.item_id for one in view.substitutes] == ["s7", "s5"]
        assert {one.basis for one in view.complements} == {"bought together"}
        assert {one.basis for one in view.substitutes} == {"looked at together"}
        assert first.similarity > view.complements[1].similarity
        assert (view.baskets, view.visits, view.mined_at) == (60, 200, RUN.mined_at)
        assert "from 60 baskets and 200 visits with the item, of 1000 and 5000" in view.evidence
        assert [[one.item_id for one in bundle.items] for bundle in view.bundles] == [["c1", "c2"]]
        assert view.bundles[0].confidence == pytest.approx(0.1)
        few = relations(client, "s1/relations?limit=1")
        assert (few.complements, few.substitutes) == (view.complements[:1], view.substitutes[:1])


def test_a_relation_shows_its_evidence_with_direction(shop: Shop) -> None:
    with TestClient(shop.app(relations=Reader({"s1": FOUND}))) as client:
        (one,) = [each for each in relations(client).complements if each.item_id == "c1"]
    assert (one.together, one.lift, one.lift_low, one.later) == (30, 4.0, 2.0, 0.75)
    assert one.support == pytest.approx(30 / 1_000)
    assert one.confidence == pytest.approx(30 / 60)
    assert one.confidence_back == pytest.approx(30 / 120)
    assert one.item.title == "Espresso machine steel"


def test_what_has_left_the_catalogue_or_is_blocked_is_not_shown(fresh_shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("blocked: {items: [c2]}")
    fresh_shop.upsert([fresh_shop.tombstone("s7")])
    app = fresh_shop.app(relations=Reader({"s1": FOUND}), rules=RuleBook(RuleSettings(file=file)))
    with TestClient(app) as client:
        view = relations(client)
    assert [one.item_id for one in view.complements] == ["s8", "c1"]
    assert [one.item_id for one in view.substitutes] == ["s5"]
    assert view.bundles == []


def test_an_item_without_relations_and_a_service_before_the_first_run_say_so(shop: Shop) -> None:
    with TestClient(shop.app(relations=Reader({}))) as client:
        view = relations(client)
        assert (view.complements, view.substitutes, view.bundles) == ([], [], [])
        assert view.evidence.startswith("0 items beyond chance")
    with TestClient(shop.app(relations=Reader({}, run=None))) as client:
        view = relations(client)
        assert view.mined_at is None
        assert "simstream relations mine" in view.evidence


def test_stores_that_are_away_are_named_and_unknown_items_are_404(shop: Shop, tmp_path: Path) -> None:
    for reader in (AwayReader({}), None):
        with TestClient(shop.app(relations=reader)) as client:
            assert problem(client.get("/v1/items/s1/relations"), 503)["errors"][0]["store"] == "behaviour"
    index = AwayIndex(tmp_path)
    with TestClient(shop.app(index=index, relations=Reader({}))) as client:
        assert problem(client.get("/v1/items/s1/relations"), 503)["errors"][0]["store"] == "index"
    index.close()
    with TestClient(shop.app(relations=Reader({}))) as client:
        problem(client.get("/v1/items/nowhere/relations"), 404)
        problem(client.get("/v1/items/s1/relations?limit=0"), 422)


def test_an_id_that_ends_like_the_route_is_an_item(fresh_shop: Shop) -> None:
    fresh_shop.publish([product("odd/relations", "Leather boot")])
    with TestClient(fresh_shop.app(relations=Reader({"odd/relations": FOUND}))) as client:
        assert client.get("/v1/items/odd%2Frelations").json()["title"] == "Leather boot"
        assert relations(client, "odd%2Frelations/relations").baskets == 60


@pytest.mark.parametrize(
    ("partner", "alike", "kind"),
    [
        (bought("x", 3.0), False, "complements"),
        (bought("x", 3.0), True, "complements"),
        (bought("x", 3.0, seen=2.0), True, "complements"),
        (bought("x", 3.0, seen=4.0), True, "substitutes"),
        (bought("x", 3.0, seen=4.0), False, "complements"),
        (looked("x", 4.0), True, "substitutes"),
        (looked("x", 4.0), False, None),
        (Partner(item_id="x", bought=evidence(9.0, sure=False)), False, None),
        (Partner(item_id="x", bought=evidence(9.0, sure=False), seen=evidence(2.0)), True, "substitutes"),
    ],
)
def test_the_rule(partner: Partner, alike: bool, kind: str | None) -> None:
    told = told_apart(partner, alike=alike)
    assert (told[1] if told is not None else None) == kind
