"""No review consumer that is killed loses a review, counts one twice or leaves an old digest."""

from __future__ import annotations

from pathlib import Path

from tests.support.chaos import World
from tests.support.chaos_reviews import commit_reviews_before_write, kill_reviews
from tests.support.servers import Kafka


def test_ratings_and_digests_are_exact_after_kill_9_at_random_moments(
    kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    with World(tmp_path, kafka.bootstrap_servers, namespace) as world:
        done = kill_reviews(world, seed=5, events=1_000, items=60, kills=3)
    print(done)
    assert done.kills >= 3
    assert done.crashes >= 1
    assert done.redelivered > 0, "no record was read twice: it proved nothing"
    assert done.left.removed > 0
    assert done.left.nothing, f"{done}: {done.left!r}"
    assert done.dead_letters == 0


def test_a_commit_before_the_write_loses_reviews_so_the_proof_can_fail(
    kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    with World(tmp_path, kafka.bootstrap_servers, namespace) as world:
        left = commit_reviews_before_write(world, seed=6, items=60)
    print(left)
    assert left.wrong_in_redis
