"""What behaviour should be, in plain Python: from the whole log at once, with nothing of the consumer's.

The only things taken from the product are constants and the register of a hash.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from adapters.behaviour_scripts import ITEM_REGISTERS, TIERS
from adapters.redis_behaviour import BehaviourStore
from adapters.registers import distinct_of
from consumers.interest import SketchSettings, item_register, shopper_from
from schemas.events import UserEvent

TYPES = ("view", "click", "cart", "purchase", "share", "rate", "impression")
LANDMARK = datetime(2020, 1, 1, tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class Logged:
    """An event where it stands in the log."""

    partition: int
    offset: int
    timestamp_ms: int
    event: UserEvent


@dataclass(slots=True)
class Item:
    """What an item's keys should hold, guards and marks aside."""

    totals: list[int] = field(default_factory=lambda: [0] * 7)
    newest: int = 0
    tiers: list[dict[int, list[Any]]] = field(default_factory=lambda: [{}, {}, {}])
    scores: dict[str, int] = field(default_factory=dict)
    registers: dict[int, int] = field(default_factory=dict)


def name_of(user_id: str, settings: SketchSettings) -> bytes:
    key = settings.hash_key.get_secret_value().encode() or b"simstream"
    return hashlib.blake2b(user_id.encode(), digest_size=8, key=key).digest()


def score(name: bytes, weight: float, second: float, settings: SketchSettings) -> int:
    h = (int.from_bytes(name, "big") + 0.5) / 2**64
    decay = math.log(2) / (settings.half_life_days * 86_400) if settings.half_life_days else 0.0
    value = math.log(-math.log(h)) - math.log(weight) - decay * (second - LANDMARK)
    return round(value * 2**28)


