"""One member of a group on both brokers: where it starts, what it never guesses, what it hands over."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from adapters.kafka import KafkaSettings, Publisher, Record
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.kafka_reader import GroupReader, Partition
from schemas.errors import Halt
from schemas.topics import Topic
from tests.support.draining import quick_settings
from tests.support.servers import ApacheKafka, Broker


class Member:
    """A reader and what its group told it."""

    def __init__(self, settings: KafkaSettings, topics: Sequence[str], group: str) -> None:
        self.reader = GroupReader(settings, group=group, client_id="test")
        self.assigned: dict[Partition, int | None] = {}
        self.refused: list[int] = []
        self.reader.subscribe(
            topics,
            on_assign=self._assign,
            on_revoke=self._drop,
            on_lost=self._drop,
            on_commit_error=lambda offsets, error: self.refused.append(error.code()),
        )

    def _assign(self, commits: Mapping[Partition, int | None]) -> None:
        self.assigned.update(commits)

    def _drop(self, partitions: Sequence[Partition]) -> None:
        for part in partitions:
            self.assigned.pop(part, None)

    def given(self, partitions: int, timeout_seconds: float = 60.0) -> int:
        """How many partitions it has: so many at least, fewer only after the timeout."""
        deadline = time.monotonic() + timeout_seconds
        while len(self.assigned) < partitions and time.monotonic() < deadline:
            self.reader.poll(10, 0.05)
        return len(self.assigned)

    def read(self, count: int, timeout_seconds: float = 20.0) -> list[Record]:
        """At least `count` records, fewer only after the timeout."""
        found: list[Record] = []
        deadline = time.monotonic() + timeout_seconds
        while len(found) < count and time.monotonic() < deadline:
            found += self.reader.poll(100, 0.1)
        return found


Join = Callable[..., Member]


@pytest.fixture
def settings(broker: Broker) -> KafkaSettings:
    return quick_settings(broker)


@pytest.fixture
def apart(settings: KafkaSettings) -> KafkaSettings:
    """A member per topic, on either broker: nobody of these tests comes back after two have left."""
    return settings.model_copy(update={"member_per_topic": True})


def make_topic(settings: KafkaSettings, name: str, records: int = 0, partitions: int = 1) -> str:
    declared = Topic(name, "id", (), "delete")
    ensure_topics(open_admin(settings), [declared], partitions=partitions, replication_factor=1)
    publish(settings, name, records)
    return name


def make_lanes(settings: KafkaSettings, namespace: str, records: int = 0, partitions: int = 1) -> list[str]:
    """The two topics that a process of `embeddings` reads, the live one first."""
    return [make_topic(settings, namespace + lane, records, partitions) for lane in ("live", "bulk")]


def publish(settings: KafkaSettings, topic: str, records: int) -> None:
    publisher = Publisher(settings)
    for number in range(records):
        publisher.send(topic, key=str(number), value=b"%d" % number)
    assert publisher.flush(20) == 0
    publisher.close()


@pytest.fixture
def join() -> Iterator[Join]:
    """Joins a group; leaves it at the end."""
    members: list[Member] = []

    def make(settings: KafkaSettings, *topics: str, group: str | None = None) -> Member:
        members.append(Member(settings, topics, group or f"g{uuid.uuid4().hex}"))
        return members[-1]

    yield make
    for member in members:
        member.reader.close()


def test_a_group_without_a_commit_starts_at_the_beginning(
    settings: KafkaSettings, namespace: str, join: Join
) -> None:
    topic = make_topic(settings, f"{namespace}t", 5)
    member = join(settings, topic)
    found = member.read(5)
    assert [record.offset for record in found] == [0, 1, 2, 3, 4]
    assert member.assigned == {Partition(topic, 0): None}
    assert {record.topic_id for record in found} != {""}
    assert member.reader.high_watermark(Partition(topic, 0)) == 5


def test_a_group_goes_on_at_its_commit_and_nothing_is_committed_by_itself(
    settings: KafkaSettings, namespace: str, join: Join
) -> None:
    topic = make_topic(settings, f"{namespace}t", 5)
    part, group = Partition(topic, 0), f"{namespace}g"
    first = join(settings, topic, group=group)
    assert len(first.read(5)) == 5
    assert first.reader.committed([part]) == {part: None}
    assert first.reader.commit({part: 2})
    assert first.reader.committed([part]) == {part: 2}
    assert first.reader.commit_at_last({part: 3})
    assert first.reader.committed([part]) == {part: 3}
    first.reader.close()
    second = join(settings, topic, group=group)
    assert [record.offset for record in second.read(2)] == [3, 4]
    assert second.assigned == {part: 3}


def test_seeking_reads_again_from_there_and_never_what_was_fetched_before(
    settings: KafkaSettings, namespace: str, join: Join
) -> None:
    topic = make_topic(settings, f"{namespace}t", 50)
    member = join(settings, topic)
    assert len(member.read(50)) == 50
    member.reader.seek(Partition(topic, 0), 40)
    assert [record.offset for record in member.read(10)] == list(range(40, 50))
    member.reader.seek(Partition(topic, 0), None)
    assert [record.offset for record in member.read(50)] == list(range(50))


def test_a_paused_partition_hands_over_nothing_and_goes_on_without_a_gap(
    settings: KafkaSettings, namespace: str, join: Join
) -> None:
    topic = make_topic(settings, f"{namespace}t", 200)
    part = Partition(topic, 0)
    member = join(settings, topic)
    found: list[Record] = []
    while not found:
        found = member.reader.poll(10, 0.1)
    for _ in range(3):
        member.reader.pause([part])
        assert member.read(1, timeout_seconds=0.4) == []
        member.reader.resume([part])
        found += member.reader.poll(10, 5.0)
    found += member.read(200 - len(found))
    assert [record.offset for record in found] == list(range(200))


def test_two_members_share_the_partitions_and_lose_or_double_nothing(
    settings: KafkaSettings, namespace: str, join: Join
) -> None:
    topic, group = make_topic(settings, f"{namespace}t", partitions=4), f"{namespace}g"
    first = join(settings, topic, group=group)
    assert first.given(4) == 4
    deadline = time.monotonic() + 60
    second = join(settings, topic, group=group)
    while not (len(first.assigned) == len(second.assigned) == 2) and time.monotonic() < deadline:
        first.reader.poll(10, 0.05)
        second.reader.poll(10, 0.05)
    assert len({*first.assigned, *second.assigned}) == 4
    publish(settings, topic, 100)
    found: list[bytes | None] = []
    while len(found) < 100 and time.monotonic() < deadline:
        for member in (first, second):
            found += [record.value for record in member.reader.poll(10, 0.05)]
    assert sorted(value or b"" for value in found) == sorted(b"%d" % number for number in range(100))


def test_two_processes_share_every_topic_and_not_one_each(
    apart: KafkaSettings, namespace: str, join: Join
) -> None:
    """Or a second process of `embeddings` takes the live lane whole, and the first is left with the other."""
    topics, group = make_lanes(apart, namespace, partitions=4), f"{namespace}g"
    first = join(apart, *topics, group=group)
    assert first.given(8) == 8
    deadline = time.monotonic() + 60
    both = [first, join(apart, *topics, group=group)]
    while time.monotonic() < deadline:
        for member in both:
            member.reader.poll(10, 0.05)
        if [by_topic(member) for member in both] == [dict.fromkeys(topics, 2)] * 2:
            break
    assert [by_topic(member) for member in both] == [dict.fromkeys(topics, 2)] * 2
    for topic in topics:
        publish(apart, topic, 100)
    found: list[tuple[str, bytes | None]] = []
    while len(found) < 200 and time.monotonic() < deadline:
        for member in both:
            found += [(record.topic, record.value) for record in member.reader.poll(10, 0.05)]
    assert sorted(found, key=str) == sorted(
        ((topic, b"%d" % number) for topic in topics for number in range(100)), key=str
    )
    # Each member commits what is its own.
    for member in both:
        assert member.reader.commit_at_last(dict.fromkeys(member.assigned, 1))
    everything = [Partition(topic, number) for topic in topics for number in range(4)]
    assert first.reader.committed(everything) == dict.fromkeys(everything, 1)
    assert [member.refused for member in both] == [[], []]


def test_a_process_of_an_older_version_shares_with_one_of_today(
    apart: KafkaSettings, namespace: str, join: Join
) -> None:
    """A rolling upgrade: the older one is a single member that reads both topics."""
    topics, group = make_lanes(apart, namespace, partitions=4), f"{namespace}g"
    older = Consumer(
        {
            **apart.client_config("older", consumes=True),
            "group.id": group,
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,
        }
    )
    older.subscribe(topics)
    deadline = time.monotonic() + 60
    while len(older.assignment()) < 8 and time.monotonic() < deadline:
        older.poll(0.1)
    newer = join(apart, *topics, group=group)
    everything = {Partition(topic, number) for topic in topics for number in range(4)}

    def shared() -> bool:
        theirs = {Partition(part.topic, part.partition) for part in older.assignment()}
        return theirs | {*newer.assigned} == everything and not theirs & {*newer.assigned} and bool(theirs)

    while not (shared() and newer.assigned) and time.monotonic() < deadline:
        older.poll(0.05)
        newer.reader.poll(10, 0.05)
    assert shared()
    assert newer.assigned
    older.close()
    assert newer.given(8) == 8
    assert {*newer.assigned} == everything


def test_a_process_leaves_at_any_moment_of_a_rebalance_without_waiting_for_itself(
    kafka: ApacheKafka, namespace: str, join: Join
) -> None:
    """Members that closed one after the other waited for each other: a minute, in two of twelve rounds."""
    settings, group, draw = quick_settings(kafka), f"{namespace}g", Random(1)
    topics = make_lanes(settings, namespace, partitions=4)
    first = join(settings, *topics, group=group)
    stopped = threading.Event()

    def stay() -> None:
        while not stopped.is_set():
            first.reader.poll(10, 0.05)

    staying = threading.Thread(target=stay)
    staying.start()
    try:
        deadline = time.monotonic() + 30
        while len(first.assigned) < 8 and time.monotonic() < deadline:
            time.sleep(0.05)
        for _ in range(10):
            leaving = Member(settings, topics, group)
            until = time.monotonic() + draw.uniform(0.0, 4.0)
            while time.monotonic() < until:
                leaving.reader.poll(10, 0.05)
            closing = threading.Thread(target=leaving.reader.close)
            closing.start()
            closing.join(30.0)
            assert not closing.is_alive()
    finally:
        stopped.set()
        staying.join()


def test_embedded_a_process_that_comes_back_is_given_everything(
    settings: KafkaSettings, namespace: str
) -> None:
    """Of two members that left, Tansu kept one in two of five tries, as the leader that all wait for."""
    settings = settings.model_copy(update={"member_per_topic": False})  # on Apache Kafka as well
    topics = make_lanes(settings, namespace, partitions=4)
    for _ in range(4):
        member = Member(settings, topics, f"{namespace}g")
        given = member.given(8, 30.0)
        member.reader.close()
        assert given == 8


def by_topic(member: Member) -> Mapping[str, int]:
    return Counter(part.topic for part in member.assigned)


def test_of_two_topics_the_first_is_polled_first_and_the_second_not_never(
    apart: KafkaSettings, namespace: str, join: Join
) -> None:
    topics = make_lanes(apart, namespace, 300)
    member = join(apart, *topics)
    deadline = time.monotonic() + 30
    while len(member.assigned) < 2 and time.monotonic() < deadline:
        member.reader.poll(1, 0.0)
    for part in member.assigned:
        member.reader.seek(part, None)
    time.sleep(2.0)  # both are fetched
    found = [record.topic for record in member.reader.poll(100, 1.0)]
    assert found == [topics[0]] * 90 + [topics[1]] * 10
    # What is paused, sought and asked for is so at its own member.
    bulk = Partition(topics[1], 0)
    member.reader.pause([Partition(topics[0], 0)])
    member.reader.seek(bulk, 250)
    assert [(record.topic, record.offset) for record in member.read(50)] == [
        (topics[1], offset) for offset in range(250, 300)
    ]
    assert member.reader.high_watermark(bulk) == 300


def test_members_of_one_process_do_not_throw_each_other_out(
    kafka: ApacheKafka, namespace: str, join: Join
) -> None:
    """Static members have a name, and the broker knows one member of a name."""
    settings = quick_settings(kafka).model_copy(update={"options": {"group.instance.id": "worker-1"}})
    topics = make_lanes(settings, namespace, 5)
    member = join(settings, *topics)
    assert sorted(record.topic for record in member.read(10)) == sorted(topics * 5)


def test_a_commit_beyond_the_log_is_a_halt_that_names_the_way_out(
    kafka: ApacheKafka, namespace: str, join: Join
) -> None:
    """A topic made anew under an old group. (Tansu answers such a fetch with nothing.)"""
    settings = quick_settings(kafka)
    topic, group = make_topic(settings, f"{namespace}t", 5), f"{namespace}g"
    part = Partition(topic, 0)
    member = join(settings, topic, group=group)
    member.read(5)
    assert member.reader.commit({part: 4_000})
    member.reader.close()
    with pytest.raises(Halt) as caught:
        join(settings, topic, group=group).read(1)
    assert f"group {group} has a commit on {topic}[0] that lies outside the log" in str(caught.value)
    assert f"--to-earliest --group {group} --topic {topic}" in str(caught.value)
    assert "simstream reconcile" in str(caught.value)


def test_a_commit_that_retention_has_passed_is_a_halt_and_no_silent_reset(
    kafka: ApacheKafka, namespace: str, join: Join
) -> None:
    settings = quick_settings(kafka)
    topic, group = make_topic(settings, f"{namespace}t", 10), f"{namespace}g"
    part = Partition(topic, 0)
    member = join(settings, topic, group=group)
    member.read(10)
    assert member.reader.commit({part: 3})
    member.reader.close()
    admin = open_admin(settings)
    (future,) = admin.delete_records([TopicPartition(topic, 0, 6)]).values()
    future.result(10)
    with pytest.raises(Halt, match="retention removed the records"):
        join(settings, topic, group=group).read(1)
    # Without a commit there is nothing to lose: the beginning is where the log begins now.
    assert [record.offset for record in join(settings, topic).read(4)] == [6, 7, 8, 9]


def test_a_topic_that_does_not_exist_is_a_halt_that_says_how_to_create_it(
    settings: KafkaSettings, namespace: str, join: Join
) -> None:
    with pytest.raises(Halt, match="does not exist: create it with `simstream topics`"):
        join(settings, f"{namespace}missing")


def test_a_commit_of_somebody_who_is_no_member_any_more_is_told(
    kafka: ApacheKafka, namespace: str, join: Join
) -> None:
    """The coordinator fences it: an old owner cannot move the new owner's offsets."""
    settings = quick_settings(kafka)
    topic, group = make_topic(settings, f"{namespace}t", 3), f"{namespace}g"
    member = join(settings, topic, group=group)
    member.read(3)
    member.reader.close()
    other = join(settings, topic, group=group)
    other.read(3)
    outsider = GroupReader(settings, group=group, client_id="outsider")
    refused: list[KafkaError] = []

    def ignore(_: object) -> None:
        """Nothing is assigned to an outsider."""

    outsider.subscribe(
        [topic],
        on_assign=ignore,
        on_revoke=ignore,
        on_lost=ignore,
        on_commit_error=lambda _, error: refused.append(error),
    )
    assert not outsider.commit({Partition(topic, 0): 2})
    assert len(refused) == 1
    assert other.reader.committed([Partition(topic, 0)]) == {Partition(topic, 0): None}
    outsider.close()
