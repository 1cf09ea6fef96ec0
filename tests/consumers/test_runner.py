"""The loop against a scripted reader: commit order, retries, back-pressure, halts, rewinds, rebalances."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import KafkaError
from prometheus_client import REGISTRY

from adapters.kafka import Record
from adapters.kafka_reader import Partition
from consumers.dead_letters import DeadLetters
from consumers.poison import POISON_WINDOW
from consumers.progress import Delivery
from consumers.runner import Runner, RunnerSettings
from schemas.errors import Halt, PoisonMessage, Transient

TOPIC, BULK = "items", "items.bulk"
P0, P1, B0 = Partition(TOPIC, 0), Partition(TOPIC, 1), Partition(BULK, 0)
QUICK = RunnerSettings(commit_interval_seconds=0.01, backoff_seconds=0.005, max_backoff_seconds=0.01)


def records(part: Partition, *offsets: int, value: bytes = b"good") -> list[Record]:
    return [Record(part.topic, "id", part.number, offset, 0, b"k", value) for offset in offsets]


class Reader:
    """A group of one member that is given what the test hands it."""

    group = "test-group"

    def __init__(self, *partitions: Partition, commits: Mapping[Partition, int] | None = None) -> None:
        self.partitions = partitions
        self.stored = dict(commits or {})
        self.commits: list[tuple[Partition, int]] = []
        self.pauses: list[tuple[str, Partition]] = []
        self.seeks: list[tuple[Partition, int | None]] = []
        self.polls = 0
        self.closed = False
        self.refuse: KafkaError | None = None
        self.script: list[list[Record] | Callable[[], None]] = []
        self.high: dict[Partition, int] = {}
        self._assigned = False

    def subscribe(self, topics: Sequence[str], **callbacks: Any) -> None:
        self.callbacks = callbacks

    def poll(self, limit: int, timeout_seconds: float) -> list[Record]:
        self.polls += 1
        if not self._assigned:
            self._assigned = True
            self.callbacks["on_assign"]({part: self.stored.get(part) for part in self.partitions})
            return []
        if self.script:
            step = self.script.pop(0)
            if not callable(step):
                return step
            step()
        time.sleep(0.002)
        return []

    def committed(self, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        return {part: self.stored.get(part) for part in partitions}

    def commit(self, offsets: Mapping[Partition, int]) -> bool:
        if self.refuse is not None:
            refused, self.refuse = self.refuse, None
            self.callbacks["on_commit_error"](offsets, refused)
            return False
        self.commits += offsets.items()
        self.stored.update(offsets)
        return True

    commit_later = commit_at_last = commit

    def pause(self, partitions: Sequence[Partition]) -> None:
        self.pauses += [("pause", part) for part in partitions]

    def resume(self, partitions: Sequence[Partition]) -> None:
        self.pauses += [("resume", part) for part in partitions]

    def seek(self, partition: Partition, offset: int | None) -> None:
        self.seeks.append((partition, offset))

    def high_watermark(self, partition: Partition) -> int | None:
        return self.high.get(partition)

    def close(self) -> None:
        self.closed = True


class Worker:
    """A handler that keeps what it is handed until the test settles it, or settles at once."""

    name = "worker"
    topics: Sequence[str] = (TOPIC, BULK)

    def __init__(self, *, at_once: bool = True, delay_seconds: float = 0.0) -> None:
        self.commit_delay_seconds = delay_seconds
        self.in_order = False
        self.adopted: list[str | None] = []
        self.at_once = at_once
        self.taken: list[Delivery[bytes]] = []
        self.failures: list[BaseException] = []
        self.unreadable: list[BaseException] = []
        self.epoch: str | None = "first"
        self.died: BaseException | None = None
        self.closed = False
        self.calls = 0

    def decode(self, record: Record) -> bytes:
        assert record.value is not None
        if record.value == b"bad":
            raise PoisonMessage("field 'title' is missing")
        if record.value == b"fault":
            raise ValueError("what a shopper wrote")
        if self.unreadable:
            raise self.unreadable.pop()
        return record.value

    def handle(self, deliveries: Sequence[Delivery[bytes]]) -> None:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        self.taken += deliveries
        if self.at_once:
            for delivery in deliveries:
                delivery.settle()

    def store_epoch(self) -> str | None:
        if self.epoch is None:
            raise Transient("the store is away")
        return self.epoch

    def adopt(self, epoch: str | None) -> None:
        self.adopted.append(epoch)

    def fatal(self) -> BaseException | None:
        return self.died

    def close(self) -> None:
        self.closed = True


class Letters:
    """The broker's side of the dead letters: acknowledged at once, or by the test."""

    topic_of = staticmethod(DeadLetters.topic_of)

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.kept: list[tuple[int, str]] = []
        self.acknowledge: list[Callable[[], None]] = []

    def put(self, record: Record, reason: str, *, on_done: Callable[[], None]) -> None:
        self.kept.append((record.offset, reason))
        self.acknowledge.append(on_done)
        if not self.silent:
            on_done()


