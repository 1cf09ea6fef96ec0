"""What one batch of events does to shoppers and to items, as the scripts take it and answer it.

Pure: lists in the order of adapters/behaviour_scripts.py and adapters/shopper_scripts.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple


class ShopperWork:
    """What one batch does to one shopper, of one partition: lists as SHOPPERS takes them."""

    __slots__ = ("bought", "committed", "entries", "field", "recent", "shopper", "touched")

    def __init__(self, shopper: bytes, field: str, committed: int) -> None:
        self.shopper = shopper
        #: Topic and partition.
        self.field = field
        self.committed = committed
        #: Of each event 8 bytes of its id's hash and 6 of its offset, in the order of offsets.
        self.entries: list[bytes] = []
        self.recent: list[Any] = []
        self.bought: list[Any] = []
        #: One for each pair of `recent`.
        self.touched: list[int] = []

    def keys(self, prefix: str) -> list[str]:
        """The keys it touches."""
        keys = [f"{prefix}:ids:{self.field}"]
        if self.recent:
            keys += (f"{prefix}:recent", f"{prefix}:seen")
        if self.bought:
            keys.append(f"{prefix}:bought")
        return keys

    def unit(self) -> list[Any]:
        """It as SHOPPERS takes it."""
        return [
            self.committed,
            b"".join(self.entries),
            len(self.recent),
            len(self.bought),
            *self.recent,
            *self.bought,
            *self.touched,
        ]


class ItemWork(NamedTuple):
    """What one batch does to one item, of one topic: lists as ITEMS takes them."""

    product_id: str
    #: Member and score, and so on.
    members: list[Any]
    #: Of each event five values.
    events: Sequence[tuple[int, ...]]
    #: The same events summed up, where they are many; tried first.
    summed: list[Any] | None = None

    def unit(self, *, singly: bool) -> list[Any]:
        """It as ITEMS takes it."""
        if self.summed is None or singly:
            events: list[Any] = [0, *chain.from_iterable(self.events)]
        else:
            events = self.summed
        return [1 + len(self.members) + len(events), len(self.members), *self.members, *events]


class Moved(NamedTuple):
    """What became of an item.

    `much` is how much its sketch moved (0, 1: something, 2: enough); `tau` is 0 while the sketch has room;
    `trend` names the trending buckets that changed: tier, number, registers of its shoppers, and so on.
    """

    much: int
    tau: float
    trend: list[Any]
