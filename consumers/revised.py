"""What records of revised events have in common: a key, a time, and a revision that can be trusted.

Pure: reads and writes nothing. Raises PoisonMessage with a sentence that a producer's engineer can act on.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from adapters.kafka import Record
from schemas.errors import PoisonMessage
from schemas.events import Revised
from schemas.fields import LAST_YEAR, MAX_REVISION, Id
from schemas.parsing import explain

#: A derived revision comes from the producer's clock; further ahead than this it would block later events.
MAX_CLOCK_AHEAD = timedelta(minutes=10)
#: The last second that an event can be of; a record's timestamp is whatever its producer wrote.
_LAST_MS = int(datetime(LAST_YEAR, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 1000
_PRODUCT_ID: TypeAdapter[str] = TypeAdapter(Id)


def product_key(record: Record) -> str:
    """The product id that the record is keyed by."""
    if record.key is None:
        raise PoisonMessage("the record has no key: key records of this topic by product_id", "key")
    try:
        key = record.key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PoisonMessage("the record's key is not UTF-8: key records by product_id", "key") from error
    try:
        return _PRODUCT_ID.validate_python(key)
    except ValidationError as error:
        raise PoisonMessage(f"the record's key: {explain(error)}", "key") from error


def recorded_at(record: Record) -> datetime:
    """The record's own time, as near as an event can say it."""
    return datetime.fromtimestamp(min(max(0, record.timestamp_ms), _LAST_MS) / 1000, tz=UTC)


def check_revision(event: Revised, recorded: datetime) -> None:
    """Refuse a revision that follows from a clock too far ahead, or from a time too late for one."""
    # As a difference: a sum could pass the last date there is.
    if event.revision is None and event.occurred_at - recorded > MAX_CLOCK_AHEAD:
        raise PoisonMessage(
            f"field 'occurred_at' ({event.occurred_at.isoformat()}) is more than 10 minutes ahead of the "
            f"record's timestamp ({recorded.isoformat()}) and no 'revision' is given: "
            "mend the producer's clock, or send a revision",
            "clock",
        )
    if event.order > MAX_REVISION:
        raise PoisonMessage(
            f"field 'occurred_at' ({event.occurred_at.isoformat()}) is too late to derive a revision "
            f"from (at most {MAX_REVISION} microseconds): mend the producer's clock, or send a revision",
            "clock",
        )


def body_hash(body: bytes) -> bytes:
    """64 bits that order events of equal revision and time, the same in every process."""
    return hashlib.blake2b(body, digest_size=8).digest()
