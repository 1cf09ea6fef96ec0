"""What reviewers say about an item is heard again when its reviews change; what shifts is announced.

Reads   items.changed, items.changed.bulk; the texts that consumers/reviews.py keeps of an item's reviews
Writes  opinions of items in Redis; insights.opinions; a hint, for what reviewers come to is in the index
Never   hears a review twice that has not changed, or announces twice what stands, however often a hint comes

A hint says: look again. Texts whose mark is not that of the opinions, or that another head has heard, are
heard: 1. texts with their mark, 2. the clauses of reviews that are new, 3. figures of the whole item, put
down with the mark, 4. the mark once more, for whoever was slow must not have the last word. Figures are a
function of the texts and the head, so redelivery and replay change nothing, and a review that was removed
counts no more. A tendency that is another than was last published is published: 5. publish, 6. the broker's
acknowledgement, 7. what was said is remembered, 8. settle. A crash before that says the same again, and the
topic is compacted by item: its last record is what stands.

What was heard may have gone (`simstream opinions stop`) and a point may have been written without it. Then
the index is owed a hint, which is put down before the item is heard and struck out once the broker has it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from adapters.kafka import Publisher, Record
from adapters.metrics import OPINION_INSIGHTS_TOTAL, OPINION_REVIEWS_TOTAL
from adapters.redis_opinions import Heard, KeptOpinions, OpinionStore
from adapters.redis_reviews import KeptTexts, ReviewStore
from consumers.announcing import COMMIT_DELAY_SECONDS, Acknowledgements
from consumers.hints import by_item, read_hint
from consumers.opinion_figures import OpinionSettings, item_opinions
from consumers.progress import Delivery
from schemas.events import AspectShift, ItemChanged, OpinionInsight
from schemas.opinions import ItemOpinions, OpinionJudge, Tendency, tendencies
from schemas.topics import Topics
from schemas.vectors import BEHAVIOUR, CONTENT, LEXICAL, REVIEWS

log = logging.getLogger(__name__)

#: A hint that names nothing else moves no review.
_NO_MATTER = frozenset({BEHAVIOUR, CONTENT, LEXICAL})
#: Texts that move as often as this in a row have their next hint on the way already.
_LOOKS = 5
#: The mark of an item without texts.
_NO_TEXTS = "0"
#: No set of texts has this one.
_UNHEARD = ""


class _Bulk(ItemChanged):
    """A hint of the bulk lane: a shift it leads to is announced there, for it makes the encoder run."""


class OpinionsHandler:
    """Keeps opinions of items as their reviews change. `judge` answers None as long as there is no head."""

    name = "opinions"
    commit_delay_seconds = COMMIT_DELAY_SECONDS
    in_order = False

    def __init__(
        self,
        *,
        reviews: Callable[[], ReviewStore],
        store: OpinionStore,
        judge: Callable[[], OpinionJudge | None],
        publisher: Publisher,
        topics: Topics,
        settings: OpinionSettings,
        ack_timeout_seconds: float = 30.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._reviews = reviews
        self._store = store
        self._judge = judge
        self._publisher = publisher
        self._topic = topics.insights_opinions.name
        self._live, self._bulk = topics.changed.name, topics.changed_bulk.name
        self._settings = settings
        self._ack_timeout_seconds = ack_timeout_seconds
        self._now = now
        self._silent = False
        self.topics: Sequence[str] = (topics.changed.name, topics.changed_bulk.name)

    def decode(self, record: Record) -> ItemChanged:
        """Parse a hint. Raises PoisonMessage naming the field and what was expected."""
        hint = read_hint(record)
        return _Bulk.model_construct(**dict(hint)) if record.topic == self._bulk else hint

    def handle(self, deliveries: Sequence[Delivery[ItemChanged]]) -> None:
        """Hear each item once, announce what shifted, settle. Raises Transient with the rest unsettled."""
        changed = by_item(deliveries, no_matter=_NO_MATTER)
        judge = self._judge() if changed else None
        if judge is None:
            self._say_silent(bool(changed))
        else:
            self._silent = False
            # A live change among bulk ones must not wait for them.
            lanes = {
                product_id: self._bulk if all(isinstance(one.event, _Bulk) for one in parts) else self._live
                for product_id, parts in changed.items()
            }
            self._listen(lanes, judge)
        for parts in changed.values():
            for delivery in parts:
                delivery.settle()

    def _say_silent(self, asked: bool) -> None:
        """Once: changes go by, and nobody can hear them. A head's training announces all items again."""
        if asked and not self._silent:
            log.warning("opinions_without_head hint=%s", "simstream opinions train makes one")
            self._silent = True

    def _listen(self, lanes: Mapping[str, str], judge: OpinionJudge) -> None:
        """`lanes` are items, and the topic of the hint where theirs shift."""
        reviews, product_ids = self._reviews(), list(lanes)
        marks = dict(zip(product_ids, reviews.marks(product_ids), strict=True))
        made = self._store.made_from(product_ids)
        said, owed = self._store.said(product_ids), self._store.owed(product_ids)
        for product_id, (mark, head), told, owes in zip(product_ids, made, said, owed, strict=True):
            if mark is None and marks[product_id] == _NO_TEXTS and not told and not owes:
                continue
            if mark is None and told and not owes:
                self._store.owe(product_id)
                owes = True
            if (mark, head) != (marks[product_id], judge.head):
                item = self._hear(product_id, reviews, judge)
            else:
                kept = self._store.kept(product_id)
                item = kept.item if kept is not None else None
            if owes and tendencies(item) == told:
                self._announce(product_id, None, lanes[product_id])
            self._tell(product_id, told, item, judge.head, lanes[product_id])
            if owes:
                self._store.paid(product_id)

    def _hear(self, product_id: str, reviews: ReviewStore, judge: OpinionJudge) -> ItemOpinions | None:
        """The item's opinions as its texts are now; they are put down, or it is forgotten without any."""
        item = None
        for _ in range(_LOOKS):
            texts = reviews.texts([product_id])[product_id]
            if texts.reviews:
                before = self._store.kept(product_id)
                known = before.heard if before is not None and before.head == judge.head else {}
                heard = _heard(texts, known, judge)
                item = _figures(texts, heard, head=judge.head, settings=self._settings)
                self._store.keep(product_id, KeptOpinions(texts.mark, judge.head, item, heard))
            else:
                item = None
                self._store.drop(product_id)
            if reviews.marks([product_id]) == [texts.mark]:
                break
        return item

    def _tell(
        self,
        product_id: str,
        told: Mapping[str, Tendency],
        item: ItemOpinions | None,
        head: str,
        lane: str,
    ) -> None:
        now = tendencies(item)
        if now == told:
            return
        by_aspect = {one.aspect: one for one in (item.aspects if item is not None else ())}
        shifts = [
            AspectShift(
                aspect=aspect,
                tendency=now.get(aspect),
                before=told.get(aspect),
                sentiment=found.sentiment if (found := by_aspect.get(aspect)) is not None else None,
                count=found.count if found is not None else 0,
            )
            for aspect in sorted({*now, *told})
            if now.get(aspect) != told.get(aspect)
        ]
        self._announce(
            product_id,
            OpinionInsight(
                product_id=product_id, shifts=shifts, tendencies=now, head=head, found_at=self._now()
            ),
            lane,
        )
        self._store.remember(product_id, now)

    def _announce(self, product_id: str, found: OpinionInsight | None, lane: str) -> None:
        """To whoever is curious, and to the writer of the index: queries filter on it, `reviews` says it."""
        at = found.found_at if found is not None else self._now()
        hint = ItemChanged(
            product_id=product_id, dimensions=[REVIEWS, "context"], occurred_at=at, consumed_at=at
        )
        events = [*([(self._topic, found)] if found is not None else ()), (lane, hint)]
        acknowledged = Acknowledgements(len(events))
        for topic, event in events:
            self._publisher.send(
                topic,
                key=product_id,
                value=event.model_dump_json(exclude_none=True).encode(),
                on_ack=acknowledged.count,
            )
        acknowledged.require(self._ack_timeout_seconds, "an insight about opinions")
        for shift in found.shifts if found is not None else ():
            OPINION_INSIGHTS_TOTAL.labels(shift.tendency or "none").inc()

    def store_epoch(self) -> str | None:
        """Redis' run id: when it changes, what is younger than the commit may be gone."""
        return self._store.run_id()

    def adopt(self, epoch: str | None) -> None:
        """What is kept is compared with what is true: whichever incarnation takes it."""

    def fatal(self) -> BaseException | None:
        """This handler has no thread of its own that could die."""
        return None

    def close(self) -> None:
        """Nothing to release: collaborators belong to whoever made them."""


