"""The behaviour store with a guard switched off, or that ends or sleeps at the worst moment.

Reads, writes  what adapters/redis_behaviour.py reads and writes
Prints         CRASH before it ends the process; LATE when a write went out after its session had run out

guards-off          every record counts, as often as it is read
compared-once       a batch counts as a whole if its last offset is above the guard, as an aggregate would
epoch-unchecked     writes go to whichever Redis answers
crash-before-mark:N       ends between items and marks of batch N
crash-before-announce:N   ends between taking due items, the Nth time, and announcing them
crash-before-unmark:N     ends when the broker has acknowledged them
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.behaviour_scripts import ITEMS
from adapters.behaviour_work import ItemWork, Moved, ShopperWork
from adapters.kafka import Publisher
from adapters.redis_behaviour import BehaviourStore
from adapters.redis_nodes import RedisNodes
from adapters.redis_scripts import UnitScript
from consumers.behaviour import BehaviourHandler, BehaviourSettings
from consumers.debounce import DebounceSettings
from consumers.interest import SketchSettings
from schemas.topics import Topics
from tests.support.draining import SESSION_TIMEOUT_SECONDS

GUARDS_OFF = "guards-off"
COMPARED_ONCE = "compared-once"
EPOCH_UNCHECKED = "epoch-unchecked"
#: Where a process ends, in the middle of what must happen together.
CRASHES = ("crash-before-mark:", "crash-before-announce:", "crash-before-unmark:")
#: Small sketches, so that some of few shoppers are left out; short delays, so that a proof sees many of them.
SETTINGS = BehaviourSettings(
    sketch=SketchSettings(members=16, half_life_days=30),
    recent_items=10,
    debounce=DebounceSettings(
        delay_seconds=0.3, max_delay_seconds=1.0, interval_seconds=0.1, abandoned_seconds=3.0
    ),
)
_NEW = "local new = offset > (guard[partition] or -1)"
_SCRIPTS: Mapping[str, Mapping[str, str]] = {
    GUARDS_OFF: {
        _NEW: "local new = true",
        "local new = all_above(guard, at + 12, partitions)": "local new = true",
    },
    COMPARED_ONCE: {
        "  -- Counters, and who was there.": (
            "  local before, last = {}, {}\n"
            "  for i = at + 1, flat[at] == 0 and stop - 4 or 0, 5 do\n"
            "    before[flat[i]] = guard[flat[i]] or -1\n"
            "    last[flat[i]] = math.max(last[flat[i]] or -1, flat[i + 1])\n"
            "  end"
        ),
        _NEW: "local new = last[partition] > before[partition]",
        "if new then guard[partition] = offset else": "if new then guard[partition] = last[partition] else",
        "elseif flat[place + 2] > standing then return nil end": (
            "elseif flat[place + 2] > standing then return true end"
        ),
    },
}


def spoilt(script: str, fault: str) -> str:
    """The script of items without one of its guards. Raises AssertionError where the guard is not found."""
    for text, other in _SCRIPTS[fault].items():
        assert text in script, f"{fault} expects {text!r} in the script"
        script = script.replace(text, other)
    return script


class FaultyStore(BehaviourStore):
    """A store that takes its time between shoppers and items, and does what `fault` says."""

    def __init__(
        self, *, nodes: RedisNodes, fault: str = "", write_seconds: float = 0.0, **more: Any
    ) -> None:
        self._fault, _, times = fault.partition(":")
        known = (GUARDS_OFF, COMPARED_ONCE, EPOCH_UNCHECKED, *(crash.rstrip(":") for crash in CRASHES))
        if self._fault and self._fault not in known:
            raise SystemExit(f"unknown --fault {fault!r}: one of {', '.join(known)}")
        self._left = int(times or 0)
        self._write_seconds = write_seconds
        super().__init__(nodes=nodes, **more)
        if fault in _SCRIPTS:
            self._items = UnitScript(nodes, spoilt(ITEMS, fault))

    def apply_shoppers(
        self, works: Sequence[ShopperWork], *, epoch: str | None, recent_kept: int, bought_kept: int
    ) -> list[str]:
        """As the store."""
        return super().apply_shoppers(
            works, epoch=self._checked(epoch), recent_kept=recent_kept, bought_kept=bought_kept
        )

    def apply_items(self, topic: str, works: Sequence[ItemWork], *, epoch: str | None) -> list[Moved]:
        """As the store, after a pause; whoever is stopped in it writes late."""
        started = time.monotonic()
        time.sleep(self._write_seconds)
        late = time.monotonic() - started > SESSION_TIMEOUT_SECONDS
        moved = super().apply_items(topic, works, epoch=self._checked(epoch))
        if late and works:
            print(f"LATE write of {len(works)} items", flush=True)
        return moved

    def mark(self, due_ms: Mapping[str, int]) -> None:
        """As the store."""
        if due_ms:
            self._crash("crash-before-mark")
        super().mark(due_ms)

    def take_due(self, now_ms: int, *, limit: int, abandoned_ms: int) -> list[str]:
        """As the store."""
        found = super().take_due(now_ms, limit=limit, abandoned_ms=abandoned_ms)
        if found:
            self._crash("crash-before-announce")
        return found

    def announced(self, product_ids: Sequence[str], *, taken_ms: int) -> None:
        """As the store."""
        self._crash("crash-before-unmark")
        super().announced(product_ids, taken_ms=taken_ms)

    def _checked(self, epoch: str | None) -> str | None:
        return None if self._fault == EPOCH_UNCHECKED else epoch

    def _crash(self, where: str) -> None:
        if self._fault != where:
            return
        self._left -= 1
        if self._left <= 0:
            print(f"CRASH {where.removeprefix('crash-')}", flush=True)
            os._exit(137)


def faulty_behaviour(
    *,
    publisher: Publisher,
    topics: Topics,
    nodes: RedisNodes,
    namespace: str,
    fault: str = "",
    write_seconds: float = 0.0,
) -> BehaviourHandler:
    """The consumer as the proofs run it, over a FaultyStore."""
    store = FaultyStore(
        fault=fault,
        write_seconds=write_seconds,
        nodes=nodes,
        namespace=namespace,
        sketch_members=SETTINGS.sketch.members,
        enough_share=SETTINGS.enough_share,
    )
    return BehaviourHandler(store=store, publisher=publisher, topics=topics, settings=SETTINGS)