class Running:
    """A runner on its thread."""

    def __init__(self, reader: Reader, worker: Worker, letters: Letters, **more: Any) -> None:
        collaborators: dict[str, Any] = {"reader": reader, "handler": worker, "dead_letters": letters}
        self.runner: Runner[bytes] = Runner(**collaborators, **{"settings": QUICK, **more})
        self.reader, self.worker, self.letters = reader, worker, letters
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.runner.run()
        except BaseException as error:  # noqa: BLE001  looked at by the test
            self.failure = error

    def until(self, condition: Callable[[], object], timeout_seconds: float = 5.0) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            if self.failure is not None:
                raise self.failure
            assert time.monotonic() < deadline, "it did not come to that"
            time.sleep(0.002)

    def settle_steps(self, steps: int = 6) -> None:
        """Let the loop go round some more times."""
        wanted = self.reader.polls + steps
        self.until(lambda: self.reader.polls >= wanted)

    def ended(self) -> BaseException | None:
        self.thread.join(10.0)
        assert not self.thread.is_alive()
        assert self.reader.closed
        assert self.worker.closed
        return self.failure

    def stop(self) -> None:
        self.runner.stop()
        assert self.ended() is None


@contextmanager
def running(
    reader: Reader, worker: Worker | None = None, letters: Letters | None = None, **more: Any
) -> Iterator[Running]:
    run = Running(reader, worker or Worker(), letters or Letters(), **more)
    yield run
    run.runner.stop()
    run.ended()


def test_each_partition_commits_one_past_its_newest_settled_record() -> None:
    reader = Reader(P0, P1)
    reader.script = [records(P0, 4, 5) + records(P1, 9)]
    with running(reader) as run:
        run.until(lambda: reader.stored == {P0: 6, P1: 10})
        run.settle_steps()
        assert sorted(reader.commits) == [(P0, 6), (P1, 10)]  # once each: nothing new, nothing committed


def test_nothing_is_committed_past_a_record_that_is_not_done() -> None:
    reader, worker = Reader(P0), Worker(at_once=False)
    reader.script = [records(P0, 0, 1, 2)]
    with running(reader, worker) as run:
        run.until(lambda: len(worker.taken) == 3)
        worker.taken[1].settle()
        worker.taken[2].settle()
        run.settle_steps()
        assert reader.commits == []
        worker.taken[0].settle()
        run.until(lambda: reader.stored == {P0: 3})


def test_a_bad_record_is_dead_lettered_and_holds_the_commit_until_the_broker_has_it() -> None:
    reader, letters = Reader(P0), Letters(silent=True)
    reader.script = [records(P0, 0) + records(P0, 1, value=b"bad") + records(P0, 2)]
    with running(reader, letters=letters) as run:
        run.until(lambda: reader.stored == {P0: 1})
        run.settle_steps()
        assert reader.stored == {P0: 1}
        assert letters.kept == [(1, "field 'title' is missing")]
        letters.acknowledge[0]()
        run.until(lambda: reader.stored == {P0: 3})


def test_a_record_that_decode_fails_on_is_dead_lettered_without_its_words_and_the_rest_goes_on() -> None:
    reader, letters = Reader(P0), Letters()
    reader.script = [records(P0, 0) + records(P0, 1, value=b"fault") + records(P0, 2)]
    with running(reader, letters=letters) as run:
        run.until(lambda: reader.stored == {P0: 3})
    ((offset, reason),) = letters.kept
    assert offset == 1
    assert reason.startswith("the record could not be read: ValueError in decode (test_runner.py:")
    assert "shopper" not in reason