def stale_items(reviews: ReviewStore, store: OpinionStore, head: str) -> Iterator[list[str]]:
    """Items whose opinions are not what `head` hears in their texts as they are now, in pages."""
    for ids in reviews.scan_ids():
        unique = list(dict.fromkeys(ids))
        rows = zip(unique, reviews.marks(unique), store.made_from(unique), strict=True)
        yield [
            one
            for one, mark, made in rows
            if made != (mark, head) and (mark != _NO_TEXTS or made[0] is not None)
        ]


def take_back(
    reviews: ReviewStore, store: OpinionStore, product_ids: Sequence[str], settings: OpinionSettings
) -> None:
    """Leave of these items what was heard in the texts that are left. Nothing is heard for it.

    Whoever listens just now finds the texts moved, and comes back. Safe to repeat; raises Transient.
    """
    for product_id, texts in reviews.texts(product_ids).items():
        before = store.kept(product_id)
        if before is None:
            continue
        if not texts.reviews:
            store.drop(product_id)
            continue
        heard = _known(texts, before.heard)
        item = _figures(texts, heard, head=before.head, settings=settings)
        # Of another mark while some were not heard yet: the next hint has them heard.
        mark = texts.mark if len(heard) == len(texts.reviews) else _UNHEARD
        store.keep(product_id, KeptOpinions(mark, before.head, item, heard))


def _figures(
    texts: KeptTexts, heard: Mapping[str, Heard], *, head: str, settings: OpinionSettings
) -> ItemOpinions:
    opinions = {review: one.opinions for review, one in heard.items()}
    return item_opinions(texts.reviews, opinions, head=head, settings=settings)


def _mark(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _known(texts: KeptTexts, before: Mapping[str, Heard]) -> dict[str, Heard]:
    """What was heard before in the same text of each review."""
    return {
        review.review_id: one
        for review in texts.reviews
        if (one := before.get(review.review_id)) is not None and one.mark == _mark(review.text)
    }


def _heard(texts: KeptTexts, before: Mapping[str, Heard], judge: OpinionJudge) -> dict[str, Heard]:
    """What is heard in each review; what is known of the same text is not heard again."""
    found = _known(texts, before)
    new = {review.review_id: review.text for review in texts.reviews if review.review_id not in found}
    OPINION_REVIEWS_TOTAL.labels("heard").inc(len(new))
    OPINION_REVIEWS_TOTAL.labels("known").inc(len(found))
    heard = judge.hear(list(new.values())) if new else []
    for (review_id, text), opinions in zip(new.items(), heard, strict=True):
        found[review_id] = Heard(_mark(text), opinions)
    return found
