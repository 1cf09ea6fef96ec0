"""User events become counters, sketches and recent items; items that moved are announced, debounced.

Reads   user.events
Writes  behaviour in Redis; publishes ItemChanged for items whose vector is to be written anew
Never   lets a shopper's id leave this module: Redis and everything behind it know a keyed hash

1. shoppers   recent items, distinct items, and which events are duplicates of earlier ones
2. items      counters above the guard; sketches and registers, which may be applied again
3. marks      trending buckets; items that moved become due: then the records settle

A batch's items and marks are written while the shoppers of the next are (consumers/follower.py). A thread
announces what is due (consumers/debounce.py); what it took and could not finish stays in Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import xxhash
from pydantic import Field

from adapters.behaviour_scripts import TIERS
from adapters.kafka import Publisher, Record
from adapters.redis_behaviour import BehaviourStore, ItemWork, Moved, ShopperWork
from adapters.registers import distinct_each
from consumers.debounce import Debounce, DebounceSettings
from consumers.erasures import Erasures
from consumers.follower import Follower
from consumers.interest import Scorer, SketchSettings
from consumers.progress import Delivery
from schemas.behaviour import PLACE
from schemas.errors import PoisonMessage
from schemas.events import Frozen, InvalidEvent, UserEvent, parse_event
from schemas.topics import Topics

#: Redis with AOF everysec may lose its last seconds, so commits trail the effect by more than that.
COMMIT_DELAY_SECONDS = 3.0
#: An event's own time counts only up to so much after the record's: a clock ahead must not win for ever.
MAX_AHEAD_SECONDS = 300.0
_PURCHASE = PLACE["purchase"]


class BehaviourSettings(Frozen):
    """What sketches are made with, how much of a shopper is kept, and when a vector is written anew."""

    sketch: SketchSettings = SketchSettings()
    debounce: DebounceSettings = DebounceSettings()
    recent_items: int = Field(default=50, ge=1, le=1_000)
    bought_items: int = Field(default=200, ge=1, le=5_000)
    #: The share of a sketch's members that must move before its vector is written after the debounce; fewer
    #: wait for the maximum delay.
    enough_share: float = Field(default=0.05, gt=0, le=1)
    batch_records: int = Field(default=8_000, ge=1)


@dataclass(slots=True)
class Interaction:
    """One decoded event, as far as the work needs it."""

    topic: str
    partition: int
    offset: int
    user_id: str
    product_id: str
    event: bytes
    #: Of its type in schemas.behaviour.TYPES.
    place: int
    second: float
    #: ln of the weight; None if it is no interaction.
    log_weight: float | None
    #: The shopper has asked to be forgotten since.
    erased: bool = False


class _Known(NamedTuple):
    """A batch whose shoppers are done: its topic, its records, which of them are duplicates, Redis' epoch."""

    topic: str
    batch: Sequence[Delivery[Interaction]]
    duplicates: set[tuple[int, int]]
    epoch: str | None


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
        self._erasures = erasures
        self._store = store
        self._settings = settings
        self._scorer = Scorer(settings.sketch)
        self._now = now
        self._claimed = False
        self._epoch: str | None = None
        self.topics: Sequence[str] = (topics.events.name,)
        self._behind: Follower[_Known] = Follower(name="behaviour-items", work=self._apply)
        self._debounce = Debounce(
            store=store, publisher=publisher, topic=topics.changed.name, settings=settings.debounce, now=now
        )

    def decode(self, record: Record) -> Interaction:
        """Parse one event. Raises PoisonMessage naming the field and what was expected."""
        if record.value is None:
            raise PoisonMessage("a user event must not be a null record: publish a user_event")
        try:
            event = parse_event(record.value, UserEvent)
        except InvalidEvent as error:
            raise PoisonMessage(str(error)) from error
        if record.key != event.user_id.encode():
            raise PoisonMessage(
                "the record's key is not its field 'user_id': key records of this topic by user_id, or the "
                "events of one shopper arrive in any order"
            )
        occurred = event.occurred_at.timestamp()
        # Old topics keep no time of the record: -1.
        recorded = record.timestamp_ms / 1000 if record.timestamp_ms >= 0 else occurred
        return Interaction(
            topic=record.topic_id[:8],
            partition=record.partition,
            offset=record.offset,
            user_id=event.user_id,
            product_id=event.product_id,
            event=xxhash.xxh3_64_digest(event.event_id.encode()),
            place=PLACE[event.type],
            second=min(occurred, recorded + MAX_AHEAD_SECONDS),
            log_weight=self._scorer.interest(
                event.type, float(event.value) if event.value is not None else None
            ),
            erased=self._erasures is not None and self._erasures.covers(event.user_id, occurred, recorded),
        )

    def handle(self, deliveries: Sequence[Delivery[Interaction]]) -> None:
        """Apply to shoppers here, to items behind. Raises Transient: all of it may be applied again.

        A Redis that was restarted may have lost what was counted below these offsets, and would take them as
        new: nothing is written before the loop has gone back to its commit, and then not these.
        """
        # In this order: what is adopted later has abandoned these before.
        epoch = self._epoch
        deliveries = [delivery for delivery in deliveries if not delivery.abandoned]
        for delivery in deliveries:
            if delivery.event.erased:
                delivery.settle()
        deliveries = [delivery for delivery in deliveries if not delivery.event.erased]
        if not self._claimed:
            self._store.claim_epoch(self._settings.sketch.epoch)
            self._claimed = True
        for topic in dict.fromkeys(delivery.event.topic for delivery in deliveries):
            # One but for the minute in which a topic is replaced by another of its name.
            batch = [delivery for delivery in deliveries if delivery.event.topic == topic]
            # 1. Who did it, and which of it is new.
            duplicates = self._shoppers(topic, batch, epoch)
            self._behind.put(_Known(topic, batch, duplicates, epoch))

    def _apply(self, known: _Known) -> None:
        """The second stage, on its thread."""
        # A batch whose shoppers had to be written again comes twice.
        batch = [delivery for delivery in known.batch if not delivery.abandoned and not delivery.settled]
        # 2. What it happened to.
        works = self._items(batch, known.duplicates)
        moved = self._store.apply_items(known.topic, list(works.values()), epoch=known.epoch)
        # 3. What follows from it later.
        self._remember(list(works), moved)
        for delivery in batch:
            delivery.settle()

    def _shoppers(
        self, topic: str, batch: Sequence[Delivery[Interaction]], epoch: str | None
    ) -> set[tuple[int, int]]:
        """Remember what shoppers did; the (partition, offset) of events that must not count."""
        works: dict[tuple[int, str], ShopperWork] = {}
        shopper, item_register = self._scorer.shopper, self._scorer.item_register
        for delivery in batch:
            event = delivery.event
            key = event.partition, event.user_id
            work = works.get(key)
            if work is None:
                field = f"{topic}:{event.partition}"
                work = works[key] = ShopperWork(shopper(event.user_id).hash, field, delivery.committed)
            work.ids += (event.event, event.offset)
            if event.log_weight is not None:
                ms = int(event.second * 1000)
                work.recent += (ms * 8 + event.place, event.product_id)
                if event.place == _PURCHASE:
                    work.bought += (ms, event.product_id)
                work.touched.append(item_register(event.product_id))
        settings = self._settings
        answers = self._store.apply_shoppers(
            list(works.values()),
            epoch=epoch,
            recent_kept=settings.recent_items,
            bought_kept=settings.bought_items,
        )
        return {
            (partition, work.ids[2 * place + 1])
            for ((partition, _), work), flags in zip(works.items(), answers, strict=True)
            if "0" in flags
            for place, flag in enumerate(flags)
            if flag == "0"
        }

    def _items(
        self, batch: Sequence[Delivery[Interaction]], duplicates: set[tuple[int, int]]
    ) -> dict[str, ItemWork]:
        works: dict[str, ItemWork] = {}
        score = self._scorer.score
        for delivery in batch:
            event = delivery.event
            work = works.get(event.product_id)
            if work is None:
                work = works[event.product_id] = ItemWork(event.product_id)
            shopper = self._scorer.shopper(event.user_id)
            code = event.place
            if (event.partition, event.offset) not in duplicates:
                code += 8
            if event.log_weight is not None:
                code += 16
                work.members += (shopper.member, score(shopper, event.log_weight, event.second))
            work.events += (event.partition, event.offset, int(event.second), code, shopper.register)
        return works

    def _remember(self, product_ids: Sequence[str], moved: Sequence[Moved]) -> None:
        now_ms = int(self._now().timestamp() * 1000)
        soon = now_ms + int(self._settings.debounce.delay_seconds * 1000)
        late = now_ms + int(self._settings.debounce.max_delay_seconds * 1000)
        due: dict[str, int] = {}
        changed: list[tuple[int, int, str]] = []
        sketches: list[bytes] = []
        for product_id, (much, buckets) in zip(product_ids, moved, strict=True):
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
        return self._behind.fatal or self._debounce.fatal

    def close(self) -> None:
        """Stop the threads; what is due stays marked, what is not applied is read again."""
        self._behind.close()
        self._debounce.close()
        if self._erasures is not None:
            self._erasures.close()
