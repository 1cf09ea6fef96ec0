"""Every process of a stack is restarted under load and a service killed: no query fails, no event is lost."""

from __future__ import annotations

from pathlib import Path

from app.local import LocalRedis
from tests.support.commands import command_environment
from tests.support.qdrant_rest import QdrantRest
from tests.support.rolling import roll
from tests.support.servers import ApacheKafka


def test_no_query_fails_and_no_event_is_lost_while_every_process_is_restarted_and_a_service_killed(
    kafka: ApacheKafka, namespace: str, tmp_path: Path
) -> None:
    with LocalRedis(tmp_path / "redis") as redis, QdrantRest(tmp_path / "index") as server:
        environment = command_environment(
            tmp_path,
            kafka=kafka.bootstrap_servers,
            namespace=namespace,
            redis=redis.url,
            index=server.url,
            partitions=4,
        )
        done = roll(tmp_path / "parts", environment, consumers=1, services=2, items=20, clients=2)
    print(done)
    assert done.restarts == 5
    assert done.kills == 1
    assert done.least_answered > 0, "nobody asked during a restart: it proved nothing"
    assert done.refused > 0, "nobody met the killed service: it proved nothing"
    assert done.failed == []
    assert done.cut_in_order == 0
    assert done.cut_by_kill <= done.clients
    assert done.stale == []
    assert done.miscounted == []
