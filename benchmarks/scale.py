"""Consumers from one process to two to four and back, under load. Counts; the rates are for the record.

Apache Kafka with twelve partitions, a Redis Cluster of three nodes and the test server of the index (Qdrant's
engine behind its REST routes) run as children, `products`, `embeddings` and `behaviour` as processes of their
own, with a fake encoder. On the way back one process of each is killed. Afterwards every item's point is
compared with the newest event, and every counter and sketch with what the log comes to.

Reads   nothing
Writes  a folder that goes away
Never   counts a step in which a process had nothing to do; the proofs that a lost or doubled event would be
        seen are in tests/chaos (a commit before the write, guards switched off)
"""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

from benchmarks.harness import Figure, Report, Skipped
from tests.support.scaling import ScaleWorld, scale
from tests.support.servers import KAFKA_VERSION, ApacheKafka, missing

NAME = "scale"
#: The same proof, from one to two and back.
COVERED_BY = "tests/chaos/test_scale.py"
SEED = 29


def run(*, small: bool, data: Path | None) -> Report:
    """One, two, four, two, one process of each consumer; in small one, two, one."""
    if reason := missing():
        raise Skipped(reason)
    steps, seconds, rate, items = ((1, 2, 1), 2.0, 300, 200) if small else ((1, 2, 4, 2, 1), 20.0, 600, 2_000)
    with tempfile.TemporaryDirectory(prefix="simstream-scale-") as scratch:
        folder = Path(scratch)
        with (
            ApacheKafka(folder / "kafka") as kafka,
            ScaleWorld(folder / "world", kafka.bootstrap_servers, f"s{uuid.uuid4().hex[:8]}.") as world,
        ):
            done = scale(world, seed=SEED, steps=steps, seconds=seconds, rate=rate, items=items)
    print(done)

    def none(name: str, value: int, unit: str) -> Figure:
        return Figure(name, value, unit, target=0, direction="at most", kind="count")

    found = done.difference
    busiest = {
        (step.processes, name): sum(rates) / len(rates)
        for step in done.steps
        for name, rates in step.rates.items()
    }
    return Report(
        NAME,
        [
            none("lost", len(found.lost), "items"),
            none("stale", len(found.stale), "items"),
            none("resurrected", len(found.resurrected), "items"),
            none("counted twice or not at all", len(done.miscounted), "items"),
            none("dead letters", done.dead_letters, "records"),
            Figure("killed", done.kills, "processes", target=3, kind="count"),
            Figure("read twice", done.redelivered, "records", target=1, kind="count"),
            *(
                Figure(f"{name}, each of {processes}", rate, "records/s")
                for (processes, name), rate in busiest.items()
            ),
        ],
        {
            "seed": SEED,
            "steps": ",".join(map(str, steps)),
            "seconds of each": seconds,
            "events/s": rate,
            "items": items,
            "partitions": ScaleWorld.partitions,
            "kafka": KAFKA_VERSION,
        },
        f"a synthetic shop, seed {SEED}, and its shoppers; {done.events:,} events",
    )