def expected_items(log: Iterable[Logged], settings: SketchSettings) -> dict[str, Any]:
    """Every item's state in the shape of `items_in`."""
    items: dict[str, Item] = defaultdict(Item)
    seen: set[tuple[int, str, str]] = set()
    for one in sorted(log, key=lambda one: (one.partition, one.offset)):
        event, item = one.event, items[one.event.product_id]
        name = name_of(event.user_id, settings)
        second = min(event.occurred_at.timestamp(), one.timestamp_ms / 1000 + 300)
        weight = settings.weights.get(event.type)
        if event.type == "rate" and (event.value is None or float(event.value) < settings.good_rating):
            weight = None
        if weight is not None:
            member = str(int.from_bytes(name, "big", signed=True))
            value = score(name, weight, second, settings)
            item.scores[member] = min(item.scores.get(member, value), value)
        if (one.partition, event.user_id, event.event_id) in seen:
            continue
        seen.add((one.partition, event.user_id, event.event_id))
        place = TYPES.index(event.type)
        item.totals[place] += 1
        item.newest = max(item.newest, int(second))
        index, rank = divmod(shopper_from(name).register, 16)
        if weight is not None:
            item.registers[index] = max(item.registers.get(index, 0), rank)
        for tier, (width, _) in enumerate(TIERS):
            bucket = item.tiers[tier].setdefault(int(second) // width, [0] * 7 + [{}, {}])
            bucket[place] += 1
            if weight is not None:
                bucket[7][index] = max(bucket[7].get(index, 0), rank)
                if event.type == "purchase":
                    bucket[8][index] = max(bucket[8].get(index, 0), rank)
    return {product_id: _shown(item, settings.members) for product_id, item in items.items()}


def _shown(item: Item, k: int) -> dict[str, Any]:
    ordered = sorted(((value, member.encode()) for member, value in item.scores.items()))
    tiers = [
        {number: bucket for number, bucket in held.items() if number > item.newest // width - kept}
        for held, (width, kept) in zip(item.tiers, TIERS, strict=True)
    ]
    return {
        "totals": item.totals,
        "newest": item.newest,
        "tiers": tiers,
        "sketch": [(member, float(value)) for value, member in ordered[:k]],
        "tau": float(ordered[k][0]) if len(ordered) > k else math.inf,
        "registers": item.registers,
    }


def items_in(store: BehaviourStore) -> dict[str, Any]:
    """Every item's state in Redis, without guards, marks and what is derived."""
    ids = sorted({product_id for page in store.scan_ids() for product_id in page})
    found = {}
    for product_id, state, sketch in zip(ids, store.states(ids), store.sketches(ids), strict=True):
        assert state is not None
        found[product_id] = {
            "totals": state.totals,
            "newest": state.newest,
            "tiers": [
                {
                    number: [*bucket[:7], unpacked(bucket[7]), unpacked(bucket[8])]
                    for number, bucket in tier.items()
                }
                for tier in state.tiers
            ],
            "sketch": [(member, value) for member, value in sketch],
            "tau": state.header.tau,
            "registers": unpacked(state.header.registers),
        }
    return found


def unpacked(packed: bytes) -> dict[int, int]:
    """Registers above 0."""
    ranks = [rank for byte in packed for rank in (byte >> 4, byte & 15)]
    return {index: rank for index, rank in enumerate(ranks) if rank}


def expected_shopper(
    log: Sequence[Logged], user_id: str, settings: SketchSettings, kept: int
) -> dict[str, Any]:
    """A shopper's recent items with their scores, and registers of distinct items."""
    recent: dict[str, int] = {}
    registers: dict[int, int] = {}
    for one in log:
        event = one.event
        if event.user_id != user_id or event.type not in settings.weights:
            continue
        if event.type == "rate" and (event.value is None or float(event.value) < settings.good_rating):
            continue
        second = min(event.occurred_at.timestamp(), one.timestamp_ms / 1000 + 300)
        newest = int(second * 1000) * 8 + TYPES.index(event.type)
        recent[event.product_id] = max(recent.get(event.product_id, 0), newest)
        index, rank = divmod(item_register(event.product_id), 16)
        registers[index] = max(registers.get(index, 0), rank)
    best = sorted(((value, item.encode()) for item, value in recent.items()), reverse=True)[:kept]
    return {"recent": [(item, float(value)) for value, item in best], "registers": registers}


@dataclass(slots=True)
class Damage:
    """Where Redis differs from the oracle.

    `silent` are items that have moved since whoever serves the hints last looked.
    """

    events: int = 0
    items: int = 0
    shoppers: int = 0
    counters: list[str] = field(default_factory=list)
    sketches: list[str] = field(default_factory=list)
    recents: list[str] = field(default_factory=list)
    trends: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)

    @property
    def others(self) -> int:
        """What is wrong beside counters."""
        return len(self.sketches) + len(self.recents) + len(self.trends) + len(self.silent)

    @property
    def nothing(self) -> bool:
        """Whether everything is as it should be."""
        return not self.counters and not self.others

    def __str__(self) -> str:
        return (
            f"of {self.items} items wrong counters {len(self.counters)}, sketches {len(self.sketches)}, "
            f"trends {len(self.trends)}, not announced {len(self.silent)}; of {self.shoppers} shoppers "
            f"wrong {len(self.recents)}"
        )


def damage(
    store: BehaviourStore,
    log: Sequence[Logged],
    settings: SketchSettings,
    *,
    recent_kept: int,
    seen: Mapping[str, str],
    now: datetime | None = None,
) -> Damage:
    """What a log should have come to against what is in Redis; `seen` is by item, at its latest hint.

    `now` is the clock of whoever wrote, where it was not the real one.
    """
    wanted, found = expected_items(log, settings), items_in(store)
    users: dict[str, list[Logged]] = defaultdict(list)
    for one in log:
        users[one.event.user_id].append(one)
    answer = Damage(events=len(log), items=len(wanted), shoppers=len(users))
    for product_id in sorted({*wanted, *found}):
        should, has = _parts(wanted.get(product_id)), _parts(found.get(product_id))
        if should[0] != has[0]:
            answer.counters.append(product_id)
        if should[1] != has[1]:
            answer.sketches.append(product_id)
    for product_id, state in zip(wanted, store.states(list(wanted)), strict=True):
        if state is not None and state.header.members and seen.get(product_id) != state.header.mark:
            answer.silent.append(product_id)
    answer.trends = _wrong_trends(store, wanted, (now or datetime.now(UTC)).timestamp())
    for user_id, events in users.items():
        name = name_of(user_id, settings)
        (registers,) = store.touched([name])
        has_now = {"recent": store.recent(name, 1_000), "registers": unpacked(registers or b"")}
        if has_now != expected_shopper(events, user_id, settings, recent_kept):
            answer.recents.append(user_id)
    return answer


def _parts(item: dict[str, Any] | None) -> tuple[Any, Any]:
    """What the guard keeps right, and what needs none."""
    if item is None:
        return None, None
    counts = [{number: bucket[:7] for number, bucket in tier.items()} for tier in item["tiers"]]
    people = [{number: bucket[7:] for number, bucket in tier.items()} for tier in item["tiers"]]
    return (item["totals"], item["newest"], counts), (item["sketch"], item["tau"], item["registers"], people)


def _wrong_trends(store: BehaviourStore, wanted: Mapping[str, Any], now: float) -> list[str]:
    """Items that a trending bucket has with another figure than their shoppers', or not at all.

    Buckets so old that no list of them is written any more are passed over.
    """
    wrong = set()
    for tier, (width, kept) in enumerate(TIERS):
        numbers = sorted(
            number
            for number in {number for item in wanted.values() for number in item["tiers"][tier]}
            if (number + kept + 2) * width > now
        )
        listed = [dict(items) for items in store.trend(tier, numbers, 1_000_000)]
        for number, items in zip(numbers, listed, strict=True):
            for product_id, item in wanted.items():
                ranks = item["tiers"][tier].get(number, [None] * 9)[7]
                if ranks is None:
                    continue  # too old to be kept for this item
                should = distinct_of([packed(ranks)]) if len(ranks) > 1 else None
                has = items.get(product_id.encode())
                if (should is None) != (has is None) or abs((should or 0) - (has or 0)) > 1e-6:
                    wrong.add(product_id)
    return sorted(wrong)


def packed(registers: Mapping[int, int]) -> bytes:
    """Registers as Redis has them."""
    ranks = [registers.get(index, 0) for index in range(ITEM_REGISTERS)]
    return bytes(high << 4 | low for high, low in zip(ranks[::2], ranks[1::2], strict=True))
