"""Review events become an item's ledger, rating and digest; a changed item is announced on items.changed.

Reads   catalog.reviews
Writes  reviews in Redis; publishes ItemChanged, on the bulk lane where the record asks for it
Never   keeps or says who wrote a review: only a keyed hash of it is stored, and contact data is masked before

1. write      each event into its product's ledger, only if it is newer; figures move in the same call
2. digest     of products whose texts are no longer those that their digest was made from
3. announce   and settle with the broker's acknowledgement

Announcing is part of the effect, and so is the digest: a crash between any two steps is redelivered with an
equal revision, which makes up for what is missing and announces again.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from pydantic import Field

from adapters import tracing
from adapters.kafka import Publisher, Record
from adapters.metrics import REVIEW_DIGESTS_TOTAL
from adapters.redis_client import Outcome
from adapters.redis_reviews import Digest, ReviewStore, ReviewWrite
from adapters.shopper_hash import shopper_hash
from consumers.announcing import COMMIT_DELAY_SECONDS, Announcer, traced_hints
from consumers.backlog import is_bulk
from consumers.erasures import Erasures
from consumers.progress import Delivery
from consumers.review_digest import review_digest, review_rank
from consumers.revised import body_hash, check_revision, product_key, recorded_at
from schemas.errors import PoisonMessage, Transient
from schemas.events import Frozen, ReviewPosted, ReviewRemoved
from schemas.masking import masked
from schemas.parsing import InvalidEvent, parse_event
from schemas.topics import Topics

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: Another process may write the same product's texts between our reading and our storing; not for ever.
_DIGEST_ROUNDS = 20
#: Shops keep reviews as they were typed into a form, or as a page shows them.
_LINE_BREAK = re.compile(r"<(?:br|/?p|/?div|/?li)\b[^<>]{0,100}>", re.IGNORECASE)
_MARKUP = re.compile(r"</?[A-Za-z][^<>]{0,100}>")
#: No character has so long a number, and Python refuses to read one of thousands of digits.
_ENDLESS_REFERENCE = re.compile(r"&#[0-9]{100,};?")


class ReviewsSettings(Frozen):
    """How much of an item's reviews is kept beside the ledger, and how long their digest may be.

    `max_texts` is a number of reviews per item, the most useful ones (adapters/review_scripts.py says which).
    A dropped text does not come back when a limit is raised. The encoder reads about 1,000 characters.
    """

    max_texts: int = Field(default=100, ge=1, le=10_000)
    text_chars: int = Field(default=2_000, ge=1, le=100_000)
    digest_chars: int = Field(default=1_000, ge=1, le=100_000)


@dataclass(frozen=True, slots=True)
class ReviewChange:
    """One decoded record of catalog.reviews: what to write, and the lane its hint travels in."""

    write: ReviewWrite
    occurred_at: datetime
    bulk: bool
    #: Where it stands in its trace, if it has one.
    place: str | None = None


class ReviewsHandler:
    """Applies review events to the reviews of items and announces what changed."""

    name = "reviews"
    commit_delay_seconds = COMMIT_DELAY_SECONDS
    in_order = False

    def __init__(
        self,
        *,
        store: ReviewStore,
        publisher: Publisher,
        topics: Topics,
        settings: ReviewsSettings,
        hash_key: bytes,
        erasures: Erasures | None = None,
        ack_timeout_seconds: float = 30.0,
    ) -> None:
        self.erasures = erasures
        self._store = store
        self._announcer = Announcer(
            publisher=publisher, topics=topics, ack_timeout_seconds=ack_timeout_seconds
        )
        self._settings = settings
        self._hash_key = hash_key
        self.topics: Sequence[str] = (topics.reviews.name,)

    def decode(self, record: Record) -> ReviewChange:
        """Parse a record. Raises PoisonMessage naming the field and what was expected, and no shopper."""
        recorded, key = recorded_at(record), product_key(record)
        if record.value is None:
            raise PoisonMessage(
                "a review cannot be a null record: publish review_removed to take one back", "null"
            )
        try:
            event = cast(ReviewPosted | ReviewRemoved, parse_event(record.value, ReviewPosted, ReviewRemoved))
        except InvalidEvent as error:
            raise PoisonMessage(str(error)) from error
        if key != event.product_id:
            # Without the key: it may well be a shopper.
            raise PoisonMessage(
                f"the record's key is not its field 'product_id' ({event.product_id!r}): key records by "
                "product_id, or the events of one review are spread over partitions",
                "key",
            )
        check_revision(event, recorded)
        place = tracing.carried(record.headers, begins=True)
        return ReviewChange(self._write(event, record), event.occurred_at, is_bulk(record), place)

    def _write(self, event: ReviewPosted | ReviewRemoved, record: Record) -> ReviewWrite:
        at = (event.occurred_at - _EPOCH) // _MICROSECOND
        posted = event if isinstance(event, ReviewPosted) and not self._forgotten(event, record) else None
        votes = posted.helpful_votes if posted else 0
        return ReviewWrite(
            product_id=event.product_id,
            review_id=event.review_id,
            revision=event.order,
            timestamp_ms=record.timestamp_ms,
            body_hash=body_hash(record.value or b""),
            at=at,
            live=posted is not None,
            rating=posted.rating if posted else None,
            votes=votes,
            text=plain(posted.title, posted.text, chars=self._settings.text_chars) if posted else "",
            rank=review_rank(event.review_id, votes, at),
            shopper=shopper_hash(posted.user_id, self._hash_key) if posted and posted.user_id else None,
        )

    def _forgotten(self, event: ReviewPosted, record: Record) -> bool:
        """Whether its writer has asked to be forgotten since: then it is read as taken back."""
        if self.erasures is None or event.user_id is None:
            return False
        times = event.occurred_at.timestamp(), record.timestamp_ms / 1000
        return self.erasures.covers(event.user_id, *times)

    def handle(self, deliveries: Sequence[Delivery[ReviewChange]]) -> None:
        """Write, digest, announce, settle. Raises Transient with the rest still unsettled."""
        topic = self.topics[0]
        with tracing.stage(
            f"process {topic}", (one.event.place for one in deliveries), topic=topic
        ) as places:
            self._handle(deliveries, places)

    def _handle(self, deliveries: Sequence[Delivery[ReviewChange]], places: tracing.Places) -> None:
        # 1. One round trip; each write is applied only if it is newer.
        applied = self._store.apply([delivery.event.write for delivery in deliveries])
        consumed_at = datetime.now(UTC)
        # 2.
        answers = list(
            zip((delivery.event.write.product_id for delivery in deliveries), applied, strict=True)
        )
        moved = self._digest({product_id for product_id, answer in answers if answer.stale})
        # 3. One hint per item of the batch; an older event is silent.
        announced: dict[str, list[Delivery[ReviewChange]]] = {}
        for delivery, (product_id, answer) in zip(deliveries, answers, strict=True):
            if answer.outcome is Outcome.OLDER:
                delivery.settle()
            else:
                announced.setdefault(product_id, []).append(delivery)
        dimensions = {one: [*(["reviews"] if one in moved else ()), "context"] for one in announced}
        ids = (product_id for product_id, _ in answers)
        self._announcer.announce(
            announced, dimensions, consumed_at=consumed_at, places=traced_hints(ids, places)
        )

    def forget(self, user_id: str, *, until_ms: int, about: Callable[[Sequence[str]], object]) -> None:
        """Take back all that this shopper wrote up to then, wherever it is.

        `about` is given the products before anything goes: whoever was cut off finds them no more.
        Digests are made anew. Announcing is for the caller. Raises Transient; safe to repeat.
        """
        shopper = shopper_hash(user_id, self._hash_key)
        for ids in self._store.scan_ids():
            about(self._store.wrote(shopper, ids, until_ms=until_ms))
            answers = self._store.forget(shopper, ids, until_ms=until_ms)
            stale = [one for one, (_, other) in zip(ids, answers, strict=True) if other]
            about(stale)
            self._digest(stale)

    def _digest(self, product_ids: Iterable[str]) -> set[str]:
        """Make the digests of these products anew; those whose digest moved.

        Whoever finds other texts than it had read reads again: the last one to store has read the last texts.
        """
        moved: set[str] = set()
        waiting = sorted(product_ids)
        for _ in range(_DIGEST_ROUNDS):
            if not waiting:
                return moved
            digests = [
                Digest(product_id, kept.mark, review_digest(kept.reviews, chars=self._settings.digest_chars))
                for product_id, kept in self._store.texts(waiting).items()
            ]
            answers = list(zip(waiting, self._store.settle(digests), strict=True))
            moved |= {product_id for product_id, answer in answers if answer}
            waiting = [product_id for product_id, answer in answers if answer is None]
            for _, answer in answers:
                result = "overtaken" if answer is None else "moved" if answer else "same"
                REVIEW_DIGESTS_TOTAL.labels(result=result).inc()
        raise Transient(f"the reviews of {len(waiting)} products keep changing under their digest")

    def store_epoch(self) -> str | None:
        """Redis' run id: when it changes, effects younger than the commit may be gone."""
        return self._store.run_id()

    def adopt(self, epoch: str | None) -> None:
        """Reviews are compared by revision: whichever incarnation takes them."""

    def fatal(self) -> BaseException | None:
        """What ended the following of erasures, if something did."""
        return None if self.erasures is None else self.erasures.fatal

    def close(self) -> None:
        """Stop following erasures; other collaborators belong to whoever made them."""
        if self.erasures is not None:
            self.erasures.close()


def plain(title: str | None, text: str | None, *, chars: int) -> str:
    """Title and text on lines of their own, without markup and contact data; their first `chars` characters.

    What is cut off is masked as well, so that half a number at the end is no way out.
    """
    lines: list[str] = []
    for part in (title, text):
        bare = _MARKUP.sub("", _LINE_BREAK.sub("\n", part or ""))
        # What HTML reads such a number as; with nothing in its place, its surroundings could become another.
        found = html.unescape(_ENDLESS_REFERENCE.sub("\N{REPLACEMENT CHARACTER}", bare))
        lines += (" ".join(line.split()) for line in masked(found).splitlines())
    return "\n".join(line for line in lines if line)[:chars].rstrip()
