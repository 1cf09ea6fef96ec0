"""Dead letters of a shopper who asks to be forgotten are removed; all others stay, with their identity.

Reads   `<topic>.dlq` from its beginning to its end
Writes  the survivors at its end, in transactions; then deletes everything up to where it had read

Killed in between, it leaves some dead letters twice, which readers tell by their identity; again is harmless.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence

from adapters.kafka import KafkaSettings, Record
from adapters.kafka_admin import delete_records, open_admin
from adapters.kafka_log import Outgoing, Transactions, read_to_end
from consumers.dead_letters import DeadLetters, rewriter_of
from consumers.redrive import Identity, producers_headers
from schemas.errors import Halt, Transient

_BATCH = 100


def purge_dead_letters(settings: KafkaSettings, topic: str, user_id: str, *, namespace: str = "") -> int:
    """Remove a shopper's dead letters of an input topic; how many records went, parts counted one by one.

    Raises Transient when the broker is away, Halt, with nothing written, when it does not delete records.
    """
    name = DeadLetters.topic_of(topic)
    records = list(read_to_end(settings, name))
    theirs = [record for letter in _letters(records) if _is_of(letter, user_id) for record in letter]
    if not theirs:
        return 0
    gone = {(record.partition, record.offset) for record in theirs}
    kept = [record for record in records if (record.partition, record.offset) not in gone]
    starts, ends = _spans(records)
    try:
        # Nothing lies below these: it shows whether the broker knows how, before anything is written twice.
        delete_records(open_admin(settings), name, starts)
    except (Halt, Transient) as error:
        raise Halt(
            f"the broker does not delete records, so {len(theirs)} dead letters on {name} stay ({error}); "
            "the embedded broker cannot, and has forgotten them once it is started again"
        ) from error
    writer = Transactions(settings, transactional_id=rewriter_of(topic, namespace=namespace))
    for start in range(0, len(kept), _BATCH):
        writer.write(
            [
                Outgoing(name, record.key, record.value, record.headers)
                for record in kept[start : start + _BATCH]
            ]
        )
    delete_records(open_admin(settings), name, ends)
    return len(theirs)


def _spans(records: Sequence[Record]) -> tuple[dict[int, int], dict[int, int]]:
    """The first offset of each partition, and one past its last."""
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for record in records:
        starts[record.partition] = min(record.offset, starts.get(record.partition, record.offset))
        ends[record.partition] = max(record.offset + 1, ends.get(record.partition, 0))
    return starts, ends


def _letters(records: Sequence[Record]) -> list[list[Record]]:
    """Records by the dead letter that they are, or are a part of."""
    found: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in records:
        try:
            found[Identity.of(dict(record.headers))].append(record)
        except (KeyError, ValueError):  # a mark, or none of ours
            found[record.partition, record.offset].append(record)
    return list(found.values())


def _is_of(letter: Sequence[Record], user_id: str) -> bool:
    """Whether a dead letter is about this shopper, or may be: what cannot be read is searched for the id."""
    if letter[0].key == user_id.encode():
        return True
    value = b"".join(record.value or b"" for record in letter)
    try:
        event = json.loads(value)
    except (ValueError, RecursionError):
        word = re.escape(user_id.encode())
        # Ours are full of numbers, and a user id may be one: partition 3 is not user 3.
        theirs = [content for _, content in producers_headers(letter[0])]
        everything = [value, letter[0].key or b"", *theirs]
        return any(re.search(rb"(?<![\w-])" + word + rb"(?![\w-])", part) for part in everything)
    return isinstance(event, dict) and event.get("user_id") == user_id
