"""User events become counters, sketches and recent items; items that moved are announced, debounced.

Reads   user.events
Writes  behaviour in Redis; publishes ItemChanged for items whose vector is to be written anew
Never   lets a shopper's id leave this module: Redis and everything behind it know a keyed hash

1. shoppers   recent items, distinct items, and which events are duplicates of earlier ones
2. items      counters above the guard; sketches and registers, which may be applied again
3. marks      trending buckets; items that moved become due: then the records settle

The items of one batch are written while those of the next are summed up, and the shoppers of a third written
(consumers/follower.py): neither Redis nor this process waits for the other. A thread announces what is due
(consumers/debounce.py); what it took and could not finish stays in Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import xxhash
from pydantic import Field

from adapters.behaviour_scripts import TIERS
from adapters.behaviour_work import ItemWork, Moved
from adapters.kafka import Publisher, Record
from adapters.redis_behaviour import BehaviourStore
from adapters.registers import distinct_each
from consumers.debounce import Debounce, DebounceSettings
from consumers.erasures import Erasures
from consumers.follower import Follower
from consumers.interactions import Interaction, duplicates_in, item_works, shopper_works
from consumers.interest import Scorer, SketchSettings, shopper_from
from consumers.progress import Delivery, settle_all
from schemas.behaviour import PLACE
from schemas.errors import PoisonMessage
from schemas.events import Frozen, UserEvent
from schemas.parsing import InvalidEvent, fields_parser
from schemas.topics import Topics

#: Redis with AOF everysec may lose its last seconds, so commits trail the effect by more than that.
COMMIT_DELAY_SECONDS = 3.0
#: An event's own time counts only up to so much after the record's: a clock ahead must not win for ever.
MAX_AHEAD_SECONDS = 300.0
#: Items whose tau is remembered, about 150 bytes each.
_TAUS = 1 << 18


class BehaviourSettings(Frozen):
    """What sketches are made with, how much of a shopper is kept, and when a vector is written anew."""

    sketch: SketchSettings = SketchSettings()
    debounce: DebounceSettings = DebounceSettings()
    recent_items: int = Field(default=50, ge=1, le=1_000)
    bought_items: int = Field(default=200, ge=1, le=5_000)
    #: The share of a sketch's members that must move before its vector is written after the debounce; fewer
    #: wait for the maximum delay.
    enough_share: float = Field(default=0.05, gt=0, le=1)
    batch_records: int = Field(default=20_000, ge=1)


#: What nobody is to look at: of one who asked to be forgotten, and unreadable besides.
_NOBODYS = Interaction("", -1, -1, shopper_from(bytes(8)), "", b"", 0, 0.0, 0.0, 0, True)


class _Known(NamedTuple):
    """A batch whose shoppers are done: its topic, its records, which of them are duplicates, Redis' epoch."""

    topic: str
    batch: Sequence[Delivery[Interaction]]
    duplicates: set[tuple[int, bytes]]
    epoch: str | None


class _Summed(NamedTuple):
    """A batch as work for items: what is left of its records, and where the answers' taus are remembered."""

    known: _Known
    batch: Sequence[Delivery[Interaction]]
    works: Sequence[ItemWork]
    taus: dict[str, float]


