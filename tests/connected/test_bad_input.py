"""The products consumer on Apache Kafka and Redis, fed with everything that can be wrong with a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from confluent_kafka import KafkaError

from adapters.index_edge import EdgeIndex
from adapters.kafka import Acknowledge, Headers, Record
from adapters.kafka_log import read_to_end
from adapters.kafka_reader import Partition
from app.local import LocalRedis
from consumers.dead_letters import PART_HEADER, DeadLetters
from consumers.poison import POISON_SHARE, POISON_WINDOW
from consumers.redrive import Identity, collect
from schemas.errors import Halt
from schemas.events import ProductUpserted
from tests.support.bad_input import (
    FIELDS,
    Bad,
    bad_records,
    body_of,
    good_events,
    huge_records,
    large_records,
)
from tests.support.draining import Shop, commits_of, quick_settings, wait_for_commits
from tests.support.pipeline import Pipeline
from tests.support.servers import Kafka

#: Names a record, in a header of its own: a bad one may have no key or body to know it by.
NUMBER_HEADER = "test-number"
MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def make_pipeline(
    kafka: Kafka, redis_server: LocalRedis, namespace: str, tmp_path: Path
) -> Iterator[MakePipeline]:
    """Makes one pipeline of the namespace; its consumers are started by the test, if at all."""
    with ExitStack() as opened:
        index = EdgeIndex(tmp_path / "index")
        opened.callback(index.close)

        def make(**more: Any) -> Pipeline:
            pipeline = Pipeline(
                kafka=quick_settings(kafka),
                redis_url=redis_server.url,
                namespace=namespace,
                index=index,
                **more,
            )
            opened.callback(pipeline.stop, check=False)
            return pipeline

        yield make


@cache
def bad_input() -> list[Bad]:
    """Some 600 of them, about the products of `good_input`."""
    ids = [event["product_id"] for event in good_events(500)]
    return [*bad_records(ids, each=15), *huge_records(ids, 5)]


def number_of(record: Record) -> int:
    return int(dict(record.headers)[NUMBER_HEADER])


def stood_at(record: Record) -> Identity:
    return Identity(record.topic_id, record.partition, record.offset)


def problems(bad: Mapping[int, Bad], topic: Iterable[Record], letters: Sequence[Record]) -> list[str]:
    """What is wrong with the dead letters of a topic that holds these bad records (by number), and others."""
    found = []
    where = {number: stood_at(record) for record in topic if (number := number_of(record)) in bad}
    written = Counter((number_of(one), dict(one.headers).get(PART_HEADER)) for one in letters)
    found += [f"{number} is there {times} times" for (number, _), times in written.items() if times > 1]
    by_number = {int(dict(letter.headers)[NUMBER_HEADER]): letter for letter in collect(letters)}
    found += [f"{number} is missing: {bad[number].how}" for number in bad.keys() - by_number.keys()]
    for number, letter in by_number.items():
        one = bad.get(number)
        if one is None:
            found.append(f"{number} is good: {letter.error}")
        elif (letter.key, letter.value) != (one.key, one.value):
            found.append(f"{number} is not what was sent: {one.how}")
        elif letter.identity != where[number]:
            found.append(f"{number} stood at {where[number]}, not at {letter.identity}")
        elif one.says not in letter.error:
            found.append(f"{number} ({one.how}) is there because of {letter.error!r}, not of {one.says!r}")
    return found


class Kept:
    """A publisher that keeps what it is handed, as records of a dead-letter topic."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def send(self, topic: str, *, key: bytes, value: bytes, headers: Headers, on_ack: Acknowledge) -> None:
        self.records.append(Record(topic, "dlq", 0, len(self.records), 0, key, value, tuple(headers)))
        on_ack(None)


def test_the_check_of_dead_letters_sees_each_kind_of_damage() -> None:
    bad = dict(enumerate(bad_input()[:3]))
    topic = [
        Record("t", "id", 0, number, 0, one.key, one.value, ((NUMBER_HEADER, b"%d" % number),))
        for number, one in bad.items()
    ]
    kept = Kept()
    put: Callable[..., None] = DeadLetters(publisher=kept).put  # type: ignore[arg-type]
    for number, record in enumerate(topic):
        put(record, bad[number].says, on_done=lambda: None)
    put(topic[0], "why not", on_done=lambda: None)
    first, second, third, wrong = kept.records
    assert problems(bad, topic, [first, second, third]) == []
    good = {number: one for number, one in bad.items() if number > 0}
    moved = [topic[0]._replace(offset=77), *topic[1:]]
    for said, damage in {
        "is missing": problems(bad, topic, [first, second]),
        "is there 2 times": problems(bad, topic, [first, second, third, second]),
        "is not what was sent": problems(bad, topic, [first, second._replace(value=b"{}"), third]),
        "is good": problems(good, topic, [first, second, third]),
        "stood at": problems(bad, moved, [first, second, third]),
        "because of 'why not'": problems(bad, topic, [wrong, second, third]),
    }.items():
        assert len(damage) == 1, damage
        assert said in damage[0]


