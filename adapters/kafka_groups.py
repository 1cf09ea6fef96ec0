"""A consumer group seen from outside: its commits, how far it lags, its end.

Reads   ends of partitions, commits of a group
Writes  commits of a group that has no member yet; removes a group
Never   joins a group
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from adapters.kafka import KafkaSettings
from adapters.kafka_admin import partition_numbers
from adapters.kafka_reader import Partition
from schemas.errors import Transient

_TIMEOUT_SECONDS = 15.0
_NO_GROUP = (KafkaError.GROUP_ID_NOT_FOUND, KafkaError.UNKNOWN_TOPIC_OR_PART)
_HAS_MEMBERS = KafkaError.NON_EMPTY_GROUP
_NO_LEADER = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


class GroupOffsets:
    """Commits and lag of one group on some topics. Not thread-safe. `close` it."""

    def __init__(self, settings: KafkaSettings, *, group: str, topics: Sequence[str]) -> None:
        self._group = group
        self._topics = list(topics)
        self._consumer = Consumer(
            {
                **settings.client_config("simstream-group-offsets", consumes=True),
                "group.id": group,
                "enable.auto.commit": False,
            }
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()

    def __enter__(self) -> GroupOffsets:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def partitions(self) -> list[Partition]:
        """Every partition of the topics. Raises Halt for a topic that does not exist."""
        found = []
        for topic in self._topics:
            found += [Partition(topic, number) for number in partition_numbers(self._consumer, topic)]
        return found

    def ends(self) -> dict[Partition, int]:
        """One past the last record of each partition. (Tansu says: one past the first of its last batch.)"""
        found = {}
        for part in self.partitions():
            with _calling(f"asking for the end of {part.topic}[{part.number}]"):
                found[part] = self._end(TopicPartition(part.topic, part.number))
        return found

    def _end(self, part: TopicPartition) -> int:
        """Asked again for a moment while the partition, newly made or moved, has no leader yet."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            try:
                return int(self._consumer.get_watermark_offsets(part, timeout=_TIMEOUT_SECONDS)[1])
            except KafkaException as error:
                if error.args[0].code() not in _NO_LEADER or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def commits(self) -> dict[Partition, int | None]:
        """The group's commit on each partition, None where there is none."""
        asked = [TopicPartition(part.topic, part.number) for part in self.partitions()]
        with _calling(f"reading the commits of {self._group}"):
            answers = self._consumer.committed(asked, timeout=_TIMEOUT_SECONDS)
        for answer in answers:
            if answer.error is not None:
                raise Transient(f"no commit of {answer.topic}[{answer.partition}]: {answer.error.str()}")
        return {
            Partition(answer.topic, answer.partition): answer.offset if answer.offset >= 0 else None
            for answer in answers
        }

    def start_at_ends(self) -> dict[Partition, int]:
        """Commit the end of every partition that has no commit, and read them all back; the commits.

        The group must have no member. Whatever was announced before is left to a walk over all items, which
        has to begin after this returns. Raises Transient; repeating it moves no commit that stands.
        """
        standing = self.commits()
        missing = [part for part, offset in standing.items() if offset is None]
        if missing:
            ends = self.ends()
            self.commit({part: ends[part] for part in missing})
            standing = self.commits()
        lost = [part for part, offset in standing.items() if offset is None]
        if lost:
            raise Transient(f"the broker took {len(lost)} commits of {self._group} and does not show them")
        return {part: offset for part, offset in standing.items() if offset is not None}

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit these. The group must have no member. Raises Transient."""
        asked = [TopicPartition(part.topic, part.number, offset) for part, offset in offsets.items()]
        with _calling(f"committing for {self._group}"):
            answers = self._consumer.commit(offsets=asked, asynchronous=False) or []
        for answer in answers:
            if answer.error is not None:
                raise Transient(f"{answer.topic}[{answer.partition}]: {answer.error.str()}")

    def lag(self) -> int:
        """Records that the group has not committed, over all partitions; without a commit, all of them."""
        commits, ends = self.commits(), self.ends()
        return sum(max(0, end - (commits[part] or 0)) for part, end in ends.items())


def group_members(settings: KafkaSettings, groups: Sequence[str]) -> dict[str, int]:
    """How many members each group has; a group that does not exist has none. Raises Transient."""
    if not groups:
        return {}
    admin = AdminClient(settings.client_config("simstream-group-admin"))
    found = {}
    for group, future in admin.describe_consumer_groups(
        list(groups), request_timeout=_TIMEOUT_SECONDS
    ).items():
        try:
            found[group] = len(future.result(_TIMEOUT_SECONDS + 1.0).members)
        except TimeoutError as error:
            raise Transient(f"group {group} was not described: the broker does not answer") from error
        except KafkaException as error:
            if error.args[0].code() not in _NO_GROUP:
                raise Transient(f"group {group} was not described: {error.args[0].str()}") from error
            found[group] = 0
    return found


def remove_group(settings: KafkaSettings, group: str) -> bool:
    """Remove a group with its commits; False while it has members. Raises Transient.

    Tansu removes it under its members as well.
    """
    admin = AdminClient(settings.client_config("simstream-group-admin"))
    for future in admin.delete_consumer_groups([group], request_timeout=_TIMEOUT_SECONDS).values():
        try:
            future.result(_TIMEOUT_SECONDS + 1.0)
        except TimeoutError as error:
            raise Transient(f"group {group} was not removed: the broker does not answer") from error
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() == _HAS_MEMBERS:
                return False
            if reason.code() not in _NO_GROUP:
                raise Transient(f"group {group} was not removed: {reason.str()}") from error
    return True


@contextmanager
def _calling(what: str) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise Transient(f"the broker failed while {what}: {error.args[0].str()}") from error
