"""Kafka for consumers: one member of a group, in our words. Decides nothing: consumers/runner.py does.

Reads   records of the topics it subscribes to; commits offsets when told
Never   commits by itself, nor resets an offset silently: a commit whose offset is gone is a Halt
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from adapters.kafka import KafkaSettings, Record, as_record
from adapters.kafka_admin import topic_ids
from adapters.kafka_errors import OUTSIDE_THE_LOG, refuse_final
from schemas.errors import Halt, Transient

log = logging.getLogger(__name__)

_ASSIGN_PATIENCE_SECONDS = 60.0
_LAST_COMMIT_SECONDS = 10.0
#: Of what a poll may take, the part that is kept for each topic behind the first.
_KEPT = 10


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int


def _with_offsets(offsets: Mapping[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(part.topic, part.number, offset) for part, offset in offsets.items()]


class GroupReader:
    """A process in a consumer group, with a member per topic. Not thread-safe: the loop that polls owns it.

    A member per topic, because `cooperative-sticky` evens out numbers of partitions and not topics: where
    each member reads two, the second one to come is given all of one topic and nothing of the other. One
    member for all where the settings say so.
    """

    def __init__(self, settings: KafkaSettings, *, group: str, client_id: str) -> None:
        self.group = group
        self._config: dict[str, Any] = {
            "session.timeout.ms": 45_000,
            "max.poll.interval.ms": 300_000,
            "fetch.error.backoff.ms": 100,
            "queued.max.messages.kbytes": 16_384,
            "queued.min.messages": 10_000,
            **settings.client_config(client_id, consumes=True),
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # A partition without a commit is started at its beginning by `_assigned`; for one whose commit
            # points outside the log nothing may be guessed.
            "auto.offset.reset": "error",
            "partition.assignment.strategy": "cooperative-sticky",
            "isolation.level": "read_committed",
            "on_commit": self._committed,
        }
        self._consumer = Consumer(self._config)
        self._apart = settings.member_per_topic
        # By topic; that of the first is the one above.
        self._members: dict[str, Consumer] = {}
        self._admin = AdminClient(settings.client_config(f"{client_id}-admin"))
        self._topic_ids: dict[str, str] = {}
        self._on_commit_error: Callable[[Mapping[Partition, int], KafkaError], None] | None = None
        self._failure: BaseException | None = None
        # While members leave, each calls back from a thread of its own.
        self._one_callback = threading.Lock()
        # By partition the last commit that was answered, well or badly.
        self._answered: dict[Partition, int] = {}
        # Partitions that changed hands during the poll under way.
        self._moved: set[Partition] = set()

    def subscribe(
        self,
        topics: Sequence[str],
        *,
        on_assign: Callable[[Mapping[Partition, int | None]], None],
        on_revoke: Callable[[Sequence[Partition]], None],
        on_lost: Callable[[Sequence[Partition]], None],
        on_commit_error: Callable[[Mapping[Partition, int], KafkaError], None],
    ) -> None:
        """Join the group. Callbacks run inside `poll`; `on_assign` gets each partition's commit, or None.

        What waits in the first topic is polled first.
        """
        self._topic_ids = topic_ids(self._admin, topics)
        self._on_commit_error = on_commit_error

        def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            # An exception must not cross the C callback: `poll` raises it.
            try:
                with self._one_callback:
                    self._assigned(consumer, partitions, on_assign)
            except Halt as error:
                self._failure = error

        def giving_up(tell: Callable[[Sequence[Partition]], None]) -> Callable[..., None]:
            def gone(consumer: Consumer, partitions: list[TopicPartition]) -> None:
                parts = [Partition(part.topic, part.partition) for part in partitions]
                with self._one_callback:
                    self._moved.update(parts)
                    tell(parts)
                consumer.incremental_unassign(partitions)

            return gone

        for topic in topics:
            if topic not in self._members:
                new = self._apart and bool(self._members)
                self._members[topic] = self._member(topic) if new else self._consumer
        for member in self._all():
            member.subscribe(
                [topic for topic in topics if self._members[topic] is member],
                on_assign=assigned,
                on_revoke=giving_up(on_revoke),
                on_lost=giving_up(on_lost),
            )

    def _all(self) -> list[Consumer]:
        """Every member once, that of the first topic first."""
        return list(dict.fromkeys(self._members.values()))

    def _member(self, topic: str) -> Consumer:
        instance = self._config.get("group.instance.id")
        # Two members of one name would throw each other out.
        named = {"group.instance.id": f"{instance}-{topic}"} if instance else {}
        return Consumer({**self._config, **named})

    def _assigned(
        self,
        consumer: Consumer,
        partitions: list[TopicPartition],
        on_assign: Callable[[Mapping[Partition, int | None]], None],
    ) -> None:
        commits = self._commits_of([Partition(part.topic, part.partition) for part in partitions])
        on_assign(commits)
        consumer.incremental_assign(
            [
                TopicPartition(part.topic, part.number, OFFSET_BEGINNING if commit is None else commit)
                for part, commit in commits.items()
            ]
        )

    def _commits_of(self, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        """Topic ids and commits of new partitions; insists for a while, since the group counts on us."""
        deadline = time.monotonic() + _ASSIGN_PATIENCE_SECONDS
        while True:
            try:
                self._topic_ids.update(topic_ids(self._admin, sorted({part.topic for part in partitions})))
                return self.committed(partitions)
            except Transient as error:
                if time.monotonic() > deadline:
                    raise Halt(f"gave up taking over {len(partitions)} partitions: {error}") from error
                log.warning("assignment_waits group=%s reason=%s", self.group, error)
                time.sleep(0.5)

    def poll(self, limit: int, timeout_seconds: float) -> list[Record]:
        """Up to `limit` records: waits for the first one only, then takes what has already arrived.

        Raises Transient (nothing lost: poll again) or Halt (an offset outside the log, access refused).
        """
        messages = self._waiting(limit) if len(self._all()) > 1 else []
        messages = messages or self._consume(self._consumer, limit, timeout_seconds)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        records = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._raise(error, message)
            else:
                records.append(as_record(message, self._topic_ids[message.topic() or ""]))
        return records

    def _waiting(self, limit: int) -> list[Message]:
        """What has arrived for any member, the first one's first. All are asked: their callbacks run then."""
        found: list[Message] = []
        members = self._all()
        for place, member in enumerate(members, start=1):
            kept = (len(members) - place) * max(1, limit // _KEPT)
            found += self._consume(member, max(1, limit - len(found) - kept), 0.0)
        return found

    def _consume(self, consumer: Consumer, limit: int, timeout_seconds: float) -> list[Message]:
        messages = consumer.consume(1, timeout_seconds)
        if messages and limit > 1:
            self._moved.clear()
            more = consumer.consume(limit - 1, 0)
            # The first one may have been read under an assignment that ended in between. Its partition may
            # even be ours again, from an earlier offset: the record would then seem to come before its turn.
            messages = [
                message
                for message in messages
                if Partition(message.topic() or "", message.partition() or 0) not in self._moved
            ] + more
        return messages

    def _raise(self, error: KafkaError, message: Message) -> None:
        where = f"{message.topic()}[{message.partition()}]"
        if error.code() in OUTSIDE_THE_LOG:
            raise Halt(
                f"group {self.group} has a commit on {where} that lies outside the log ({error.str()}): "
                "retention removed the records between it and the log's start, or the topic was made anew. "
                "To go on from the oldest record, reset the group's offset there with "
                f"`kafka-consumer-groups --reset-offsets --to-earliest --group {self.group} --topic "
                f"{message.topic()} --execute`, then run `simstream reconcile`"
            )
        refuse_final(error, where)

    def committed(self, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        """Each partition's committed offset, None where there is none. Raises Transient or Halt."""
        answers: list[TopicPartition] = []
        # Each member asks for its own. Another one may be joining: the broker answers nothing on its
        # connection before everybody has joined, and whoever is just being assigned to would wait for that.
        for member, asked in self._by_member([TopicPartition(*part) for part in partitions]):
            try:
                answers += member.committed(asked, timeout=10.0)
            except KafkaException as error:
                raise Transient(
                    f"the broker did not say what group {self.group} has committed: {error}"
                ) from error
        for answer in answers:
            if answer.error is not None:
                raise Transient(
                    f"no committed offset of {answer.topic}[{answer.partition}]: {answer.error.str()}"
                )
        return {
            Partition(answer.topic, answer.partition): answer.offset if answer.offset >= 0 else None
            for answer in answers
        }

    def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """Commit one past the last done record of each partition; whether it is known to have worked.

        Blocks; for callbacks, and then for partitions of the call alone.
        """
        worked = True
        for member, asked in self._by_member(_with_offsets(offsets)):
            try:
                answers = member.commit(offsets=asked, asynchronous=False)
            except KafkaException as error:
                self._committed(error.args[0], asked)
                worked = False
                continue
            for answer in answers or []:
                if answer.error is not None:
                    self._committed(answer.error, [answer])
                    worked = False
        return worked

    def commit_later(self, offsets: Mapping[Partition, int]) -> bool:
        """The same without waiting: a bad answer comes to `on_commit_error`, during a later poll."""
        worked = True
        for member, asked in self._by_member(_with_offsets(offsets)):
            try:
                member.commit(offsets=asked, asynchronous=True)
            except KafkaException as error:
                self._committed(error.args[0], asked)
                worked = False
        return worked

    def commit_at_last(self, offsets: Mapping[Partition, int]) -> bool:
        """The same for the end: waits until all is answered, for ten seconds at most; whether it was.

        It polls meanwhile, for a group that waits for one of our members answers no other one. What is polled
        is dropped: nothing is to be polled after this.
        """
        worked, deadline = self.commit_later(offsets), time.monotonic() + _LAST_COMMIT_SECONDS
        while worked and any(self._answered.get(part) != offset for part, offset in offsets.items()):
            if time.monotonic() > deadline:
                return False
            for member in self._all():
                member.consume(1, 0.02)
        return worked

    def _committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        for part in partitions:
            where, reason = Partition(part.topic, part.partition), error or part.error
            self._answered[where] = part.offset
            if reason is not None and self._on_commit_error is not None:
                self._on_commit_error({where: part.offset}, reason)

    def _of(self, topic: str) -> Consumer:
        """Whoever reads the topic; before there is one, the first."""
        return self._members.get(topic, self._consumer)

    def _by_member(self, parts: list[TopicPartition]) -> Iterator[tuple[Consumer, list[TopicPartition]]]:
        for topic, of_it in groupby(sorted(parts), key=attrgetter("topic")):
            yield self._of(topic), list(of_it)

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Fetch no more of these; polling goes on, so the group keeps this member."""
        for member, parts in self._by_member([TopicPartition(*part) for part in partitions]):
            member.pause(parts)

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Fetch these again."""
        for member, parts in self._by_member([TopicPartition(*part) for part in partitions]):
            member.resume(parts)

    def seek(self, partition: Partition, offset: int | None) -> None:
        """Go on reading at `offset`, at the beginning when None. Raises Transient."""
        try:
            self._of(partition.topic).seek(
                TopicPartition(
                    partition.topic, partition.number, OFFSET_BEGINNING if offset is None else offset
                )
            )
        except KafkaException as error:
            raise Transient(f"could not go back to offset {offset} of {partition}: {error}") from error

    def high_watermark(self, partition: Partition) -> int | None:
        """End of the log as the last fetch said, which is right on every broker; None before the first."""
        try:
            _, high = self._of(partition.topic).get_watermark_offsets(
                TopicPartition(partition.topic, partition.number), cached=True
            )
        except KafkaException:
            return None
        return high if high >= 0 else None

    def close(self) -> None:
        """Leave the group, all members at once.

        One after the other, the first could wait for the group, the group for a callback of the second, and
        that for its turn to close: a minute, in which partitions belong to nobody who reads them.
        """
        closing = [
            threading.Thread(target=member.close, name=f"leaving-{self.group}", daemon=True)
            for member in {self._consumer, *self._members.values()}
        ]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
