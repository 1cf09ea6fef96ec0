"""Every process of a stack is restarted under load, and a service killed. Counts; times for the record.

Apache Kafka, Redis and the test server of the index (Qdrant's engine behind its REST routes) run as children,
beside `simstream consume products|behaviour|embeddings` and `simstream serve`, several of each, with a tiny
model. Clients ask for neighbours and producers send events all the time. A service is taken out of balance
before it is ended in order, as a load balancer does; the one that is killed is not.

Reads   nothing
Writes  a folder that goes away
Never   counts a restart during which nobody asked
"""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

from app.local import LocalRedis
from benchmarks.harness import Figure, Report, Skipped
from tests.support.commands import command_environment
from tests.support.qdrant_rest import QdrantRest
from tests.support.rolling import roll
from tests.support.servers import KAFKA_VERSION, ApacheKafka, missing

NAME = "rolling"
#: The same proof, with one process of each consumer.
COVERED_BY = "tests/chaos/test_rolling.py"
SERVICES, CLIENTS = 2, 4


def run(*, small: bool, data: Path | None) -> Report:
    """Two processes of each consumer and 200 items; in small one and 20."""
    del data
    if reason := missing():
        raise Skipped(reason)
    consumers, items = (1, 20) if small else (2, 200)
    with tempfile.TemporaryDirectory(prefix="simstream-rolling-") as scratch:
        folder = Path(scratch)
        with (
            ApacheKafka(folder / "kafka") as kafka,
            LocalRedis(folder / "redis") as redis,
            QdrantRest(folder / "index") as server,
        ):
            environment = command_environment(
                folder,
                kafka=kafka.bootstrap_servers,
                namespace=f"r{uuid.uuid4().hex[:8]}.",
                redis=redis.url,
                index=server.url,
                partitions=4,
            )
            done = roll(
                folder / "parts",
                environment,
                consumers=consumers,
                services=SERVICES,
                items=items,
                clients=CLIENTS,
            )
    print(done)

    def none(name: str, value: int, unit: str) -> Figure:
        return Figure(name, value, unit, target=0, direction="at most", kind="count", headline=True)

    return Report(
        NAME,
        [
            none("failed queries, restarts and the kill", len(done.failed), "queries"),
            none("queries cut by restarts in order", done.cut_in_order, "queries"),
            Figure("queries cut by the kill", done.cut_by_kill, "queries", CLIENTS, "at most", "count"),
            none("items without their newest revision", len(done.stale), "items"),
            none("items whose views are miscounted", len(done.miscounted), "items"),
            Figure("restarted", done.restarts, "processes", 3 * consumers + SERVICES, kind="count"),
            Figure("killed", done.kills, "processes", 1, kind="count"),
            Figure("queries answered during each restart, least", done.least_answered, "queries", 1),
            Figure("connections the killed one refused", done.refused, "connections", 1, kind="count"),
            Figure("queries answered", done.answered, "queries"),
            Figure("the slowest query, asked again included", done.slowest_seconds, "s"),
        ],
        {
            "processes of each consumer": consumers,
            "services": SERVICES,
            "clients": CLIENTS,
            "items": items,
            "kafka": KAFKA_VERSION,
        },
        f"drawn events: {done.events:,}, half of products and half of shoppers",
    )
