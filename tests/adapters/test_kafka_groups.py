"""A group that starts at the ends: every partition has a commit before anybody reads, and keeps it."""

from __future__ import annotations

import pytest

from adapters.kafka import Publisher
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.kafka_groups import GroupOffsets, remove_group
from adapters.kafka_reader import GroupReader
from schemas.errors import Halt
from schemas.topics import Topics
from tests.support.draining import quick_settings
from tests.support.servers import Broker, Kafka

PARTITIONS = 3


def test_ends_are_committed_once_read_back_and_what_comes_after_is_the_lag(
    broker: Broker, namespace: str
) -> None:
    topics = Topics.named(namespace=namespace)
    lanes = (topics.changed.name, topics.changed_bulk.name)
    settings = quick_settings(broker, partitions=PARTITIONS)
    both = [topics.changed, topics.changed_bulk]
    ensure_topics(open_admin(settings), both, partitions=PARTITIONS, replication_factor=1)
    publisher = Publisher(settings)

    def publish(count: int) -> None:
        for number in range(count):
            publisher.send(lanes[0], key=f"p{number}", value=b"{}")
            publisher.flush(30.0)  # batches of one, whose end every broker tells right

    publish(20)
    group = f"{namespace}fills"
    with GroupOffsets(settings, group=group, topics=lanes) as offsets:
        assert set(offsets.commits().values()) == {None}
        started = offsets.start_at_ends()
        assert len(started) == 2 * PARTITIONS
        assert sum(started.values()) == 20
        assert offsets.lag() == 0
        publish(7)
        assert (
            offsets.start_at_ends() == started
        )  # what was committed stays: those seven are still to be read
        assert offsets.lag() == 7
    assert remove_group(settings, group)
    assert remove_group(settings, group)  # there is none any more
    publisher.close()


def test_a_group_is_not_removed_under_a_reader(kafka: Kafka, namespace: str) -> None:
    topics = Topics.named(namespace=namespace)
    settings = quick_settings(kafka)
    ensure_topics(open_admin(settings), [topics.changed], partitions=2, replication_factor=1)
    reader = GroupReader(settings, group=f"{namespace}read", client_id="test")
    assigned: list[object] = []
    reader.subscribe(
        [topics.changed.name],
        on_assign=lambda commits: assigned.append(commits),
        on_revoke=lambda parts: None,
        on_lost=lambda parts: None,
        on_commit_error=lambda offsets, error: None,
    )
    for _ in range(300):
        reader.poll(10, 0.1)
        if assigned:
            break
    assert assigned
    assert not remove_group(settings, f"{namespace}read")
    reader.close()


def test_a_topic_that_does_not_exist_is_named(broker: Broker, namespace: str) -> None:
    settings = quick_settings(broker)
    with GroupOffsets(settings, group="nobody", topics=[f"{namespace}nothing"]) as offsets:
        with pytest.raises(Halt, match="create it with `simstream topics`"):
            offsets.partitions()