@pytest.mark.parametrize("error", [Halt("a person has to decide"), Transient("away"), MemoryError()])
def test_what_is_no_fault_of_the_record_puts_nothing_aside(error: BaseException) -> None:
    reader, worker, letters = Reader(P0), Worker(), Letters()
    worker.unreadable = [error]
    reader.script = [records(P0, 0)]
    assert Running(reader, worker, letters).ended() is error
    assert letters.kept == []
    assert reader.commits == []


def test_lag_is_told_by_partition_and_by_its_next_owner_once_it_has_gone() -> None:
    def lag(part: Partition) -> float | None:
        labels = {"consumer": "worker", "group": Reader.group, "topic": part.topic}
        return REGISTRY.get_sample_value("simstream_lag_records", {**labels, "partition": str(part.number)})

    reader, worker = Reader(P0, P1, commits={P1: 4}), Worker(at_once=False)
    reader.high = {P0: 3, P1: 10}
    reader.script = [records(P0, 0, 1, 2)]
    with running(reader, worker) as run:
        run.until(lambda: lag(P0) == 3.0 and len(worker.taken) == 3)
        assert lag(P1) == 6.0
        for delivery in worker.taken:
            delivery.settle()
        run.until(lambda: lag(P0) == 0.0)
        reader.script.append(lambda: reader.callbacks["on_revoke"]([P1]))
        run.until(lambda: lag(P1) is None)
        run.settle_steps()
        assert lag(P1) is None
        assert lag(P0) == 0.0
    assert lag(P0) is None


def test_dead_letters_are_counted_by_reason_from_zero_and_faults_as_halts() -> None:
    def letters(kind: str, consumer: str = "worker") -> float | None:
        labels = {"consumer": consumer, "topic": TOPIC, "reason": kind}
        return REGISTRY.get_sample_value("simstream_dead_letters_total", labels)

    def halts() -> float:
        return REGISTRY.get_sample_value("simstream_halts_total", {"consumer": "worker"}) or 0.0

    reader = Reader(P0)
    with running(reader) as run:
        run.until(lambda: letters("clock") is not None)
        before, halted = letters("invalid"), halts()
        assert before is not None
        reader.script = [records(P0, 0, value=b"bad")]
        run.until(lambda: letters("invalid") == before + 1)
    assert halts() == halted
    worker = Worker()
    worker.died = Halt("a thread has ended")
    with running(Reader(P0), worker) as run:
        assert isinstance(run.ended(), Halt)
    assert halts() == halted + 1


def test_a_store_that_is_away_means_trying_again_with_what_is_open_and_no_dead_letter() -> None:
    reader, worker, letters = Reader(P0), Worker(), Letters()
    worker.failures = [Transient("away")] * 5
    reader.script = [records(P0, 0, 1)]
    with running(reader, worker, letters) as run:
        run.until(lambda: reader.stored == {P0: 2})
    assert worker.calls == 6
    assert [one.offset for one in worker.taken] == [0, 1]
    assert letters.kept == []


def test_polling_goes_on_while_the_store_is_away() -> None:
    reader, worker = Reader(P0), Worker()
    worker.failures = [Transient("away")] * 100_000
    reader.script = [records(P0, 0)]
    with running(reader, worker) as run:
        run.settle_steps(40)
        assert reader.commits == []
        worker.failures.clear()
        run.until(lambda: reader.stored == {P0: 1})


def test_what_a_retry_finds_settled_or_abandoned_is_not_done_again() -> None:
    reader, worker = Reader(P0, P1), Worker(at_once=False)
    done: list[Delivery[bytes]] = []

    def settle_one(deliveries: Sequence[Delivery[bytes]]) -> None:
        worker.calls += 1
        if worker.calls == 1:
            deliveries[0].settle()
            reader.script.append(lambda: reader.callbacks["on_lost"]([P1]))
            raise Transient("half way")
        if worker.calls < 20:
            raise Transient("still")
        done.extend(deliveries)
        for one in deliveries:
            one.settle()

    worker.handle = settle_one  # type: ignore[method-assign]
    reader.script = [records(P0, 0, 1) + records(P1, 7)]
    with running(reader, worker) as run:
        run.until(lambda: reader.stored == {P0: 2})
    assert [one.offset for one in done] == [1]


