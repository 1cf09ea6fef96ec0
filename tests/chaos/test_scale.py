"""Consumers may become more and fewer under load: nothing is lost, nothing counts twice."""

from __future__ import annotations

from pathlib import Path

from tests.support.scaling import ScaleWorld, scale
from tests.support.servers import Kafka


def test_nothing_is_lost_or_counted_twice_while_processes_come_and_go(
    kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    with ScaleWorld(tmp_path, kafka.bootstrap_servers, namespace) as world:
        done = scale(world, seed=5, steps=(1, 2, 1), seconds=1.0, rate=300, items=100)
    print(done)
    assert [step.idle for step in done.steps] == [0, 0, 0], "a process had nothing to do: it proved nothing"
    assert done.kills == 3
    assert done.redelivered > 0, "no record was read twice: it proved nothing"
    assert done.difference.deleted > 0
    assert done.difference.nothing, f"{done.difference!r}"
    assert done.miscounted == []
    assert done.dead_letters == 0
