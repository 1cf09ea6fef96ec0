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
from tests.support.servers import LocalRedisCluster

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


def test_what_was_decided_takes_no_room_from_what_waits_and_the_oldest_rejected_go(
    store: ReportStore,
) -> None:
    def decided(number: int) -> None:
        status = "approved" if number % 4 == 0 else "rejected"
        report = reported(store, "a", f"b{number}", after=number)
        # The later it was reported, the earlier it is decided: what counts is when it was decided.
        store.decide(report.report_id, status, now=NOW + timedelta(seconds=100 - number))  # type: ignore[arg-type]

    for number in range(6):
        decided(number)
    assert {one.item_id for one in store.listed()} == {"b0", "b1", "b2", "b3", "b4", "b5"}
    reported(store, "a", "c0")
    assert {one.item_id for one in store.listed("rejected")} == {"b1", "b2", "b3"}
    reported(store, "a", "c1")
    reported(store, "a", "c2")
    assert {one.item_id for one in store.listed("rejected")} == {"b1"}
    request = ReportRequest(seed="a", item_id="c3", reason="not_similar")
    assert store.add(request, reporter=None, now=NOW) is None
    for one in store.listed("pending"):
        store.decide(one.report_id, "approved", now=NOW)
    # Five are approved and stay, however many there come to be.
    for number in range(3):
        reported(store, "a", f"d{number}")
    assert [len(store.listed(status)) for status in ("approved", "pending", "rejected")] == [5, 3, 0]


def test_entries_without_their_order_are_put_in_order_again(
    store: ReportStore, redis_server: LocalRedis, namespace: str
) -> None:
    for number, status in enumerate(("rejected", "approved", "rejected", "rejected")):
        report = reported(store, "a", f"b{number}")
        store.decide(report.report_id, status, now=NOW + timedelta(seconds=number))  # type: ignore[arg-type]
    for number in range(2):
        reported(store, "a", f"c{number}")
    with connect(RedisSettings(url=redis_server.url)) as client:
        assert client.delete(f"{namespace}{{{namespace}reports}}:order") == 1
    reported(store, "a", "c2")
    assert {one.item_id for one in store.listed()} == {"b1", "b2", "b3", "c0", "c1", "c2"}
    request = ReportRequest(seed="a", item_id="c3", reason="not_similar")
    assert store.add(request, reporter=None, now=NOW) is None


def test_on_a_cluster_the_entries_and_their_order_lie_together(
    redis_cluster: LocalRedisCluster, namespace: str
) -> None:
    with connect(RedisSettings(url=redis_cluster.url, cluster=True)) as client:
        store = ReportStore(nodes=RedisNodes(client), namespace=namespace, most=1)
        for number in range(4):
            report = reported(store, "a", f"b{number}")
            store.decide(report.report_id, "rejected", now=NOW + timedelta(seconds=number))
        assert {one.item_id for one in store.listed()} == {"b2", "b3"}


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
