"""The one loop that polls and commits.

Reads   the handler's topics, as one member of its group
Writes  dead letters; commits
Never   commits past a record whose effect is not done, nor dead-letters because a store is down

1. poll      up to a batch; paused partitions under back-pressure, polling goes on
2. decode    what can never parse is dead-lettered with its reason
3. handle    on a thread of its own; handlers settle each record when its whole effect is done
4. collect   one past the last record before which everything is settled, per partition
5. commit    what was reached `commit_delay_seconds` ago, if the store is still the one that took the effect
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from confluent_kafka import KafkaError
from pydantic import Field

from adapters.kafka import Record
from adapters.kafka_reader import GroupReader, Partition
from adapters.metrics import (
    BATCH_RECORDS,
    COMMITS_TOTAL,
    DEAD_LETTERS_TOTAL,
    HALTS_TOTAL,
    IN_FLIGHT_RECORDS,
    LAG_RECORDS,
    RECORDS_TOTAL,
    REWINDS_TOTAL,
    TRANSIENT_ERRORS_TOTAL,
)
from consumers.back_pressure import BackPressure
from consumers.backlog import Backlog, Unread, is_bulk
from consumers.dead_letters import DeadLetters
from consumers.erasures import Erasures, OlderWork
from consumers.handler import Handler
from consumers.poison import Poison
from consumers.progress import Delivery, Progress
from schemas.errors import POISON_KINDS, Transient
from schemas.events import Frozen

log = logging.getLogger(__name__)

E = TypeVar("E")

#: Records that are polled and parsed at a time.
_POLL_RECORDS = 500


class RunnerSettings(Frozen):
    """How much the loop holds at once, and how often it commits.

    `read_ahead_records` bounds the bulk records that wait as they came, about 2 kB each.
    """

    batch_records: int = Field(default=500, ge=1)
    in_flight_records: int = Field(default=5_000, ge=1)
    read_ahead_records: int = Field(default=50_000, ge=1)
    commit_interval_seconds: float = Field(default=0.5, gt=0)
    backoff_seconds: float = Field(default=0.1, gt=0)
    max_backoff_seconds: float = Field(default=5.0, gt=0)


class Runner(Generic[E]):
    """Runs one handler as one member of its group until `stop` is called or a Halt is raised.

    `standing` is asked at the start and before each commit; it raises Halt when the work is wanted no more.
    """

    def __init__(
        self,
        *,
        reader: GroupReader,
        handler: Handler[E],
        dead_letters: DeadLetters,
        settings: RunnerSettings,
        accept_poison: int = 0,
        standing: Callable[[], None] = lambda: None,
        erasures: Erasures | None = None,
    ) -> None:
        self._standing = standing
        self._erasures = erasures
        self._older: OlderWork | None = None
        self._reader = reader
        self._handler = handler
        self._poison = Poison(consumer=handler.name, dead_letters=dead_letters, accept=accept_poison)
        self._settings = settings
        self._progress: dict[Partition, Progress] = {}
        self._back_pressure = BackPressure(
            reader=reader,
            consumer=handler.name,
            topics=handler.topics,
            in_flight_records=settings.in_flight_records,
            read_ahead_records=settings.read_ahead_records,
        )
        # Unbounded on purpose: what is in flight is bounded by pausing, so the poll thread never blocks here.
        self._backlog: Backlog[E] = Backlog()
        self._failure: BaseException | None = None
        self._epoch: str | None = None
        self._next_commit = 0.0
        self._stop = threading.Event()
        # The worker outlives `stop`: work in hand is finished while `_finish` waits for it.
        self._ended = threading.Event()
        self._halted = False
        #: Set while the group has given this process partitions, of one topic at least.
        self.assigned = threading.Event()
        HALTS_TOTAL.labels(consumer=handler.name)
        for topic in handler.topics:
            for kind in POISON_KINDS:
                DEAD_LETTERS_TOTAL.labels(consumer=handler.name, topic=topic, reason=kind)

    def stop(self) -> None:
        """Ask the loop to end after the work in hand; any thread."""
        self._stop.set()

    def run(self) -> None:
        """Poll until stopped. Raises Halt, or what killed the handler, with nothing more committed."""
        worker = threading.Thread(target=self._work, name=f"{self._handler.name}-worker", daemon=True)
        try:
            self._epoch = self._first_epoch()
            self._subscribe()
            worker.start()
            while not self._stop.is_set():
                self._step(poll_seconds=0.1)
            self._finish()
        except BaseException:
            self._halted = True  # stopping because of a fault commits nothing more
            HALTS_TOTAL.labels(consumer=self._handler.name).inc()
            raise
        finally:
            self._stop.set()
            self._ended.set()
            self._backlog.close()
            self._handler.close()
            if worker.ident is not None:
                worker.join(10.0)
            self._reader.close()
            for part in self._progress:
                self._forget_lag(part)

    def _first_epoch(self) -> str | None:
        """Which incarnation of the store the effects will go to; waits until it can say.

        Raises Halt, before it joins the group, when the work is wanted no more.
        """
        pause = self._settings.backoff_seconds
        while not self._stop.is_set():
            try:
                epoch = self._handler.store_epoch()
                self._handler.adopt(epoch)
                self._standing()
                return epoch
            except Transient as error:
                log.warning("consumer_waits consumer=%s reason=%s", self._handler.name, error)
                self._stop.wait(pause)
                pause = min(pause * 2, self._settings.max_backoff_seconds)
        return None

    def _subscribe(self) -> None:
        while not self._stop.is_set():
            try:
                self._reader.subscribe(
                    self._handler.topics,
                    on_assign=self._on_assign,
                    on_revoke=self._on_revoke,
                    on_lost=self._on_lost,
                    on_commit_error=self._on_commit_error,
                )
                return
            except Transient as error:
                log.warning("consumer_waits consumer=%s reason=%s", self._handler.name, error)
                self._stop.wait(self._settings.max_backoff_seconds / 5)

    def _step(self, *, poll_seconds: float) -> None:
        # 1. poll, 2. decode, 3. hand over
        self._take(poll_seconds)
        if self._failure is not None:
            raise self._failure
        fatal = self._handler.fatal()
        if fatal is not None:
            raise fatal
        # 4. collect
        now = time.monotonic()
        for progress in self._progress.values():
            progress.collect(now)
        self._acknowledge_erasures()
        self._back_pressure.apply(self._progress, bulk_waiting=self._backlog.bulk_waiting)
        # 5. commit
        if now >= self._next_commit:
            self._next_commit = now + self._settings.commit_interval_seconds
            self._check_standing()
            self._commit(now, self._progress, self._reader.commit_later, rewinds=True)
            self._report_lag()

    def _take(self, poll_seconds: float) -> None:
        """Poll up to a batch, and hand over what came: live records parsed, bulk ones as they are.

        A few hundred at a time while more of them wait: by the end of a large batch the first records would
        have left the processor's cache before they are parsed.
        """
        batch = self._settings.batch_records
        live: list[Delivery[E]] = []
        bulk: list[Unread[E]] = []
        polled = 0
        while polled < batch:
            limit = min(_POLL_RECORDS, batch - polled)
            records = self._reader.poll(limit, 0.0 if polled else poll_seconds)
            if not records:
                break
            polled += len(records)
            self._place(records, live, bulk)
            if len(records) < limit:
                break
        if polled:
            BATCH_RECORDS.labels(consumer=self._handler.name).observe(polled)
            # A partition that went while more of its records were polled.
            self._backlog.put([delivery for delivery in live if not delivery.abandoned], bulk)

    def _place(self, records: Sequence[Record], live: list[Delivery[E]], bulk: list[Unread[E]]) -> None:
        """Give every record its place in flight; live ones are parsed here, bulk ones at their turn."""
        unread: list[tuple[Record, Delivery[E]]] = []
        in_order = self._handler.in_order
        where, progress = ("", -1), None
        for record in records:
            # Most come right behind another of their partition.
            if where != (record.topic, record.partition):
                where = Partition(record.topic, record.partition)
                progress = self._progress.get(where)
            if progress is None:
                continue  # revoked between the fetch and here: its next owner reads it
            delivery: Delivery[E] = Delivery(None, record.offset, progress)
            progress.in_flight.append(delivery)
            if in_order or not is_bulk(record):
                unread.append((record, delivery))
            else:
                bulk.append(Unread(record, delivery))
        # Before they count as read: whoever sees all read and none in hand may take them for done.
        IN_FLIGHT_RECORDS.labels(consumer=self._handler.name).inc(len(records))
        for topic, count in Counter(record.topic for record in records).items():
            RECORDS_TOTAL.labels(consumer=self._handler.name, topic=topic).inc(count)
        live += self._poison.parsed(unread, self._handler.decode)

    def _work(self) -> None:
        """The handler's thread: each batch until it is taken, however long the stores are away."""
        pause = self._settings.backoff_seconds
        try:
            while (taken := self._backlog.take(self._settings.batch_records)) is not None:
                live, bulk = taken
                batch = live or self._poison.parsed(bulk, self._handler.decode)
                while not self._ended.is_set():
                    open_ones = [one for one in batch if not one.settled and not one.abandoned]
                    if not open_ones:
                        break
                    try:
                        self._handler.handle(open_ones)
                        pause = self._settings.backoff_seconds
                        for one in batch:
                            one.let_go()
                        break
                    except Transient as error:
                        log.warning("consumer_waits consumer=%s reason=%s", self._handler.name, error)
                        TRANSIENT_ERRORS_TOTAL.labels(stage=self._handler.name).inc()
                        self._ended.wait(pause)
                        pause = min(pause * 2, self._settings.max_backoff_seconds)
        except BaseException as error:  # noqa: BLE001  handed to the loop, which raises it
            self._failure = error

    def _acknowledge_erasures(self) -> None:
        """Say which erasures have had their consequences: all that was in hand when they came is done."""
        if self._erasures is None:
            return
        reached = self._erasures.reached
        if self._older is None or self._older.reached is not reached:
            self._older = OlderWork(reached, self._progress.values())
        if self._older.done():
            self._erasures.acknowledge(reached)

    def _check_standing(self) -> None:
        """Raises Halt when the work is wanted no more. Not from `_commit`, which Kafka's callbacks reach."""
        try:
            self._standing()
        except Transient as error:
            log.warning("consumer_waits consumer=%s reason=%s", self._handler.name, error)

    def _commit(
        self,
        now: float,
        parts: Iterable[Partition],
        send: Callable[[Mapping[Partition, int]], bool],
        *,
        rewinds: bool = False,
    ) -> None:
        if self._halted or not self._store_is_the_same(rewinds=rewinds):
            return
        offsets: dict[Partition, int] = {}
        for part in parts:
            progress = self._progress.get(part)
            if progress is None:
                continue
            offset = progress.due(now, self._handler.commit_delay_seconds)
            if offset is not None:
                offsets[part] = progress.committed = offset
        if offsets:
            if send(offsets):
                COMMITS_TOTAL.labels(consumer=self._handler.name, result="sent").inc()

    def _store_is_the_same(self, *, rewinds: bool) -> bool:
        """Whether effects younger than the commit still stand; `rewinds` goes back to it where they may not.

        Never goes back in a callback: what the same poll has brought of another topic would come out of turn.
        """
        try:
            epoch = self._handler.store_epoch()
        except Transient:
            return False  # nothing is committed while the store cannot say who it is
        if epoch == self._epoch:
            return True
        if not rewinds:
            return False
        log.warning("store_restarted consumer=%s: reading again from the commit", self._handler.name)
        REWINDS_TOTAL.labels(consumer=self._handler.name).inc()
        try:
            commits = self._reader.committed(list(self._progress))
            for part, commit in commits.items():
                self._reader.seek(part, commit)
                self._progress[part].abandon()
                self._progress[part] = Progress(commit)
        except Transient as error:
            log.warning("consumer_waits consumer=%s reason=%s", self._handler.name, error)
            return False
        self._epoch = epoch
        self._handler.adopt(epoch)
        return False

    def _report_lag(self) -> None:
        for part, progress in self._progress.items():
            high = self._reader.high_watermark(part)
            if high is not None:
                lag = max(0, high - (progress.reached or progress.committed or 0))
                LAG_RECORDS.labels(*self._lag_labels(part)).set(lag)

    def _lag_labels(self, part: Partition) -> tuple[str, str, str, str]:
        return self._handler.name, self._reader.group, part.topic, str(part.number)

    def _forget_lag(self, part: Partition) -> None:
        """Its next owner tells."""
        with suppress(KeyError):  # it was never told
            LAG_RECORDS.remove(*self._lag_labels(part))

    def _finish(self) -> None:
        """A clean stop: give the work in hand a moment, then commit what trails long enough."""
        deadline = time.monotonic() + self._handler.commit_delay_seconds + 1.0
        while time.monotonic() < deadline and any(one.in_flight for one in self._progress.values()):
            for progress in self._progress.values():
                progress.collect(time.monotonic())
            time.sleep(0.02)
        self._commit(time.monotonic(), self._progress, self._reader.commit_at_last)

    # --- what the group tells us; called inside poll -----------------------------------------------

    def _on_assign(self, commits: Mapping[Partition, int | None]) -> None:
        # The newcomers are not paused, so neither are the others: the next step decides for all of them.
        self._back_pressure.lift(self._progress)
        for part, commit in commits.items():
            self._progress[part] = Progress(commit)
        if self._progress:
            self.assigned.set()
        log.info("partitions_assigned consumer=%s count=%d", self._handler.name, len(commits))

    def _on_revoke(self, partitions: Sequence[Partition]) -> None:
        now = time.monotonic()
        for part in partitions:
            if part in self._progress:
                self._progress[part].collect(now)
        # No others': their member may be joining, which the group waits for until this call is over.
        self._commit(now, partitions, self._reader.commit)
        self._on_lost(partitions)

    def _on_lost(self, partitions: Sequence[Partition]) -> None:
        for part in partitions:
            progress = self._progress.pop(part, None)
            if progress is not None:
                progress.abandon()
                self._forget_lag(part)
        if not self._progress:
            self.assigned.clear()
        log.info("partitions_revoked consumer=%s count=%d", self._handler.name, len(partitions))

    def _on_commit_error(self, offsets: Mapping[Partition, int], error: KafkaError) -> None:
        """A commit that fails loses nothing: it is sent again, or the next owner reads again."""
        COMMITS_TOTAL.labels(consumer=self._handler.name, result="failed").inc()
        for part, offset in offsets.items():
            if part in self._progress:
                self._progress[part].commit_again(offset)
        log.warning(
            "commit_failed consumer=%s partitions=%d reason=%s", self._handler.name, len(offsets), error.str()
        )