def test_a_topic_with_too_much_in_flight_is_paused_alone_and_resumed_at_half() -> None:
    settings = QUICK.model_copy(update={"in_flight_records": 10})
    reader, worker = Reader(P0, P1, B0), Worker(at_once=False)
    reader.script = [records(B0, *range(10)), records(P0, 0)]
    with running(reader, worker, settings=settings) as run:
        run.until(lambda: len(worker.taken) == 11)
        run.settle_steps()
        assert reader.pauses == [("pause", B0)]
        for delivery in worker.taken[:4]:
            delivery.settle()
        run.settle_steps()
        assert reader.pauses == [("pause", B0)]  # six are left
        for delivery in worker.taken:
            delivery.settle()
        run.until(lambda: reader.pauses == [("pause", B0), ("resume", B0)])
        run.until(lambda: reader.stored == {P0: 1, B0: 10})


def test_live_records_that_have_passed_an_open_bulk_one_pause_nothing() -> None:
    settings = QUICK.model_copy(update={"in_flight_records": 10})
    reader, worker = Reader(P0), Worker(at_once=False)
    reader.script = [records(P0, *range(5))]
    with running(reader, worker, settings=settings) as run:
        for batch in range(1, 5):
            run.until(lambda taken=batch * 5: len(worker.taken) == taken)  # type: ignore[misc]
            for delivery in worker.taken[1:]:
                delivery.settle()
            reader.script.append(records(P0, *range(batch * 5, batch * 5 + 5)))
        run.until(lambda: len(worker.taken) == 25)
        assert reader.pauses == []
        assert reader.stored == {}
        for delivery in worker.taken:
            delivery.settle()
        run.until(lambda: reader.stored == {P0: 25})


def test_dead_letters_without_acknowledgement_count_as_in_flight() -> None:
    settings = QUICK.model_copy(update={"in_flight_records": 5})
    reader, letters = Reader(P0), Letters(silent=True)
    reader.script = [records(P0, *range(5), value=b"bad")]
    with running(reader, letters=letters, settings=settings) as run:
        run.until(lambda: reader.pauses == [("pause", P0)])
        for acknowledge in letters.acknowledge:
            acknowledge()
        run.until(lambda: reader.pauses == [("pause", P0), ("resume", P0)])


def test_a_topic_of_nothing_but_bad_records_halts_uncommitted_and_says_the_numbers() -> None:
    reader, letters = Reader(P0), Letters(silent=True)
    reader.script = [records(P0, *range(start, start + 100), value=b"bad") for start in range(0, 2_000, 100)]
    run = Running(reader, Worker(), letters)
    failure = run.ended()
    assert isinstance(failure, Halt)
    assert f"{POISON_WINDOW} of the last {POISON_WINDOW} records of {TOPIC} could not be read" in str(failure)
    assert "--accept-poison N" in str(failure)
    assert f"{TOPIC}.dlq" in str(failure)
    assert reader.commits == []
    assert len(letters.kept) == POISON_WINDOW


def bad_ones_in(window: int) -> list[list[Record]]:
    """POISON_WINDOW records, `window` of them bad, the last one bad."""
    values = [b"good"] * (POISON_WINDOW - window) + [b"bad"] * window
    return [
        [
            Record(TOPIC, "id", 0, offset, 0, b"k", value)
            for offset, value in enumerate(values[start : start + 100], start)
        ]
        for start in range(0, POISON_WINDOW, 100)
    ]


def test_the_halt_comes_at_95_percent_and_not_before() -> None:
    reader = Reader(P0)
    reader.script = [*bad_ones_in(949)]
    with running(reader) as run:
        run.until(lambda: reader.stored == {P0: POISON_WINDOW})
    reader = Reader(P0)
    reader.script = [*bad_ones_in(950)]
    assert "950 of the last 1000" in str(Running(reader, Worker(), Letters()).ended())


def test_as_many_bad_records_as_were_accepted_do_not_count() -> None:
    reader, letters = Reader(P0), Letters()
    reader.script = [*bad_ones_in(950)]
    with running(reader, letters=letters, accept_poison=1) as run:
        run.until(lambda: reader.stored == {P0: POISON_WINDOW})
    assert len(letters.kept) == 950  # dead-lettered all the same


