"""Dead letters read back, and put on their topic again, each at most once.

Reads   `<topic>.dlq` from its beginning to its end
Writes  the original record onto its topic, and a mark onto the dead-letter topic, in one transaction
Never   redrives a record twice: a dead letter is its record's (topic id, partition, offset), marks are read
        before anything is written, and a second process fences the first
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from adapters.kafka import KafkaSettings, Record
from adapters.kafka_log import Outgoing, Transactions, read_to_end
from consumers.dead_letters import (
    ERROR_HEADER,
    OFFSET_HEADER,
    PART_HEADER,
    PARTITION_HEADER,
    TIME_HEADER,
    TOPIC_HEADER,
    TOPIC_ID_HEADER,
    DeadLetters,
    rewriter_of,
)

#: On a mark: the identity of the dead letter that was redriven. On a redriven record: where it came from.
REDRIVEN_HEADER = "simstream-redriven"
_OURS = ("simstream-dlq-", REDRIVEN_HEADER)
_BATCH = 100


class Identity(NamedTuple):
    """Which record a dead letter was. Printed as `topic-id:partition:offset`."""

    topic_id: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic_id}:{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Identity:
        """The reverse of printing. Raises ValueError saying what an identity looks like."""
        parts = text.rsplit(":", 2)
        if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
            raise ValueError(
                f"{text!r} is no dead letter: expected TOPIC-ID:PARTITION:OFFSET, as `list` prints"
            )
        return cls(parts[0], int(parts[1]), int(parts[2]))

    @classmethod
    def of(cls, headers: Mapping[str, bytes]) -> Identity:
        """What the headers of a dead letter, or of a part of one, say. Raises KeyError or ValueError."""
        return cls(
            headers[TOPIC_ID_HEADER].decode(), int(headers[PARTITION_HEADER]), int(headers[OFFSET_HEADER])
        )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that could not be applied, as it came, and why."""

    identity: Identity
    topic: str
    error: str
    died_at: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    redriven: bool


def producers_headers(record: Record) -> tuple[tuple[str, bytes], ...]:
    """Those that the record had before it died."""
    return tuple(pair for pair in record.headers if not pair[0].startswith(_OURS))


def read_dead_letters(settings: KafkaSettings, topic: str) -> list[DeadLetter]:
    """The dead letters of a topic, oldest first, each identity once. Raises Transient or Halt."""
    return list(collect(read_to_end(settings, DeadLetters.topic_of(topic))))


def collect(records: Iterable[Record]) -> Iterator[DeadLetter]:
    """Dead letters among records of a dead-letter topic; a crash may have written one twice."""
    letters: dict[Identity, DeadLetter] = {}
    parts: dict[Identity, dict[int, bytes]] = {}
    redriven: set[Identity] = set()
    for record in records:
        headers = dict(record.headers)
        mark = headers.get(REDRIVEN_HEADER)
        if mark is not None and TOPIC_ID_HEADER not in headers:
            # A mark that is none of ours marks nothing.
            with suppress(ValueError):
                redriven.add(Identity.parse(mark.decode()))
            continue
        try:
            identity = Identity.of(headers)
            number, count = (int(figure) for figure in headers.get(PART_HEADER, b"1/1").split(b"/"))
        except (KeyError, ValueError):
            continue  # not one of ours
        value = record.value
        if count > 1:
            found = parts.setdefault(identity, {})
            found[number] = value or b""
            if len(found) < count:
                continue  # the rest comes later; or its writer was killed, and the record will be read again
            value = b"".join(found[part] for part in sorted(found))
        letters.setdefault(
            identity,
            DeadLetter(
                identity=identity,
                topic=headers.get(TOPIC_HEADER, b"").decode(),
                error=headers.get(ERROR_HEADER, b"").decode("utf-8", "replace"),
                died_at=headers.get(TIME_HEADER, b"").decode(),
                key=record.key,
                value=value,
                headers=producers_headers(record),
                redriven=False,
            ),
        )
    for letter in sorted(letters.values(), key=lambda one: (one.died_at, one.identity)):
        yield replace(letter, redriven=letter.identity in redriven)


def redrive(
    settings: KafkaSettings,
    topic: str,
    *,
    namespace: str,
    chosen: Callable[[DeadLetter], bool],
) -> list[DeadLetter]:
    """Put the chosen dead letters that were never redriven onto their topic again; which ones those were.

    A redriven record is a new record: new offset, the time of now. If it is still wrong it dies again under
    its new identity. Raises Transient (nothing of the current batch was written) or Halt.
    """
    # The transaction comes first: it aborts what another process has open, so that marks read next are final.
    transactions = Transactions(settings, transactional_id=rewriter_of(topic, namespace=namespace))
    letters = [one for one in read_dead_letters(settings, topic) if not one.redriven and chosen(one)]
    for start in range(0, len(letters), _BATCH):
        batch: Sequence[DeadLetter] = letters[start : start + _BATCH]
        transactions.write([record for letter in batch for record in _records(letter, topic)])
    return letters


def _records(letter: DeadLetter, topic: str) -> tuple[Outgoing, Outgoing]:
    mark = (REDRIVEN_HEADER, str(letter.identity).encode())
    again = Outgoing(topic, letter.key, letter.value, (*letter.headers, mark))
    return again, Outgoing(DeadLetters.topic_of(topic), letter.key, None, (mark,))