def test_bad_input_is_the_same_in_every_run_and_breaks_every_field() -> None:
    assert bad_records(["p"], each=3) == bad_records(["p"], each=3)
    broken = {one.says for one in bad_input()}
    assert {f"field '{name}" for name in FIELDS} <= broken


def test_of_a_topic_that_is_half_bad_every_bad_record_is_put_aside_and_every_good_one_applied(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline()
    topic = pipeline.topics.products.name
    small = bad_input()
    # What is larger than the topic's limit arrives where its producer compresses well.
    large = large_records(good_events(1)[0]["product_id"])
    bad = dict(enumerate([*small, *large]))
    good = good_events(len(bad))
    assert len(small) >= 500
    packing = pipeline.settings.model_copy(update={"options": {"compression.type": "zstd"}})
    packer = Shop(packing, pipeline.names)
    for number, event in enumerate(good):
        shop = pipeline.shop if number < len(small) else packer
        header = [(NUMBER_HEADER, b"%d" % number)]
        shop.send(topic, key=bad[number].key, value=bad[number].value, headers=header)
        pipeline.send(event["product_id"], body_of(event), headers=[(NUMBER_HEADER, b"-1")])
    pipeline.shop.flush()
    packer.flush()
    runner = pipeline.start_products()
    ends = {
        part: max(pipeline.shop.ends.get(part, 0), packer.ends.get(part, 0)) for part in pipeline.shop.ends
    }
    wait_for_commits(
        pipeline.settings, pipeline.names.products_group, ends, deadline=monotonic() + 30, check=runner.check
    )
    records = list(read_to_end(pipeline.settings, topic))
    letters = list(read_to_end(pipeline.settings, f"{topic}.dlq"))
    assert len(records) == 2 * len(bad)
    assert problems(bad, records, letters) == []
    assert any(PART_HEADER in dict(letter.headers) for letter in letters), "nothing was too large"
    states = pipeline.store.read([event["product_id"] for event in good])
    assert {key: state.product for key, state in states.items()} == {
        event["product_id"]: ProductUpserted.model_validate_json(body_of(event)) for event in good
    }
    assert {one for page in pipeline.store.scan_ids() for one in page} == states.keys()


def test_a_topic_of_nothing_but_bad_records_halts_and_commits_no_more_than_it_has_put_aside(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline()
    topic = pipeline.topics.products.name
    bad = dict(enumerate(chain(bad_input(), bad_input(), bad_input())))
    assert len(bad) > POISON_WINDOW + 500
    for number, one in bad.items():
        pipeline.send(one.key, one.value, headers=[(NUMBER_HEADER, b"%d" % number)])
    pipeline.shop.flush()
    failure = pipeline.start_products().wait_ended(30)
    assert isinstance(failure, Halt)
    said = f"{POISON_WINDOW} of the last {POISON_WINDOW} records of {topic} could not be read"
    assert said in str(failure)
    assert "--accept-poison N" in str(failure)
    pipeline.stop(check=False)
    records = list(read_to_end(pipeline.settings, topic))
    letters = list(collect(read_to_end(pipeline.settings, f"{topic}.dlq")))
    put_aside = {letter.identity for letter in letters}
    assert len(put_aside) >= POISON_SHARE * POISON_WINDOW
    assert len(put_aside) < len(bad), "it went on to the end"
    commits = commits_of(pipeline.settings, pipeline.names.products_group, pipeline.shop.ends)
    passed = {stood_at(one) for one in records if one.offset < commits[Partition(topic, one.partition)]}
    assert passed <= put_aside
    # The way out that it names.
    again = make_pipeline(accept_poison=len(bad))
    runner = again.start_products()
    wait_for_commits(
        again.settings,
        again.names.products_group,
        pipeline.shop.ends,
        deadline=monotonic() + 30,
        check=runner.check,
    )
    letters = list(collect(read_to_end(again.settings, f"{topic}.dlq")))
    assert {letter.identity for letter in letters} == {stood_at(record) for record in records}
    assert [*again.store.scan_ids()] == []


def test_what_the_topic_does_not_take_is_refused_to_whoever_sends_it(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline()
    large = large_records("p1")[0]
    assert len(large.value) > pipeline.topics.products.max_message_bytes
    pipeline.send(large.key, large.value)
    with pytest.raises(AssertionError, match="Message size too large"):
        pipeline.shop.flush()
    pipeline.send(None, large.value[:100])
    with pytest.raises(AssertionError):
        pipeline.shop.flush()
    assert [error.code() for error in pipeline.shop.failures] == [
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,  # compaction needs a key
    ]
    assert list(read_to_end(pipeline.settings, pipeline.topics.products.name)) == []