def test_a_store_that_restarted_sends_the_consumer_back_to_its_commit() -> None:
    reader, worker = Reader(P0, P1, commits={P0: 3}), Worker(delay_seconds=0.15)
    reader.script = [records(P0, 3, 4) + records(P1, 0)]
    with running(reader, worker) as run:
        run.until(lambda: len(worker.taken) == 3)
        worker.epoch = "second"  # before the commit's delay is over
        run.until(lambda: reader.seeks == [(P0, 3), (P1, None)])
        time.sleep(0.2)
        run.settle_steps()
        assert reader.commits == []  # what the old store took is not committed
        assert all(one.abandoned for one in worker.taken)
        reader.script.append(records(P0, 3, 4) + records(P1, 0))
        run.until(lambda: reader.stored == {P0: 5, P1: 1})
        assert len(reader.seeks) == 2


def test_the_negative_control_a_store_that_stays_commits_after_the_delay() -> None:
    reader, worker = Reader(P0), Worker(delay_seconds=0.15)
    reader.script = [records(P0, 0)]
    with running(reader, worker) as run:
        run.until(lambda: worker.taken)
        started = time.monotonic()
        run.until(lambda: reader.stored == {P0: 1})
        assert time.monotonic() - started > 0.1


def test_nothing_is_committed_while_the_store_cannot_say_who_it_is() -> None:
    reader, worker = Reader(P0), Worker()
    with running(reader, worker) as run:
        run.until(run.runner.assigned.is_set)
        worker.epoch = None
        reader.script.append(records(P0, 0))
        run.until(lambda: worker.taken)
        time.sleep(0.05)
        run.settle_steps()
        assert reader.commits == []
        worker.epoch = "first"
        run.until(lambda: reader.stored == {P0: 1})
        assert reader.seeks == []


def test_a_revoked_partition_commits_what_is_done_and_abandons_the_rest() -> None:
    reader, worker = Reader(P0, P1), Worker(at_once=False)
    reader.script = [records(P0, 0, 1)]
    with running(reader, worker) as run:
        run.until(lambda: len(worker.taken) == 2)
        worker.taken[0].settle()
        reader.script.append(lambda: reader.callbacks["on_revoke"]([P0]))
        run.until(lambda: reader.stored == {P0: 1})
        run.until(lambda: worker.taken[1].abandoned)
        worker.taken[1].settle()
        reader.script.append(records(P0, 2))  # fetched before the revocation, delivered after
        run.settle_steps(10)
        assert reader.stored == {P0: 1}
        assert len(worker.taken) == 2
        assert run.runner.assigned.is_set()  # it still owns the other one


def test_within_a_revocation_nothing_is_committed_for_others() -> None:
    """Another topic's member may be joining: the broker answers it when all have joined, we among them."""
    reader, worker = Reader(P0, P1), Worker()
    settings = QUICK.model_copy(update={"commit_interval_seconds": 60.0})
    with running(reader, worker, settings=settings) as run:
        run.until(run.runner.assigned.is_set)
        run.settle_steps()  # the first commit is over, the next one far
        reader.script.append(records(P0, 0) + records(P1, 0))
        run.until(lambda: len(worker.taken) == 2)
        assert reader.stored == {}
        reader.script.append(lambda: reader.callbacks["on_revoke"]([P0]))
        run.until(lambda: reader.stored)
        assert reader.stored == {P0: 1}


def test_a_lost_partition_commits_nothing() -> None:
    reader, worker = Reader(P0), Worker(delay_seconds=30.0)
    reader.script = [records(P0, 0)]
    with running(reader, worker) as run:
        run.until(lambda: worker.taken)
        reader.script.append(lambda: reader.callbacks["on_lost"]([P0]))
        run.until(lambda: worker.taken[0].abandoned)
        run.settle_steps()
        assert reader.commits == []
        assert not run.runner.assigned.is_set()


def test_a_partition_that_comes_while_its_topic_is_paused_is_read_or_paused_with_the_others() -> None:
    settings = QUICK.model_copy(update={"in_flight_records": 4})
    reader, worker = Reader(P0), Worker(at_once=False)
    reader.script = [records(P0, *range(4))]
    with running(reader, worker, settings=settings) as run:
        run.until(lambda: reader.pauses == [("pause", P0)])
        reader.script.append(lambda: reader.callbacks["on_assign"]({P1: 5}))
        run.until(lambda: sorted(reader.pauses[1:]) == [("pause", P0), ("pause", P1), ("resume", P0)])
        for delivery in worker.taken:
            delivery.settle()
        run.until(lambda: sorted(reader.pauses[4:]) == [("resume", P0), ("resume", P1)])


