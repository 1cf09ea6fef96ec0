"""A process that wakes up after its partitions went elsewhere overwrites nothing that is newer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chaos import World
from tests.support.chaos_pauses import late_write
from tests.support.servers import Kafka

WHOLE = pytest.mark.parametrize("whole", [False, True], ids=["payloads", "whole-points"])


@WHOLE
def test_the_late_write_of_a_paused_owner_does_not_win(
    kafka: Kafka, namespace: str, tmp_path: Path, whole: bool
) -> None:
    with World(tmp_path, kafka.bootstrap_servers, namespace) as world:
        done = late_write(world, seed=3, items=40, whole=whole)
    print(done)
    assert done.pauses == 1, "the owner had nothing in hand: it proved nothing"
    assert done.redelivered > 0
    assert done.difference.nothing, f"{done}: {done.difference!r}"


@WHOLE
def test_without_tickets_the_late_write_wins_so_the_proof_can_fail(
    kafka: Kafka, namespace: str, tmp_path: Path, whole: bool
) -> None:
    with World(tmp_path, kafka.bootstrap_servers, namespace) as world:
        done = late_write(world, seed=3, items=40, guarded=False, whole=whole)
    print(done)
    assert len(done.difference.stale) >= 1
