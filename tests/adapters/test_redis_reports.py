"""adapters/redis_reports.py: reports of one pair are one entry, and what was decided stays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from adapters.redis_client import RedisSettings, connect
from adapters.redis_nodes import RedisNodes
from adapters.redis_reports import ReportStore
from app.learning_inputs import reported_pairs
from app.local import LocalRedis
from schemas.reports import MOST_REPORTERS, Report, ReportRequest

NOW = datetime(2026, 11, 26, tzinfo=UTC)


@pytest.fixture
def store(redis_server: LocalRedis, namespace: str) -> Iterator[ReportStore]:
    with connect(RedisSettings(url=redis_server.url)) as client:
        yield ReportStore(nodes=RedisNodes(client), namespace=namespace, most=3)


def reported(
    store: ReportStore, seed: str | None, item: str, *, by: str | None = None, after: int = 0
) -> Report:
    reason = "harmful" if seed is None else "not_similar"
    request = ReportRequest(seed=seed, item_id=item, reason=reason, note="a toy")
    found = store.add(request, reporter=by, now=NOW + timedelta(seconds=after))
    assert found is not None
    return found


def test_the_same_pair_is_one_entry_in_either_order_and_counts(store: ReportStore) -> None:
    first = reported(store, "a", "b", by="shop")
    assert (first.reports, first.status, first.reporters, first.note) == (1, "pending", ("shop",), "a toy")
    again = reported(store, "b", "a", by="phone", after=5)
    assert again.report_id == first.report_id
    assert (again.reports, again.reporters) == (2, ("shop", "phone"))
    assert (again.first_at, again.last_at) == (NOW, NOW + timedelta(seconds=5))
    assert reported(store, "a", "b").reports == 3
    other = reported(store, None, "b")
    assert other.report_id != first.report_id
    assert (other.seed, other.reporters) == (None, ())
    assert reported(store, None, "b", by="shop").reporters == ("shop",)
    assert [one.reports for one in store.listed()] == [3, 2]
    for number in range(2 * MOST_REPORTERS):
        reported(store, "a", "b", by=f"key{number}")
    assert len(store.listed()[0].reporters) == MOST_REPORTERS


def test_what_was_decided_stays_decided_and_only_approved_pairs_are_golden(store: ReportStore) -> None:
    pair, harm, rejected = (
        reported(store, "a", "b"),
        reported(store, None, "c"),
        reported(store, "d", "e"),
    )
    assert reported_pairs(store) == []
    for report, status in ((pair, "approved"), (harm, "approved"), (rejected, "rejected")):
        decided = store.decide(report.report_id, status, now=NOW)  # type: ignore[arg-type]
        assert decided is not None
        assert (decided.status, decided.decided_at) == (status, NOW)
    assert reported(store, "d", "e").status == "rejected"
    assert store.listed("pending") == []
    assert [(one.a, one.b, one.label) for one in reported_pairs(store)] == [("a", "b", 0.0)]
    assert store.decide("nothing", "approved", now=NOW) is None


def test_a_full_queue_takes_no_new_pair_and_goes_on_counting(store: ReportStore) -> None:
    for number in range(3):
        reported(store, "a", f"b{number}")
    request = ReportRequest(seed="a", item_id="b9", reason="not_similar")
    assert store.add(request, reporter=None, now=NOW) is None
    assert reported(store, "a", "b1").reports == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"item_id": "b", "reason": "not_similar"},
        {"seed": "b", "item_id": "b", "reason": "harmful"},
        {"seed": "", "item_id": "b", "reason": "harmful"},
        {"seed": "a", "item_id": "b", "reason": "ugly"},
        {"seed": "a", "item_id": "b", "reason": "harmful", "note": "x" * 501},
    ],
)
def test_a_report_that_says_nothing_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        ReportRequest.model_validate(fields)
