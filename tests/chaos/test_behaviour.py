"""What shoppers did is counted once, whoever is killed, paused or told to read it all again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.behaviour_faults import COMPARED_ONCE, GUARDS_OFF
from tests.support.chaos_behaviour import ShopperWorld, harm, without_epoch
from tests.support.servers import Kafka


def test_counters_and_sketches_equal_the_oracle_after_kills_pauses_moves_and_a_rewind(
    kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    with ShopperWorld(tmp_path, kafka.bootstrap_servers, namespace) as world:
        done = harm(world, ["kill", "pause", "move", "rewind"], seed=1, rounds=4)
    print(done)
    assert done.crashes >= 1
    assert done.sent_again > 0
    assert done.redelivered > 0, "no record was read twice: it proved nothing"
    assert done.duplicates > 0
    assert done.damage.nothing, f"{done}: {done.damage!r}"
    assert done.dead_letters == 0


@pytest.mark.parametrize("fault", [GUARDS_OFF, COMPARED_ONCE])
def test_without_its_guard_the_same_counts_twice_so_the_proof_can_fail(
    fault: str, kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    with ShopperWorld(tmp_path, kafka.bootstrap_servers, namespace) as world:
        done = harm(world, ["move"], seed=2, rounds=1, fault=fault)
    print(done)
    assert done.damage.counters
    assert not done.damage.sketches, "sketches need no guard"


def test_a_redis_that_loses_its_last_second_is_told_again(
    kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    with ShopperWorld(tmp_path, kafka.bootstrap_servers, namespace) as world:
        done = harm(world, ["redis"], seed=3, rounds=1)
    print(done)
    assert done.rewinds >= 1
    assert done.lost_bytes > 0
    assert done.damage.nothing, f"{done}: {done.damage!r}"


def test_writes_to_a_redis_that_has_lost_something_hide_the_loss_so_the_proof_can_fail(
    kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    with ShopperWorld(tmp_path, kafka.bootstrap_servers, namespace) as world:
        done = without_epoch(world, seed=3)
    print(done)
    assert done.damage.counters
