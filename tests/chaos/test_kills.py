"""No process that is killed loses an event, shows an old one or brings a deleted item back."""

from __future__ import annotations

from pathlib import Path

from tests.support.chaos import World
from tests.support.chaos_kills import commit_before_write, kill_consumers
from tests.support.servers import Kafka


def test_nothing_is_lost_stale_or_resurrected_by_kill_9_at_random_moments(
    kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    with World(tmp_path, kafka.bootstrap_servers, namespace) as world:
        done = kill_consumers(world, seed=1, events=2_000, items=300, kills=4, pairs=1)
    print(done)
    assert done.kills >= 4
    assert done.crashes >= 1
    assert done.redelivered > 0, "no record was read twice: it proved nothing"
    assert done.difference.deleted > 0
    assert done.difference.nothing, f"{done}: {done.difference!r}"
    assert done.dead_letters == 0


def test_a_commit_before_the_write_loses_items_so_the_proof_can_fail(
    kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    with World(tmp_path, kafka.bootstrap_servers, namespace) as world:
        difference = commit_before_write(world, seed=2, items=100)
    print(difference)
    assert len(difference.lost) >= 1
