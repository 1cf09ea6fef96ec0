"""adapters/redis_backup.py: what no topic tells comes back, and what stands of it is not set back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.redis_backup import restore_backup, write_backup
from adapters.redis_client import RedisSettings, connect
from adapters.redis_nodes import RedisNodes
from adapters.redis_reports import ReportStore
from adapters.state_generation import Generations
from schemas.reports import ReportRequest, ReportStatus
from tests.support.servers import LocalRedisCluster, Redis

NOW = datetime(2026, 11, 27, tzinfo=UTC)


@pytest.fixture(params=["one", "cluster"])
def nodes(request: pytest.FixtureRequest) -> Iterator[RedisNodes]:
    """A Redis, and three nodes that share the slots."""
    server: Redis | LocalRedisCluster = request.getfixturevalue(
        "redis_cluster" if request.param == "cluster" else "redis_server"
    )
    client = connect(RedisSettings(url=server.url, cluster=request.param == "cluster"))
    yield RedisNodes(client)
    client.close()


class Kept:
    """Numbers and reports of a namespace, and a backup of them."""

    def __init__(self, nodes: RedisNodes, namespace: str, file: Path) -> None:
        self.generations = Generations(nodes=nodes, namespace=namespace)
        self.reports = ReportStore(nodes=nodes, namespace=namespace)
        self._nodes, self._namespace, self._file = nodes, namespace, file

    def back_up(self) -> int:
        return write_backup(self._nodes, self._file, namespace=self._namespace, generation=1)

    def restore(self) -> int:
        return restore_backup(self._nodes, self._file, namespace=self._namespace)

    def lose(self) -> None:
        for node in self._nodes.primaries():
            for key in list(node.scan_iter(match=f"{self._namespace}*")):
                node.delete(key)

    def report(self, item: str) -> str:
        found = self.reports.add(ReportRequest(item_id=item, reason="harmful"), reporter="shop", now=NOW)
        assert found is not None
        return found.report_id

    def decisions(self) -> dict[str, ReportStatus]:
        return {one.item_id: one.status for one in self.reports.listed()}


@pytest.fixture
def kept(nodes: RedisNodes, namespace: str, tmp_path: Path) -> Kept:
    return Kept(nodes, namespace, tmp_path / "state.msgpack.gz")


def test_reports_and_numbers_that_were_lost_come_back(kept: Kept) -> None:
    kept.reports.decide(kept.report("a"), "approved", now=NOW)
    kept.report("b")
    kept.generations.make()
    assert kept.back_up() == 2
    kept.lose()
    assert kept.restore() == 2
    assert kept.decisions() == {"a": "approved", "b": "pending"}
    assert kept.generations.make() == 3
    # What came back is decided, and joined, as any other.
    kept.reports.decide(kept.report("b"), "rejected", now=NOW)
    kept.report("c")
    assert kept.decisions() == {"a": "approved", "b": "rejected", "c": "pending"}


def test_numbers_given_out_and_decisions_taken_since_the_backup_stay(kept: Kept) -> None:
    first = kept.report("a")
    kept.generations.make()
    kept.back_up()
    assert [kept.generations.make(), kept.generations.make()] == [3, 4]
    kept.reports.decide(first, "approved", now=NOW)
    kept.report("b")
    kept.restore()
    assert kept.generations.retired() == [2, 3, 4]
    assert kept.generations.make() == 5
    assert kept.decisions() == {"a": "approved", "b": "pending"}
