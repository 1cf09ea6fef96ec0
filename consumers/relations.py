"""Which items are bought together, or looked at together, more often than chance would have it. Pure.

Reads   interactions in memory: who did what with which item, and when
Writes  nothing
Never   says what a pair is to each other: texts tell substitutes from complements (service/relations.py)

Baskets and visits are those of consumers/baskets.py. Chance is the same baskets shuffled: with s_b items in
basket b and S in all, items that are in n_i and n_j of them meet in

    expected = n_i * n_j * sum_b s_b (s_b - 1) / S^2

so that large baskets and popular items explain what they can. How sure a pair is: pairs that meet k times
where E were expected have a lift with the posterior Gamma(k + a, E + a), a prior of mean 1 that counts as
`shrinkage` expected meetings (W. DuMouchel, Bayesian data mining in large frequency tables, The American
Statistician 1999); its mean is the lift, a low quantile of it (Wilson and Hilferty 1931) the lower bound. One
shopper alone makes no pair, and counts with `most_occasions` baskets at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumers.baskets import Interactions, Ints, Occasions, RelationSettings, occasions
from schemas.relations import Bundle, Evidence, Mined, Partner

Floats = NDArray[np.float64]

#: Pairs that are held before they are counted: 64 MiB.
_HELD_PAIRS = 8_000_000
#: Orders of fewer baskets say nothing about which comes first.
_LEAST_ORDERED = 5
#: Of an item's partners those that bundles are looked for among, and how many bundles are kept.
_BUNDLED, _BUNDLES = 8, 5


class Pairs(NamedTuple):
    """Pairs of items, smaller number first, ordered by `key` = first * items + second."""

    key: Ints
    together: Ints
    expected: Floats
    lift: Floats
    low: Floats


class Found(NamedTuple):
    """What mining came to: per item that has any, and in figures."""

    mined: dict[str, Mined]
    baskets: int
    visits: int
    pairs: int


def mine(events: Interactions, settings: RelationSettings) -> Found:
    """All relations of these events."""
    baskets = occasions(
        events.rows(events.bought), round(settings.basket_hours * 3_600_000), settings, named=False
    )
    visits = occasions(events, round(settings.visit_gap_minutes * 60_000), settings, named=True)
    size = len(events.items)
    bought, seen = (_Side(one, size, settings) for one in (baskets, visits))
    by_bought, by_seen = (side.partners(settings.kept) for side in (bought, seen))
    members = bought.members()
    mined = {}
    for number in sorted(by_bought.keys() | by_seen.keys()):
        others = dict.fromkeys([*by_bought.get(number, ()), *by_seen.get(number, ())])
        partners = tuple(
            Partner(
                item_id=events.items[other],
                bought=bought.evidence(number, other),
                seen=seen.evidence(number, other),
                later=bought.later(number, other),
            )
            for other in others
        )
        bundles = tuple(
            Bundle(items=(events.items[one], events.items[two]), together=together)
            for one, two, together in _bundles(number, by_bought, members, settings)
        )
        mined[events.items[number]] = Mined(
            baskets=int(bought.often[number]),
            visits=int(seen.often[number]),
            partners=partners,
            bundles=bundles,
        )
    return Found(mined, baskets.total, visits.total, bought.sure_pairs + seen.sure_pairs)


def counted(held: Occasions, size: int, settings: RelationSettings) -> Pairs:
    """Every pair of items that met, and what chance has to say to it."""
    often = np.bincount(held.item, minlength=size)
    chance = _chance(held)
    found: list[Ints] = []
    waiting: list[Ints] = []
    counts: list[Ints] = []
    room = _HELD_PAIRS
    # What is in fewer baskets than shoppers are asked for makes no sure pair.
    enough = often[held.item] >= settings.least_shoppers
    kept = held._replace(occasion=held.occasion[enough], item=held.item[enough])

    def count() -> None:
        keys, number = np.unique(np.concatenate(waiting), return_counts=True)
        found.append(keys)
        counts.append(number)
        waiting.clear()

    for one, other in _meetings(kept):
        waiting.append(kept.item[one] * size + kept.item[other])
        room -= len(one)
        if room < 0:
            count()
            room = _HELD_PAIRS
    if waiting:
        count()
    if not found:
        nothing, none = np.zeros(0, dtype=np.int64), np.zeros(0)
        return Pairs(nothing, nothing, none, none, none)
    key, place = np.unique(np.concatenate(found), return_inverse=True)
    together = np.bincount(place, weights=np.concatenate(counts)).astype(np.int64)
    expected = np.asarray(often[key // size] * often[key % size] * chance, dtype=np.float64)
    lift, low = lifts(together, expected, settings)
    return Pairs(key, together, expected, lift, low)


def _chance(held: Occasions) -> float:
    """sum_b s_b (s_b - 1) / S^2: how often two items meet that are in one basket each."""
    rows = len(held.occasion)
    if not rows:
        return 0.0
    sizes = np.unique(held.occasion, return_counts=True)[1].astype(np.float64)
    return float((sizes * (sizes - 1)).sum()) / float(rows) ** 2


def lifts(together: Ints | Floats, expected: Floats, settings: RelationSettings) -> tuple[Floats, Floats]:
    """Mean and lower bound of each lift: of Gamma(together + a, expected + a)."""
    shape, rate = together + settings.shrinkage, expected + settings.shrinkage
    root = 1 - 1 / (9 * shape) - settings.surety / (3 * np.sqrt(shape))
    return shape / rate, shape / rate * np.maximum(root, 0.0) ** 3


def _meetings(held: Occasions) -> Iterator[tuple[Ints, Ints]]:
    """Places of rows of one occasion, two by two, each pair once; the first has the smaller item."""
    for shift in range(1, len(held.occasion)):
        same = np.flatnonzero(held.occasion[shift:] == held.occasion[:-shift])
        if not same.size:
            return
        yield same, same + shift


class _Side:
    """Baskets, or visits: their pairs, those that are sure, and what is known of each."""

    def __init__(self, held: Occasions, size: int, settings: RelationSettings) -> None:
        self._held = held
        self._size = size
        self.often = np.bincount(held.item, minlength=size)
        self._pairs = counted(held, size, settings)
        sure = (self._pairs.low >= settings.least_lift) & (self._pairs.together >= settings.least_shoppers)
        self._sure = np.flatnonzero(sure)
        shoppers, self._later = self._looked_closer()
        self._sure = self._sure[shoppers >= settings.least_shoppers]
        self._sure_keys = frozenset(self._pairs.key[self._sure].tolist())
        self.sure_pairs = len(self._sure)

    def _looked_closer(self) -> tuple[Ints, Mapping[int, tuple[int, int]]]:
        """Distinct shoppers of each sure pair; in how many baskets the second came later, of how many."""
        keys = self._pairs.key[self._sure]
        whose, later, ordered = [], np.zeros(len(keys)), np.zeros(len(keys))
        people = int(self._held.shopper.max(initial=0)) + 1
        if len(keys):
            for one, other in _meetings(self._held):
                key = self._held.item[one] * self._size + self._held.item[other]
                place = np.searchsorted(keys, key).clip(max=len(keys) - 1)
                hit = keys[place] == key
                place, one, other = place[hit], one[hit], other[hit]
                whose.append(np.unique(place * people + self._held.shopper[one]))
                wait = self._held.at_ms[other] - self._held.at_ms[one]
                later += np.bincount(place[wait > 0], minlength=len(keys))
                ordered += np.bincount(place[wait != 0], minlength=len(keys))
        together = np.unique(np.concatenate(whose)) // people if whose else np.zeros(0, dtype=np.int64)
        shoppers = np.bincount(together, minlength=len(keys)).astype(np.int64)
        told = zip(keys.tolist(), later.tolist(), ordered.tolist(), strict=True)
        return shoppers, {key: (int(after), int(of)) for key, after, of in told}

    def partners(self, kept: int) -> dict[int, list[int]]:
        """The surest partners of each item that has any, best first."""
        key, low = self._pairs.key[self._sure], self._pairs.low[self._sure]
        one, other = key // self._size, key % self._size
        item, partner = np.concatenate([one, other]), np.concatenate([other, one])
        order = np.lexsort((partner, -np.concatenate([low, low]), item))
        found: dict[int, list[int]] = {}
        for number, with_ in zip(item[order].tolist(), partner[order].tolist(), strict=True):
            those = found.setdefault(number, [])
            if len(those) < kept:
                those.append(with_)
        return found

    def evidence(self, item: int, other: int) -> Evidence | None:
        """What the pair's meetings say; None where it never met."""
        key = min(item, other) * self._size + max(item, other)
        place = int(np.searchsorted(self._pairs.key, key))
        if place == len(self._pairs.key) or self._pairs.key[place] != key:
            return None
        return Evidence(
            together=int(self._pairs.together[place]),
            other=int(self.often[other]),
            expected=round(float(self._pairs.expected[place]), 4),
            lift=round(float(self._pairs.lift[place]), 4),
            lift_low=round(float(self._pairs.low[place]), 4),
            sure=key in self._sure_keys,
        )

    def later(self, item: int, other: int) -> float | None:
        """In what share of the baskets that have an order the other came later."""
        after, of = self._later.get(min(item, other) * self._size + max(item, other), (0, 0))
        if of < _LEAST_ORDERED:
            return None
        return round((after if item < other else of - after) / of, 4)

    def members(self) -> dict[int, Ints]:
        """The occasions of each item that has a sure partner, ascending."""
        key = self._pairs.key[self._sure]
        wanted = np.unique(np.concatenate([key // self._size, key % self._size]))
        order = np.argsort(self._held.item, kind="stable")
        items = self._held.item[order]
        start, end = (np.searchsorted(items, wanted, side=side) for side in ("left", "right"))
        return {
            number: self._held.occasion[order[low:high]]
            for number, low, high in zip(wanted.tolist(), start.tolist(), end.tolist(), strict=True)
        }


def _bundles(
    item: int,
    partners: Mapping[int, list[int]],
    members: Mapping[int, Ints],
    settings: RelationSettings,
) -> list[tuple[int, int, int]]:
    """Pairs of an item's partners that are each other's as well, and in how many baskets all three were."""
    own = partners.get(item, [])[:_BUNDLED]
    found = []
    for place, one in enumerate(own):
        for two in own[place + 1 :]:
            if two in partners.get(one, ()):
                both = np.intersect1d(members[item], members[one], assume_unique=True)
                together = len(np.intersect1d(both, members[two], assume_unique=True))
                if together >= settings.least_shoppers:
                    found.append((one, two, together))
    return sorted(found, key=lambda row: -row[2])[:_BUNDLES]