class BehaviourHandler:
    """Applies user events."""

    name = "behaviour"
    commit_delay_seconds = COMMIT_DELAY_SECONDS
    #: Guards count by offset: an event passed by a later one of its partition would not be counted.
    in_order = True

    def __init__(
        self,
        *,
        store: BehaviourStore,
        publisher: Publisher,
        topics: Topics,
        settings: BehaviourSettings,
        erasures: Erasures | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.erasures = erasures
        self._parse = fields_parser(UserEvent)
        self._store = store
        self._settings = settings
        self._scorer = Scorer(settings.sketch)
        self._now = now
        self._claimed = False
        self._epoch: str | None = None
        # By item as Redis last said, and the epoch it said so in. A tau never rises in one epoch, so what
        # is not below an old one is not below today's.
        self._taus: dict[str, float] = {}
        self._taus_of: str | None = None
        self.topics: Sequence[str] = (topics.events.name,)
        self._summing: Follower[_Known] = Follower(name="behaviour-sums", work=self._sum_up)
        self._writing: Follower[_Summed] = Follower(name="behaviour-items", work=self._write)
        self._debounce = Debounce(
            store=store, publisher=publisher, topic=topics.changed.name, settings=settings.debounce, now=now
        )

    def decode(self, record: Record) -> Interaction:
        """Parse one event. Raises PoisonMessage naming the field and what was expected."""
        _, topic_id, partition, offset, timestamp_ms, key, value, _ = record
        if value is None:
            raise PoisonMessage("a user event must not be a null record: publish a user_event", "null")
        try:
            event = self._parse(value)
        except InvalidEvent as error:
            if self._named_by_key(key, timestamp_ms):
                return _NOBODYS
            raise PoisonMessage(str(error)) from error
        user_id, product_id, kind = event["user_id"], event["product_id"], event["type"]
        if key != user_id.encode():
            raise PoisonMessage(
                "the record's key is not its field 'user_id': key records of this topic by user_id, or the "
                "events of one shopper arrive in any order",
                "key",
            )
        occurred = event["occurred_at"].timestamp()
        # Old topics keep no time of the record: -1.
        recorded = timestamp_ms / 1000 if timestamp_ms >= 0 else occurred
        scorer, erasures = self._scorer, self.erasures
        return Interaction(
            topic_id[:8],
            partition,
            offset,
            scorer.shopper(user_id),
            product_id,
            xxhash.xxh3_64_digest(event["event_id"].encode()) + offset.to_bytes(6, "big"),
            PLACE[kind],
            occurred if occurred <= recorded else min(occurred, recorded + MAX_AHEAD_SECONDS),
            scorer.interest(kind, event.get("value")),
            scorer.item_register(product_id),
            erasures is not None and erasures.covers(user_id, occurred, recorded),
        )

    def _named_by_key(self, key: bytes | None, timestamp_ms: int) -> bool:
        """Whether an unreadable record is of one who asked to be forgotten: it is no dead letter either."""
        if self.erasures is None or key is None or timestamp_ms < 0:
            return False
        return self.erasures.covers(key.decode(errors="replace"), timestamp_ms / 1000)

    def handle(self, deliveries: Sequence[Delivery[Interaction]]) -> None:
        """Apply to shoppers here, to items behind. Raises Transient: all of it may be applied again.

        A Redis that was restarted may have lost what was counted below these offsets, and would take them as
        new: nothing is written before the loop has gone back to its commit, and then not these.
        """
        # In this order: what is adopted later has abandoned these before.
        epoch = self._epoch
        batch = [delivery for delivery in deliveries if not delivery.abandoned]
        if any(delivery.event.erased for delivery in batch):
            settle_all([delivery for delivery in batch if delivery.event.erased])
            batch = [delivery for delivery in batch if not delivery.event.erased]
        if not self._claimed:
            self._store.claim_epoch(self._settings.sketch.epoch)
            self._claimed = True
        topics = {delivery.event.topic: None for delivery in batch}
        for topic in topics:
            of_topic = batch
            if len(topics) > 1:  # in the minute in which a topic is replaced by another of its name
                of_topic = [delivery for delivery in batch if delivery.event.topic == topic]
            # 1. Who did it, and which of it is new.
            duplicates = self._shoppers(topic, of_topic, epoch)
            self._summing.put(_Known(topic, of_topic, duplicates, epoch))

    def _sum_up(self, known: _Known) -> None:
        """The second stage, on its thread."""
        if known.epoch != self._taus_of:
            # Another dictionary: answers that are still on their way were given in the epoch before.
            self._taus, self._taus_of = {}, known.epoch
        self._writing.put(self._summed(known, self._taus))

    def _summed(self, known: _Known, taus: dict[str, float]) -> _Summed:
        # A batch whose shoppers had to be written again comes twice.
        batch = [delivery for delivery in known.batch if not delivery.abandoned and not delivery.settled]
        events = [delivery.event for delivery in batch]
        works = item_works(events, known.duplicates, scorer=self._scorer, taus=taus)
        return _Summed(known, batch, works, taus)

    def _write(self, summed: _Summed) -> None:
        """The third stage, on its thread."""
        if any(delivery.abandoned for delivery in summed.batch):
            # A partition has gone since. What is written of it from here on would pass what was dropped of it
            # before: its guards would say that was counted.
            summed = self._summed(summed.known, summed.taus)
        # 2. What it happened to.
        known = summed.known
        moved = self._store.apply_items(known.topic, summed.works, epoch=known.epoch)
        # 3. What follows from it later.
        self._remember(summed, moved)
        settle_all(summed.batch)

    def _shoppers(
        self, topic: str, batch: Sequence[Delivery[Interaction]], epoch: str | None
    ) -> set[tuple[int, bytes]]:
        """Remember what shoppers did; the (partition, entry) of events that must not count."""
        events = [delivery.event for delivery in batch]
        latest = {event.partition: delivery for event, delivery in zip(events, batch, strict=True)}
        committed = {partition: delivery.committed for partition, delivery in latest.items()}
        works = shopper_works(topic, events, committed)
        answers = self._store.apply_shoppers(
            list(works.values()),
            epoch=epoch,
            recent_kept=self._settings.recent_items,
            bought_kept=self._settings.bought_items,
        )
        return duplicates_in(works, answers)

    def _remember(self, summed: _Summed, moved: Sequence[Moved]) -> None:
        now_ms = int(self._now().timestamp() * 1000)
        soon = now_ms + int(self._settings.debounce.delay_seconds * 1000)
        late = now_ms + int(self._settings.debounce.max_delay_seconds * 1000)
        due: dict[str, int] = {}
        changed: list[tuple[int, int, str]] = []
        sketches: list[bytes] = []
        if len(summed.taus) > _TAUS:
            summed.taus.clear()
        for (product_id, *_), (much, tau, buckets) in zip(summed.works, moved, strict=True):
            if tau:
                summed.taus[product_id] = tau
            if much:
                due[product_id] = soon if much == 2 else late
            for tier, number, registers in zip(buckets[::3], buckets[1::3], buckets[2::3], strict=True):
                width, kept = TIERS[tier]
                # A replay of months would fill Redis with lists that nobody asks for any more.
                if (number + kept + 2) * width * 1000 > now_ms:
                    changed.append((tier, number, product_id))
                    sketches.append(registers)
        trend: dict[tuple[int, int], dict[str, float]] = {}
        for (tier, number, product_id), shoppers in zip(changed, distinct_each(sketches), strict=True):
            trend.setdefault((tier, number), {})[product_id] = shoppers
        self._store.add_trend(trend)
        self._store.mark(due)

    def store_epoch(self) -> str | None:
        """Redis' run id: when it changes, effects younger than the commit may be gone."""
        return self._store.run_id()

    def adopt(self, epoch: str | None) -> None:
        """Write to this incarnation of Redis only."""
        self._epoch = epoch
        self._claimed = False  # it may have lost that as well

    def fatal(self) -> BaseException | None:
        """What ended one of the threads, if something did."""
        followed = None if self.erasures is None else self.erasures.fatal
        return self._summing.fatal or self._writing.fatal or self._debounce.fatal or followed

    def close(self) -> None:
        """Stop the threads; what is due stays marked, what is not applied is read again."""
        self._summing.close()
        self._writing.close()
        self._debounce.close()
        if self.erasures is not None:
            self.erasures.close()
