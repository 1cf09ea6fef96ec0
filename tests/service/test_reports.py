"""POST /v1/reports: taken for review, of items that there are, with the name of the key it came with."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fastapi.testclient import TestClient

from schemas.errors import Transient
from schemas.reports import Report, Reported, ReportRequest
from service.access import Keyring
from service.keys import ApiSettings, Scope, new_key
from tests.service.shop import Shop
from tests.service.test_api import AwayIndex, problem

NOW = datetime(2026, 11, 26, tzinfo=UTC)
BODY = {"seed": "s1", "item_id": "c1", "reason": "not_similar", "note": "a coffee machine"}


class Box:
    """Implements schemas.reports.ReportBox."""

    def __init__(self, *, full: bool = False, away: bool = False) -> None:
        self.taken: list[tuple[ReportRequest, str | None]] = []
        self._full = full
        self._away = away

    def add(self, request: ReportRequest, *, reporter: str | None, now: datetime) -> Report | None:
        """See the protocol."""
        if self._away:
            raise Transient("Redis did not answer within 5 s")
        if self._full:
            return None
        self.taken.append((request, reporter))
        return Report(report_id="r", first_at=now, last_at=now, **request.model_dump())


def test_a_report_is_taken_with_who_sent_it(shop: Shop) -> None:
    key, kept = new_key("phone", frozenset({Scope.READ}))
    box = Box()
    ring = Keyring(ApiSettings(keys=(kept.entry(),)))
    with TestClient(shop.app(reports=box, keyring=ring)) as client:
        problem(client.post("/v1/reports", json=BODY), 401)
        response = client.post("/v1/reports", json=BODY, headers={"Authorization": f"Bearer {key}"})
    assert response.status_code == 202
    assert Reported.model_validate_json(response.content) == Reported(
        report_id="r", status="pending", reports=1
    )
    assert box.taken == [(ReportRequest.model_validate(BODY), "phone")]
    with TestClient(shop.app(reports=box)) as client:
        assert client.post("/v1/reports", json={"item_id": "s2", "reason": "harmful"}).status_code == 202
    assert box.taken[-1] == (ReportRequest(item_id="s2", reason="harmful"), None)


def test_items_that_are_not_there_and_bodies_that_say_nothing_are_refused(shop: Shop) -> None:
    box = Box()
    with TestClient(shop.app(reports=box)) as client:
        problem(client.post("/v1/reports", json={**BODY, "item_id": "nowhere"}), 404)
        problem(client.post("/v1/reports", json={**BODY, "seed": "nowhere"}), 404)
        problem(client.post("/v1/reports", json={"item_id": "s1", "reason": "not_similar"}), 422)
        problem(client.post("/v1/reports", json={**BODY, "reason": "ugly"}), 422)
        problem(client.post("/v1/reports", json={**BODY, "more": 1}), 422)
    assert box.taken == []


def test_a_full_queue_a_store_that_is_away_and_none_are_503(shop: Shop, tmp_path: Path) -> None:
    for box in (Box(full=True), Box(away=True), None):
        with TestClient(shop.app(reports=box)) as client:
            response = client.post("/v1/reports", json=BODY)
            problem(response, 503)
            assert int(response.headers["retry-after"]) >= 1
    index = AwayIndex(tmp_path)
    with TestClient(shop.app(reports=Box(), index=index)) as client:
        assert problem(client.post("/v1/reports", json=BODY), 503)["errors"][0]["store"] == "index"
    index.close()
