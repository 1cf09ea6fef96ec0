"""Dead letters keep the record as it came; each is put back at most once, whoever else tries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random

import pytest

from adapters.kafka import Acknowledge, Headers, KafkaSettings, Publisher, Record
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.kafka_log import read_to_end
from consumers.dead_letters import PART_HEADER, DeadLetters
from consumers.redrive import DeadLetter, Identity, collect, read_dead_letters, redrive
from schemas.errors import Halt, Transient
from schemas.topics import DEAD_LETTER_HEADROOM_BYTES, Topic
from tests.support.draining import quick_settings
from tests.support.servers import Broker, Kafka

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)


def dead_record(
    topic: str, offset: int, value: bytes | None = b"\x00\xff not JSON", headers: Headers = ()
) -> Record:
    return Record(topic, "topic-id", 1, offset, 1_234, b"key\xff", value, tuple(headers))


@pytest.fixture
def settings(broker: Broker) -> KafkaSettings:
    return quick_settings(broker)


@pytest.fixture
def topic(settings: KafkaSettings, namespace: str) -> str:
    return made_topic(settings, namespace)


def made_topic(settings: KafkaSettings, namespace: str) -> str:
    base = Topic(f"{namespace}t", "id", (), "delete")
    letters = Topic(
        base.dead_letters,
        "id",
        (),
        "delete",
        max_message_bytes=base.max_message_bytes + DEAD_LETTER_HEADROOM_BYTES,
    )
    ensure_topics(open_admin(settings), [base, letters], partitions=2, replication_factor=1)
    return base.name


def bury(settings: KafkaSettings, *buried: tuple[Record, str]) -> None:
    publisher = Publisher(settings)
    done = threading.Semaphore(0)
    for record, reason in buried:
        DeadLetters(publisher=publisher, now=lambda: NOW).put(record, reason, on_done=done.release)
    for _ in buried:
        assert done.acquire(timeout=20)
    publisher.close()


def everything(_: DeadLetter) -> bool:
    return True


def test_a_dead_letter_is_the_record_as_it_came_and_says_where_it_stood_and_why(
    settings: KafkaSettings, topic: str
) -> None:
    headers = (("trace", b"\x01"), ("trace", b"\x02"), ("simstream-lane", b"bulk"))
    bury(settings, (dead_record(topic, 7, headers=headers), "field 'title': it is missing: größer"))
    (letter,) = read_dead_letters(settings, topic)
    assert letter == DeadLetter(
        identity=Identity("topic-id", 1, 7),
        topic=topic,
        error="field 'title': it is missing: größer",
        died_at=NOW.isoformat(),
        key=b"key\xff",
        value=b"\x00\xff not JSON",
        headers=headers,
        redriven=False,
    )


def test_the_largest_record_fits_with_its_reason_and_headers(settings: KafkaSettings, topic: str) -> None:
    largest = bytes(range(256)) * (1024 * 4 - 1)
    headers = [("h" * 50, b"v" * 1_000)] * 100
    bury(settings, (dead_record(topic, 1, value=largest, headers=headers), "ü" * 100_000))
    (letter,) = read_dead_letters(settings, topic)
    assert letter.value == largest
    assert 0 < len(letter.headers) < 100  # headers give way to the record itself
    assert len(letter.error) <= 2_001


@pytest.mark.parametrize("size", [3_000_000, 17 * 1024 * 1024], ids=["for the broker", "for any client"])
def test_a_record_too_large_for_one_letter_is_kept_whole_in_several(
    kafka: Kafka, namespace: str, size: int
) -> None:
    """Limits are on compressed records, and another producer may compress better than ours does."""
    settings = quick_settings(kafka)
    name = made_topic(settings, namespace)
    value = Random(1).randbytes(size)
    bury(settings, (dead_record(name, 6), "bad"), (dead_record(name, 7, value, [("mine", b"1")]), "huge"))
    parts = [one for one in read_to_end(settings, f"{name}.dlq") if PART_HEADER in dict(one.headers)]
    assert len(parts) == -(-size // (256 * 1024))
    small, large = read_dead_letters(settings, name)
    assert (small.value, small.error) == (b"\x00\xff not JSON", "bad")
    assert large == DeadLetter(
        Identity("topic-id", 1, 7), name, "huge", NOW.isoformat(), b"key\xff", value, (("mine", b"1"),), False
    )
    with pytest.raises(Halt, match="larger than its topic takes"):
        redrive(settings, name, namespace="n.", chosen=everything)
    chosen = redrive(settings, name, namespace="n.", chosen=lambda one: one.identity.offset == 6)
    assert [one.error for one in chosen] == ["bad"]


def test_a_record_that_was_compressed_well_goes_back_onto_its_topic(kafka: Kafka, namespace: str) -> None:
    settings = quick_settings(kafka)
    name = made_topic(settings, namespace)
    words = [Random(number).randbytes(4).hex() for number in range(3_000)]
    value = " ".join(Random(1).choices(words, k=230_000)).encode()
    bury(settings, (dead_record(name, 7, value), "too long"))
    assert any(PART_HEADER in dict(one.headers) for one in read_to_end(settings, f"{name}.dlq"))
    redrive(settings, name, namespace="n.", chosen=everything)
    assert [record.value for record in read_to_end(settings, name)] == [value]


def test_a_letter_of_which_parts_are_missing_is_none_yet_and_parts_that_came_twice_count_once() -> None:
    def part(number: int, value: bytes) -> Record:
        headers = (
            ("simstream-dlq-topic-id", b"id"),
            ("simstream-dlq-partition", b"0"),
            ("simstream-dlq-offset", b"9"),
            ("simstream-dlq-part", b"%d/3" % number),
        )
        return Record("t.dlq", "id", 0, number, 0, b"k", value, headers)

    parts = [part(2, b"b"), part(1, b"a"), part(2, b"b")]
    assert list(collect(parts)) == []
    (letter,) = collect([*parts, part(3, b"c"), part(1, b"a")])
    assert letter.value == b"abc"


def test_a_letter_written_twice_by_a_crash_is_one_letter(settings: KafkaSettings, topic: str) -> None:
    bury(settings, *[(dead_record(topic, offset), "bad") for offset in (1, 2, 1)])
    assert [letter.identity.offset for letter in read_dead_letters(settings, topic)] == [1, 2]


def test_a_redriven_letter_is_on_its_topic_as_it_came_and_never_goes_again(
    settings: KafkaSettings, topic: str
) -> None:
    bury(
        settings,
        (dead_record(topic, 1, headers=[("mine", b"kept")]), "bad"),
        (dead_record(topic, 2, value=None), "bad"),
        (dead_record(topic, 3), "bad"),
    )
    gone = redrive(settings, topic, namespace="n.", chosen=lambda one: one.identity.offset != 3)
    assert [letter.identity.offset for letter in gone] == [1, 2]
    again = {record.headers[-1][1]: record for record in read_to_end(settings, topic)}
    assert set(again) == {b"topic-id:1:1", b"topic-id:1:2"}
    first = again[b"topic-id:1:1"]
    assert (first.key, first.value, first.headers[:-1]) == (
        b"key\xff",
        b"\x00\xff not JSON",
        (("mine", b"kept"),),
    )
    assert again[b"topic-id:1:2"].value is None
    assert [letter.redriven for letter in read_dead_letters(settings, topic)] == [True, True, False]
    assert [one.identity.offset for one in redrive(settings, topic, namespace="n.", chosen=everything)] == [3]
    assert redrive(settings, topic, namespace="n.", chosen=everything) == []
    assert len(list(read_to_end(settings, topic))) == 3


def test_a_redriven_record_that_dies_again_is_a_new_letter(settings: KafkaSettings, topic: str) -> None:
    bury(settings, (dead_record(topic, 1), "bad"))
    redrive(settings, topic, namespace="n.", chosen=everything)
    (record,) = read_to_end(settings, topic)
    bury(settings, (record, "still bad"))
    letters = read_dead_letters(settings, topic)
    assert [(letter.redriven, letter.error) for letter in letters if letter.error == "still bad"] == [
        (False, "still bad")
    ]
    assert len(letters) == 2
    redrive(settings, topic, namespace="n.", chosen=everything)
    assert len(list(read_to_end(settings, topic))) == 2


def test_several_who_redrive_at_once_put_each_letter_back_at_most_once_and_in_the_end_all(
    settings: KafkaSettings, topic: str
) -> None:
    """Each attempt has clients of its own, as processes have: the broker alone keeps them apart."""
    count = 120
    bury(settings, *[(dead_record(topic, offset), "bad") for offset in range(count)])
    outcomes: list[object] = []

    def attempt() -> None:
        try:
            outcomes.append(len(redrive(settings, topic, namespace="n.", chosen=everything)))
        except (Halt, Transient) as error:
            outcomes.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    attempt()
    marks = [record.headers[-1][1] for record in read_to_end(settings, topic)]
    assert len(marks) == len(set(marks)) == count, outcomes
    assert all(letter.redriven for letter in read_dead_letters(settings, topic))


def test_the_negative_control_without_marks_a_letter_goes_twice(settings: KafkaSettings, topic: str) -> None:
    bury(settings, (dead_record(topic, 1), "bad"))
    publisher = Publisher(settings)
    for _ in range(2):  # the same, put back without the transaction and its mark
        for letter in read_dead_letters(settings, topic):
            publisher.send(topic, key=letter.key, value=letter.value)
        publisher.flush(20)
    publisher.close()
    assert len(list(read_to_end(settings, topic))) == 2


def test_an_identity_reads_back_what_it_prints() -> None:
    identity = Identity("a:b-c_D", 3, 99)
    assert Identity.parse(str(identity)) == identity
    for wrong in ("", "x", "a:1", "a:b:c", "a:-1:2"):
        with pytest.raises(ValueError, match="TOPIC-ID:PARTITION:OFFSET"):
            Identity.parse(wrong)


def test_foreign_records_on_the_dead_letter_topic_are_passed_over() -> None:
    foreign = [
        Record("t.dlq", "id", 0, 0, 0, b"k", b"v"),
        Record("t.dlq", "id", 0, 1, 0, None, None, (("simstream-dlq-topic-id", b"x"),)),
        Record("t.dlq", "id", 0, 2, 0, None, None, (("simstream-redriven", b"nonsense"),)),
    ]
    assert list(collect(foreign)) == []


class Refusing:
    """A broker that refuses the first sends."""

    def __init__(self, refusals: int) -> None:
        self.left = refusals
        self.sent = 0

    def send(self, topic: str, *, on_ack: Acknowledge, **_: object) -> None:
        self.sent += 1
        self.left -= 1
        on_ack(RuntimeError("not now") if self.left >= 0 else None)


def test_a_dead_letter_that_the_broker_refuses_is_sent_again_until_it_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("consumers.dead_letters._RETRY_SECONDS", 0.01)
    publisher, done = Refusing(2), threading.Event()
    put: Callable[..., None] = DeadLetters(publisher=publisher).put  # type: ignore[arg-type]
    put(dead_record("t", 1), "bad", on_done=done.set)
    assert done.wait(5)
    assert publisher.sent == 3
    waits: Sequence[str] = [one.message for one in caplog.records if "dead_letter_waits" in one.message]
    assert waits == ["dead_letter_waits topic=t.dlq reason=not now"] * 2
