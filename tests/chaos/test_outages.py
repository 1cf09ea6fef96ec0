"""Stores that are away mean waiting and catching up: no dead letter, no loss, no rebalance, no growth."""

from __future__ import annotations

from pathlib import Path

from tests.support.chaos import World
from tests.support.chaos_outages import given_up, outages
from tests.support.servers import Kafka


def test_consumers_sit_out_stores_that_stop_die_refuse_hang_and_lose_replies(
    kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    with World(tmp_path, kafka.bootstrap_servers, namespace) as world:
        found = outages(world, seed=4, items=400, seconds=4.0, rate=150)
    assert len(found) == 5
    for one in found:
        assert one.waiting > 0, f"nothing waited: {one}"
        # Four seconds of silence are shorter than the clients' timeouts: there the calls just take long.
        assert one.waits > 0 or one.what in ("Redis stopped", "index hangs"), f"no consumer noticed: {one}"
        assert one.difference.nothing, f"{one}: {one.difference!r}"
        assert one.dead_letters == 0, one
        assert one.partitions_moved == 0, one
        assert one.grown_mib <= 200, one


def test_a_loop_that_takes_an_outage_for_bad_records_loses_changes_so_the_proof_can_fail(
    kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    with World(tmp_path, kafka.bootstrap_servers, namespace) as world:
        found = given_up(world, seed=5, items=200, seconds=2.0, rate=150)
    assert found.dead_letters >= 1, found
    assert len(found.difference.stale) >= 1, found
