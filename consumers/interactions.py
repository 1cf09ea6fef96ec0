"""One batch of decoded events as work for Redis: per shopper, and per item. Pure.

Items are few beside their events, so events of one item are summed up column by column: a hot item's thousand
events become a dozen buckets, and cost Redis as little as a warm item's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapters.behaviour_scripts import ITEM_REGISTERS, TIERS
from adapters.behaviour_work import ItemWork, ShopperWork
from consumers.interest import Scorer, Shopper
from schemas.behaviour import PLACE, TYPES

#: Fewer events of one item are applied singly: a sum would be longer.
SUMMED_FROM = 4
_PURCHASE = PLACE["purchase"]
_KINDS = len(TYPES)
_REGISTER_BYTES = ITEM_REGISTERS // 2

Ints = NDArray[np.int64]


class Interaction(NamedTuple):
    """One decoded event, as far as the work needs it."""

    topic: str
    partition: int
    offset: int
    shopper: Shopper
    product_id: str
    #: 8 bytes of its id's hash, 6 of its offset.
    entry: bytes
    #: Of its type in schemas.behaviour.TYPES.
    place: int
    second: float
    #: ln of the weight; None if it is no interaction.
    log_weight: float | None
    #: The item's in the register sketch of the shopper: index * 16 + rank.
    register: int
    #: The shopper has asked to be forgotten since.
    erased: bool


def shopper_works(
    topic: str, batch: Sequence[Interaction], committed: Mapping[int, int]
) -> dict[tuple[int, bytes], ShopperWork]:
    """What the batch does to shoppers, by partition and shopper. `committed` is by partition."""
    works: dict[tuple[int, bytes], ShopperWork] = {}
    for _, partition, _, shopper, product_id, entry, place, second, log_weight, register, _ in batch:
        key = partition, shopper.hash
        work = works.get(key)
        if work is None:
            work = works[key] = ShopperWork(shopper.hash, f"{topic}:{partition}", committed[partition])
        work.entries.append(entry)
        if log_weight is not None:
            ms = int(second * 1000)
            work.recent += (ms * 8 + place, product_id)
            work.touched.append(register)
            if place == _PURCHASE:
                work.bought += (ms, product_id)
    return works


def duplicates_in(
    works: Mapping[tuple[int, bytes], ShopperWork], answers: Sequence[str]
) -> set[tuple[int, bytes]]:
    """The (partition, entry) of events that must not count, from what apply_shoppers answered."""
    return {
        (partition, entry)
        for ((partition, _), work), flags in zip(works.items(), answers, strict=True)
        if flags
        for entry, flag in zip(work.entries, flags, strict=True)
        if flag == "0"
    }


def item_works(
    batch: Sequence[Interaction],
    duplicates: set[tuple[int, bytes]],
    *,
    scorer: Scorer,
    taus: Mapping[str, float],
) -> list[ItemWork]:
    """What the batch does to items. `duplicates` are (partition, entry); `taus` of items as far as known.

    An event whose score is not below its item's tau cannot enter the sketch, and is left out of the members.
    """
    if not batch:
        return []
    _, partitions, offsets, shoppers, names, entries, places, seconds, log_weights, _, _ = zip(
        *batch, strict=True
    )
    _, members, ranks, registers = zip(*shoppers, strict=True)
    index: dict[str, int] = {}
    item = np.array([index.setdefault(name, len(index)) for name in names])
    order = np.argsort(item, kind="stable")
    ends = np.cumsum(np.bincount(item, minlength=len(index)))
    second = np.array(seconds)
    log_weight = np.array(log_weights, dtype=np.float64)  # None becomes NaN
    interaction = ~np.isnan(log_weight)
    counts = np.ones(len(batch), dtype=bool)
    if duplicates:
        counts[:] = [key not in duplicates for key in zip(partitions, entries, strict=True)]
    column = _Columns(
        item=item[order],
        partition=np.array(partitions)[order],
        offset=np.array(offsets)[order],
        second=second.astype(np.int64)[order],
        place=np.array(places)[order],
        counts=counts[order],
        interaction=interaction[order],
        register=np.array(registers)[order],
    )
    code = column.place + 8 * column.counts + 16 * column.interaction
    rows = list(
        zip(
            column.partition.tolist(),
            column.offset.tolist(),
            column.second.tolist(),
            code.tolist(),
            column.register.tolist(),
            strict=True,
        )
    )
    # Who may enter the sketch, the best score first, each shopper once.
    score = scorer.scores(np.array(ranks), log_weight, second)
    tau = np.array([taus.get(name, np.inf) for name in index])
    may_enter = np.flatnonzero(interaction & (score < tau[item]))
    may_enter = may_enter[np.lexsort((score[may_enter], item[may_enter]))]
    entering: dict[int, dict[str, int]] = {}
    for number, place, value in zip(
        item[may_enter].tolist(), may_enter.tolist(), score[may_enter].astype(np.int64).tolist(), strict=True
    ):
        entering.setdefault(number, {}).setdefault(members[place], value)
    summed = _summed(column, ends)
    works, start = [], 0
    for number, (name, end) in enumerate(zip(index, ends.tolist(), strict=True)):
        pairs = [value for pair in entering.get(number, {}).items() for value in pair]
        works.append(ItemWork(name, pairs, rows[start:end], summed.get(number)))
        start = end
    return works


class _Columns(NamedTuple):
    """Events of a batch in the order of their items."""

    item: Ints
    partition: Ints
    offset: Ints
    #: Whole seconds of the event's time.
    second: Ints
    place: Ints
    counts: NDArray[np.bool_]
    interaction: NDArray[np.bool_]
    #: The shopper's in the item's register sketches: index * 16 + rank.
    register: Ints

    def of(self, which: NDArray[Any]) -> _Columns:
        """These events of it."""
        return _Columns(*(values[which] for values in self))


def _summed(column: _Columns, ends: Ints) -> dict[int, list[Any]]:
    """Sums as ITEMS takes them, of the items with many events, by their number."""
    many = np.diff(ends, prepend=0) >= SUMMED_FROM
    numbers = np.flatnonzero(many)
    if not numbers.size:
        return {}
    column = column.of(many[column.item])
    column = column._replace(item=np.searchsorted(numbers, column.item))
    size = len(numbers)
    counting = column.of(column.counts)
    newest = np.full(size, -1)
    np.maximum.at(newest, counting.item, counting.second)
    interacted = np.bincount(column.item[column.interaction], minlength=size) > 0
    visits = counting.of(counting.interaction)
    totals = _by_kind(counting.item, counting.place, size).tolist()
    everyone = _registers(visits.item, visits.register, size)
    sums: list[list[Any]] = [
        [1, touched, latest, *kinds, registers]
        for touched, latest, kinds, registers in zip(
            interacted.astype(np.int64).tolist(), newest.tolist(), totals, everyone, strict=True
        )
    ]
    # Of each partition the first and the last offset.
    by = np.lexsort((column.offset, column.partition, column.item))
    item, partition, offset = column.item[by], column.partition[by], column.offset[by]
    change = np.flatnonzero((np.diff(item) != 0) | (np.diff(partition) != 0)) + 1
    first, last = np.append(0, change), np.append(change - 1, len(item) - 1)
    spans = np.stack((partition[first], offset[first], offset[last]), axis=1).ravel().tolist()
    used = np.bincount(item[first], minlength=size)
    start = 0
    for values, count in zip(sums, used.tolist(), strict=True):
        values.append(count)
        values += spans[3 * start : 3 * (start + count)]
        start += count
    for tier, (width, kept) in enumerate(TIERS):
        _add_buckets(sums, counting, newest, tier=tier, width=width, kept=kept)
    return dict(zip(numbers.tolist(), sums, strict=True))


def _add_buckets(
    sums: list[list[Any]], counting: _Columns, newest: Ints, *, tier: int, width: int, kept: int
) -> None:
    """Append the buckets of one tier that the newest event leaves standing."""
    number = counting.second // width
    standing = number > newest[counting.item] // width - kept
    counting, number = counting.of(standing), number[standing]
    if not number.size:
        return
    base = int(number.min())
    span = int(number.max()) - base + 1
    keys, bucket = np.unique(counting.item * span + (number - base), return_inverse=True)
    size = len(keys)
    kinds = _by_kind(bucket, counting.place, size).tolist()
    visits = counting.interaction
    bought = visits & (counting.place == _PURCHASE)
    shoppers = _registers(bucket[visits], counting.register[visits], size)
    buyers = _registers(bucket[bought], counting.register[bought], size)
    items, numbers = (keys // span).tolist(), (keys % span + base).tolist()
    for item, which, of_kinds, seen, bought_by in zip(items, numbers, kinds, shoppers, buyers, strict=True):
        sums[item] += (tier + 1, which, *of_kinds, seen, bought_by)


def _by_kind(group: Ints, place: Ints, size: int) -> Ints:
    """How many events of each kind each group has: [size, kinds]."""
    return np.bincount(group * _KINDS + place, minlength=size * _KINDS).reshape(size, _KINDS)


def _registers(group: Ints, register: Ints, size: int) -> list[bytes]:
    """The packed register sketch of each group; empty for one without events."""
    ranks = np.zeros((size, ITEM_REGISTERS), dtype=np.uint8)
    np.maximum.at(ranks, (group, register // 16), (register % 16).astype(np.uint8))
    packed = (ranks[:, 0::2] << 4 | ranks[:, 1::2]).tobytes()
    some = (np.bincount(group, minlength=size) > 0).tolist()
    return [
        packed[place * _REGISTER_BYTES : (place + 1) * _REGISTER_BYTES] if filled else b""
        for place, filled in enumerate(some)
    ]
