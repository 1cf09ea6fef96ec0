"""Behaviour in Redis: counters, sketches and registers of items; recent and bought items of shoppers; marks.

Reads, writes  `{ns}item:{id}:behaviour` and `{ns}item:{id}:sketch` (an item's state, its sketch),
               `{ns}shopper:{hash}:recent|bought|seen|ids:{topic}:{partition}`, `{ns}trend:{tier}:{bucket}`,
               `{ns}{dirty-N}:due|announcing` (items whose vector is to be written), `{ns}behaviour:epoch`
Never          sees a user id: shoppers are named by their keyed hash; never lets a key with a guard expire

The scripts are in adapters/behaviour_scripts.py and adapters/shopper_scripts.py. Every write may be repeated,
in any order.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from adapters.behaviour_scripts import FORGET, HEADER_BYTES, ITEMS, SPLIT, TIERS
from adapters.behaviour_state import Header, ItemBehaviour, header_of, state_of
from adapters.behaviour_work import ItemWork, Moved, ShopperWork
from adapters.mark_scripts import TAKE_DUE, UNMARK
from adapters.redis_client import glob, item_key
from adapters.redis_nodes import RedisNodes
from adapters.redis_scripts import UnitScript
from adapters.redis_walk import item_ids
from adapters.shopper_scripts import SHOPPERS
from adapters.state_generation import FIRST, state_prefix
from schemas.errors import Halt

#: Sets of marks; an item is always in the same one, so it is announced once, whoever touched it.
MARK_SETS = 16
#: Items that a trending bucket keeps.
TREND_KEPT = 5_000
_READ_CHUNK = 512


class BehaviourStore:
    """Applies batches and answers what they come to. Thread-safe; raises Transient when Redis is away."""

    def __init__(
        self,
        *,
        nodes: RedisNodes,
        namespace: str = "",
        generation: int = FIRST,
        sketch_members: int = 128,
        enough_share: float = 0.05,
    ) -> None:
        self._nodes = nodes
        self._namespace = state_prefix(namespace, generation)
        self._sketch_members = sketch_members
        self._enough_share = enough_share
        self._shoppers = UnitScript(nodes, SHOPPERS)
        self._items = UnitScript(nodes, ITEMS)
        self._due = UnitScript(nodes, TAKE_DUE)
        self._unmark = UnitScript(nodes, UNMARK)
        self._forget = UnitScript(nodes, FORGET)

    # --- keys --------------------------------------------------------------------------------------

    def state_key(self, product_id: str) -> str:
        """The key of an item's counters, guards and registers."""
        return item_key(self._namespace, product_id, "behaviour")

    def sketch_key(self, product_id: str) -> str:
        """The key of an item's sketch."""
        return item_key(self._namespace, product_id, "sketch")

    def shopper_key(self, shopper: bytes, what: str) -> str:
        """A key of a shopper: seen (registers of distinct items), recent, bought, or ids:topic:partition."""
        return f"{self._shopper(shopper)}:{what}"

    def _shopper(self, shopper: bytes) -> str:
        return f"{self._namespace}shopper:{{{shopper.hex()}}}"

    def _trend_key(self, tier: int, bucket: int) -> str:
        return f"{self._namespace}trend:{tier}:{bucket}"

    def _mark_key(self, number: int, what: str) -> str:
        return f"{self._namespace}{{dirty-{number}}}:{what}"

    # --- writing -----------------------------------------------------------------------------------

    def claim_epoch(self, epoch: str) -> None:
        """Say which sketches these are. Raises Halt if Redis holds others: they cannot be compared."""
        key = f"{self._namespace}behaviour:epoch"
        with self._nodes.calling("claiming the sketch epoch"):
            node = self._nodes.of(key)
            node.set(key, epoch, nx=True)
            standing = cast("bytes | None", node.get(key))
        if standing is not None and standing.decode() != epoch:
            raise Halt(
                f"the sketches in Redis are of epoch {standing.decode()}, these settings make {epoch}: put "
                "back SIMSTREAM_BEHAVIOUR__SKETCH__ weights, half-life, members and hash key, or start from "
                "empty behaviour keys and read user.events from its beginning"
            )

    def apply_shoppers(
        self, works: Sequence[ShopperWork], *, epoch: str | None, recent_kept: int, bought_kept: int
    ) -> list[str]:
        """Per work '' if all its events count, else a character each: '1', or '0' for a duplicate.

        Here and below: raises Transient, writing nothing, where Redis is not of this `epoch` (its run ids).
        """
        keys = [work.keys(self._shopper(work.shopper)) for work in works]
        with self._nodes.calling("writing shoppers"):
            answers = self._shoppers.run(
                [recent_kept, bought_kept], keys, [work.unit() for work in works], flat=True, epoch=epoch
            )
        return [flags or "" for flags in answers]

    def apply_items(self, topic: str, works: Sequence[ItemWork], *, epoch: str | None) -> list[Moved]:
        """Apply events and sketch members; what moved, per work. Events of a partition in offset order."""
        moved = self._items_of(topic, works, epoch, singly=False)
        # Some events of these were counted before, by another owner or before a rewind, and some not.
        split = [place for place, one in enumerate(moved) if one.much == SPLIT]
        if split:
            again = self._items_of(topic, [works[place] for place in split], epoch, singly=True)
            for place, one in zip(split, again, strict=True):
                moved[place] = one
        return moved

    def _items_of(
        self, topic: str, works: Sequence[ItemWork], epoch: str | None, *, singly: bool
    ) -> list[Moved]:
        keys = [[self.state_key(work.product_id), self.sketch_key(work.product_id)] for work in works]
        units = [work.unit(singly=singly) for work in works]
        settings = [topic, self._sketch_members, self._enough_share]
        with self._nodes.calling("writing behaviour of items"):
            answers = self._items.run(settings, keys, units, raw=True, flat=True, epoch=epoch)
        return [Moved(answer[0], answer[1], answer[2:]) for answer in answers]

    def add_trend(self, shoppers: Mapping[tuple[int, int], Mapping[str, float]]) -> None:
        """Raise items' estimated shoppers in trending buckets, keyed by (tier, number)."""
        if not shoppers:
            return
        keys = [self._trend_key(*bucket) for bucket in shoppers]
        buckets = list(shoppers.items())
        with self._nodes.calling("writing trending buckets"):
            for node, positions in self._nodes.by_node(keys):
                pipe = node.pipeline(transaction=False)
                for position in positions:
                    (tier, _), figures = buckets[position]
                    width, kept = TIERS[tier]
                    pipe.zadd(keys[position], dict(figures), gt=True)
                    pipe.zremrangebyrank(keys[position], 0, -TREND_KEPT - 1)
                    pipe.expire(keys[position], width * (kept + 2))
                pipe.execute()

    # --- erasure -----------------------------------------------------------------------------------

    def forget_shopper(self, shopper: bytes, *, until_ms: int) -> int:
        """Remove what is kept of a shopper up to then; all of it where nothing is later. How many keys went.

        What is kept of later events stays with their ids; without any, nothing says that there was one.
        """
        recent, bought = self.shopper_key(shopper, "recent"), self.shopper_key(shopper, "bought")
        removed = 0
        with self._nodes.calling("forgetting a shopper"):
            node = self._nodes.of(recent)
            # A score of `recent` is its milliseconds times 8, and the type.
            node.zremrangebyscore(recent, "-inf", until_ms * 8 + 7)
            node.zremrangebyscore(bought, "-inf", until_ms)
            if not node.exists(recent) and not node.exists(bought):
                pattern = glob(self._shopper(shopper)) + ":*"
                for key in list(node.scan_iter(match=pattern, count=10_000)):
                    removed += node.unlink(key)
        return removed

    def with_member(self, member: str, product_ids: Sequence[str]) -> list[str]:
        """Those of these items whose sketch has the shopper."""
        keys = [self.sketch_key(one) for one in product_ids]
        found: set[int] = set()
        with self._nodes.calling("looking for a shopper in sketches"):
            for node, positions in self._nodes.by_node(keys):
                pipe = node.pipeline(transaction=False)
                for position in positions:
                    pipe.zscore(keys[position], member)
                scores = pipe.execute()
                found.update(at for at, score in zip(positions, scores, strict=True) if score is not None)
        return [one for place, one in enumerate(product_ids) if place in found]

    def forget_member(self, member: str, product_ids: Sequence[str]) -> list[str]:
        """Take a shopper out of these items' sketches; those items that it was a member of. Tau stays."""
        keys = [[self.state_key(one), self.sketch_key(one)] for one in product_ids]
        with self._nodes.calling("taking a shopper out of sketches"):
            answers = self._forget.run([member], keys, [[]] * len(product_ids))
        return [one for one, was in zip(product_ids, answers, strict=True) if was]

    # --- marks: items whose vector is to be written ------------------------------------------------

    def mark(self, due_ms: Mapping[str, int]) -> None:
        """Items are due at these times; an earlier time that stands stays."""
        sets: dict[int, dict[str, int]] = {}
        for product_id, at in due_ms.items():
            sets.setdefault(zlib.crc32(product_id.encode()) % MARK_SETS, {})[product_id] = at
        numbers = list(sets)
        keys = [self._mark_key(number, "due") for number in numbers]
        with self._nodes.calling("marking items"):
            for node, positions in self._nodes.by_node(keys):
                pipe = node.pipeline(transaction=False)
                for position in positions:
                    pipe.zadd(keys[position], cast(Any, sets[numbers[position]]), lt=True)
                pipe.execute()

    def take_due(self, now_ms: int, *, limit: int, abandoned_ms: int) -> list[str]:
        """Items to announce now: those that are due, and those that somebody took and did not finish.

        Each set gives at most `limit`. They stay among the announced until `announced` is told.
        """
        keys = [
            [self._mark_key(number, "due"), self._mark_key(number, "announcing")]
            for number in range(MARK_SETS)
        ]
        with self._nodes.calling("taking due items"):
            found = self._due.run([now_ms, now_ms - abandoned_ms, limit], keys, [[]] * MARK_SETS)
        return [item for items in found for item in items]

    def announced(self, product_ids: Sequence[str], *, taken_ms: int) -> None:
        """The broker has the hints of these, which were taken then; what was taken again since stays."""
        sets: dict[int, list[str]] = {}
        for product_id in product_ids:
            sets.setdefault(zlib.crc32(product_id.encode()) % MARK_SETS, []).append(product_id)
        keys = [[self._mark_key(number, "announcing")] for number in sets]
        with self._nodes.calling("unmarking items"):
            self._unmark.run([taken_ms], keys, list(sets.values()))

    def waiting(self) -> int:
        """Items that are due or will be, and those whose announcement the broker has not acknowledged yet."""
        keys = [self._mark_key(number, what) for number in range(MARK_SETS) for what in ("due", "announcing")]
        return sum(self._read("zcard", keys))

    # --- reading -----------------------------------------------------------------------------------

    def states(self, product_ids: Sequence[str]) -> list[ItemBehaviour | None]:
        """State by position."""
        return [state_of(raw) for raw in self._read("get", [self.state_key(one) for one in product_ids])]

    def headers(self, product_ids: Sequence[str]) -> list[Header | None]:
        """The header of each item's state, by position: what its vector is made from beside its sketch."""
        keys = [self.state_key(one) for one in product_ids]
        return [header_of(raw) for raw in self._read("getrange", keys, 0, HEADER_BYTES - 1)]

    def sketches(self, product_ids: Sequence[str]) -> list[list[tuple[bytes, float]]]:
        """Members and scores by position, the smallest score first."""
        return self._read("zrange", [self.sketch_key(one) for one in product_ids], 0, -1, withscores=True)

    def touched(self, shoppers: Sequence[bytes]) -> list[bytes | None]:
        """The registers of each shopper's distinct items, by position."""
        return self._read("hget", [self.shopper_key(one, "seen") for one in shoppers], "n")

    def recent(self, shopper: bytes, limit: int) -> list[tuple[bytes, float]]:
        """Items and scores (ms * 8 + type) of a shopper, the newest first."""
        key = self.shopper_key(shopper, "recent")
        with self._nodes.calling("reading a shopper"):
            found = self._nodes.of(key).zrevrange(key, 0, limit - 1, withscores=True)
        return cast("list[tuple[bytes, float]]", found)

    def bought(self, shopper: bytes) -> list[bytes]:
        """Items that a shopper bought."""
        key = self.shopper_key(shopper, "bought")
        with self._nodes.calling("reading a shopper"):
            found = self._nodes.of(key).zrange(key, 0, -1)
        return cast("list[bytes]", found)

    def trend(self, tier: int, buckets: Sequence[int], limit: int) -> list[list[tuple[bytes, float]]]:
        """The best items of each bucket with their shoppers, by position."""
        keys = [self._trend_key(tier, bucket) for bucket in buckets]
        return self._read("zrevrange", keys, 0, limit - 1, withscores=True)

    def _read(self, command: str, keys: Sequence[str], *args: Any, **options: Any) -> list[Any]:
        found: list[Any] = [None] * len(keys)
        with self._nodes.calling("reading behaviour"):
            for node, positions in self._nodes.by_node(keys):
                for start in range(0, len(positions), _READ_CHUNK):
                    chunk = positions[start : start + _READ_CHUNK]
                    pipe = node.pipeline(transaction=False)
                    for position in chunk:
                        getattr(pipe, command)(keys[position], *args, **options)
                    for position, answer in zip(chunk, pipe.execute(), strict=True):
                        found[position] = answer
        return found

    def scan_ids(self, *, batch: int = 1_000) -> Iterator[list[str]]:
        """Ids of all items with behaviour, in pages; an id may come twice."""
        yield from item_ids(self._nodes, self._namespace, "behaviour", batch=batch)

    def run_id(self) -> str:
        """See RedisNodes.run_id."""
        return self._nodes.run_id()