def test_a_commit_that_failed_is_sent_again() -> None:
    reader = Reader(P0)
    reader.refuse = KafkaError(KafkaError.REBALANCE_IN_PROGRESS)
    reader.script = [records(P0, 0)]
    with running(reader) as run:
        run.until(lambda: reader.stored == {P0: 1})


@pytest.mark.parametrize("error", [RuntimeError("a bug"), Halt("a person has to decide")])
def test_a_handler_that_dies_stops_the_loop_uncommitted(error: BaseException) -> None:
    reader, worker = Reader(P0), Worker()
    worker.failures = [error]
    reader.script = [records(P0, 0)]
    run = Running(reader, worker, Letters())
    assert run.ended() is error
    assert reader.commits == []


def test_a_thread_of_the_handler_that_dies_stops_the_loop_uncommitted() -> None:
    reader, worker = Reader(P0), Worker(delay_seconds=0.1)
    reader.script = [records(P0, 0)]
    run = Running(reader, worker, Letters())
    run.until(lambda: worker.taken)
    worker.died = RuntimeError("the writer is gone")
    assert run.ended() is worker.died
    assert reader.commits == []


def test_a_clean_stop_finishes_and_commits_the_work_in_hand() -> None:
    """Also the batches that still wait for the handler's thread when the stop comes."""
    reader, worker = Reader(P0), Worker()
    entered, go_on = threading.Event(), threading.Event()
    handle = worker.handle

    def slow(deliveries: Sequence[Delivery[bytes]]) -> None:
        entered.set()
        go_on.wait(5.0)
        handle(deliveries)

    worker.handle = slow  # type: ignore[method-assign]
    reader.script = [records(P0, 0), records(P0, 1), records(P0, 2)]
    run = Running(reader, worker, Letters())
    run.until(entered.is_set)
    run.until(lambda: not reader.script)
    run.settle_steps()
    run.runner.stop()
    go_on.set()
    assert run.ended() is None
    assert reader.stored == {P0: 3}
    assert len(worker.taken) == 3


def test_a_stop_does_not_wait_for_ever_for_a_store_that_is_away() -> None:
    reader, worker = Reader(P0), Worker()
    worker.failures = [Transient("away")] * 1_000_000
    reader.script = [records(P0, 0)]
    run = Running(reader, worker, Letters())
    run.until(lambda: worker.calls > 2)
    started = time.monotonic()
    run.stop()
    assert time.monotonic() - started < 5.0
    assert reader.commits == []


def test_a_store_that_is_away_at_the_start_is_waited_for() -> None:
    reader, worker = Reader(P0), Worker()
    worker.epoch = None
    reader.script = [records(P0, 0)]
    with running(reader, worker) as run:
        time.sleep(0.05)
        assert reader.polls == 0
        worker.epoch = "first"
        run.until(lambda: reader.stored == {P0: 1})


def test_work_that_is_wanted_no_more_halts_with_nothing_more_committed() -> None:
    wanted = [True]

    def standing() -> None:
        if not wanted[0]:
            raise Halt("another generation has taken over")

    reader, worker = Reader(P0), Worker(at_once=False)
    reader.script = [records(P0, 0, 1)]
    started = Running(reader, worker, Letters(), standing=standing)
    started.until(lambda: len(worker.taken) == 2)
    wanted[0] = False
    for delivery in worker.taken:
        delivery.settle()
    assert isinstance(started.ended(), Halt)
    assert reader.commits == []


def test_whether_work_is_wanted_is_asked_again_while_nobody_can_say() -> None:
    asked = [0]

    def standing() -> None:
        asked[0] += 1
        if asked[0] != 2:
            raise Transient("Redis is away")

    with running(Reader(P0), standing=standing) as started:
        started.until(lambda: asked[0] > 4)
        assert started.reader.polls > 0


def test_work_that_is_not_wanted_from_the_start_never_joins_the_group() -> None:
    def standing() -> None:
        raise Halt("another generation has taken over")

    started = Running(Reader(P0), Worker(), Letters(), standing=standing)
    assert isinstance(started.ended(), Halt)
    assert started.reader.polls == 0
