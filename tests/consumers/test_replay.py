"""A replay announces nothing before it is told to, and buries nothing a second time."""

from __future__ import annotations

from adapters.kafka import Record
from adapters.kafka_reader import Partition
from consumers.replay import GatedPublisher, KnownDeadLetters
from tests.producers.doubles import RecordingPublisher


def test_a_closed_gate_acknowledges_at_once_and_an_open_one_leaves_that_to_the_broker() -> None:
    behind = RecordingPublisher()
    gate = GatedPublisher(behind)
    told: list[tuple[str, Exception | None]] = []
    gate.send("t", key="a", value=b"", on_ack=lambda error: told.append(("a", error)))
    gate.send_batch("t", [("b", b"", lambda error: told.append(("b", error))), ("c", b"", None)])
    assert told == [("a", None), ("b", None)]
    assert behind.sent == []
    gate.open()
    gate.send("t", key="d", value=b"", on_ack=lambda error: told.append(("d", error)))
    gate.send_batch("t", [("e", b"", lambda error: told.append(("e", error)))])
    assert [sent.key for sent in behind.sent] == [b"d", b"e"]
    assert len(told) == 2
    assert gate.flush(1.0) == 0
    assert told[2:] == [("d", None), ("e", None)]


def test_what_the_live_consumers_have_buried_is_passed_over_and_the_rest_is_buried() -> None:
    publisher = RecordingPublisher()
    letters = KnownDeadLetters(publisher=publisher, known={Partition("t", 0): 5, Partition("t", 1): None})
    done: list[tuple[int, int]] = []
    for partition, offset in ((0, 4), (0, 5), (1, 0), (2, 0)):
        record = Record("t", "id", partition, offset, 0, b"k", b"v")
        letters.put(record, "broken", on_done=lambda at=(partition, offset): done.append(at))  # type: ignore[misc]
    assert done == [(0, 4)]
    assert letters.passed == {"t": 1}
    assert len(publisher.sent) == 3
