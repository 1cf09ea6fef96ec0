"""Relations planted into a synthetic shop's visits: what goes together, what is compared, and decoys.

Reads, writes  nothing; `Planted.save` and `load` keep the truth in a file, for whoever scores
Never          tells an event that it was planted: what is true stands in the truth alone

Visits look at, and buy, items by Zipf's law. On top come visits that buy two items of different kinds
together (complements), look at two of one kind and buy neither (substitutes), or look at two of different
kinds (`browsed`: neither), so many that each such pair is together `LIFT` times as often as chance has it.
`noise` multiplies what is looked at and bought by chance; what is planted stays. The most popular items are
in no pair: they are in everybody's baskets, and with everything. A pair that chance puts together less than
`LEAST_EXPECTED` times is not planted: three times as often could not be told from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from producers.shop import Shop
from schemas.events import ProductUpserted

LIFT = 3.0
PLANTED = 60
POPULAR = 10
LEAST_EXPECTED = 8.0
_ZIPF = 0.8
#: Items bought, and looked at besides, in a visit: 1 + Poisson, Poisson.
_BOUGHT, _LOOKED = 1.5, 2.0
_MS = 60_000
_MOST_PAIRS_OF_ITEM = 3

Ints = NDArray[np.int64]
Pair = tuple[str, str]


class Visits(NamedTuple):
    """Events column by column: one row for each look, and one more for each purchase."""

    visit: Ints
    shopper: Ints
    item: Ints
    bought: NDArray[np.bool_]
    at_ms: Ints


@dataclass(frozen=True, slots=True)
class Planted:
    """The truth: pairs of product ids, in the order of their names."""

    complements: Sequence[Pair]
    substitutes: Sequence[Pair]
    browsed: Sequence[Pair]

    def save(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def load(path: Path) -> Planted:
    """What `save` wrote."""
    read: Mapping[str, list[list[str]]] = json.loads(path.read_text(encoding="utf-8"))
    return Planted(**{name: [(one, two) for one, two in pairs] for name, pairs in read.items()})


def related(
    shop: Shop, *, visits: int, noise: float = 1.0, items: int = 240
) -> tuple[list[ProductUpserted], Visits, Planted]:
    """The first `items` products, what shoppers did with them in `visits` visits, and the truth.

    The same shop has the same pairs, planted as often, at every noise.
    """
    listings = shop.listings[:items]
    products = [product for product, _ in zip(shop.products(), listings, strict=False)]
    names = [product.product_id for product in products]
    kinds = [listing.design.kind.noun for listing in listings]
    draw = np.random.default_rng([shop.seed, 1])
    popularity = np.asarray((1.0 + draw.permutation(len(names))) ** -_ZIPF, dtype=np.float64)
    popularity /= popularity.sum()
    groups = [product.group_id for product in products]
    chosen, extra = _pairs(draw, popularity, list(zip(kinds, groups, strict=True)), visits)
    rows = _noise(np.random.default_rng([shop.seed, 2]), popularity, visits, noise)
    start = visits
    for kind, pairs in chosen.items():
        planted = _together(pairs, extra[kind], start, bought=kind == "complements")
        start += int(sum(extra[kind]))
        rows = [np.concatenate(both) for both in zip(rows, planted, strict=True)]
    visit, item, bought = rows
    # Whose a visit is, and when, has nothing to do with what is in it.
    draw = np.random.default_rng([shop.seed, 3])
    shopper = draw.integers(0, max(1, start // 5), start)[visit]
    at_ms = draw.permutation(start)[visit] * 24 * 60 * _MS + draw.integers(0, 20 * _MS, len(visit))
    truth = {
        kind: [tuple(sorted((names[one], names[two]))) for one, two in pairs]
        for kind, pairs in chosen.items()
    }
    return products, Visits(visit, shopper, item, bought, at_ms), Planted(**truth)  # type: ignore[arg-type]


def _pairs(
    draw: np.random.Generator,
    popularity: NDArray[np.float64],
    named: Sequence[tuple[str, str | None]],
    visits: int,
) -> tuple[dict[str, list[tuple[int, int]]], dict[str, list[int]]]:
    """Pairs to plant, and in how many visits each. `named` are kind and group; variants are no pair."""
    usable = np.argsort(-popularity)[POPULAR:]
    bought = _meetings_of(_BOUGHT, 1, visits)
    looked = _meetings_of(_BOUGHT + _LOOKED, 1, visits)
    wanted = {"complements": (False, bought), "substitutes": (True, looked), "browsed": (False, looked)}
    chosen: dict[str, list[tuple[int, int]]] = {}
    extra: dict[str, list[int]] = {}
    taken: set[frozenset[int]] = set()
    used = dict.fromkeys(usable.tolist(), 0)
    for kind, (alike, (rows, chance)) in wanted.items():
        pairs: list[tuple[int, int]] = []
        times: list[int] = []
        candidates = [
            (one, two)
            for place, one in enumerate(usable.tolist())
            for two in usable[place + 1 :].tolist()
            if (named[one][0] == named[two][0]) == alike
            and (named[one][1] is None or named[one][1] != named[two][1])
            and popularity[one] * popularity[two] * rows * rows * chance >= LEAST_EXPECTED
        ]
        draw.shuffle(candidates)
        for one, two in candidates:
            if len(pairs) == PLANTED:
                break
            if frozenset((one, two)) in taken or max(used[one], used[two]) >= _MOST_PAIRS_OF_ITEM:
                continue
            taken.add(frozenset((one, two)))
            used[one] += 1
            used[two] += 1
            pairs.append((one, two))
            times.append(_extra(popularity[one] * rows, popularity[two] * rows, chance))
        chosen[kind], extra[kind] = pairs, times
    return chosen, extra


def _meetings_of(more: float, least: int, visits: int) -> tuple[float, float]:
    """Rows of so many visits of `least` + Poisson(`more`) items, and what two of them meet by chance."""
    size = least + more
    ordered = more * more + 2 * least * more + least * (least - 1)
    return size * visits, ordered / (size * size * visits)


def _extra(one: float, two: float, chance: float) -> int:
    """So many meetings more that a pair is together LIFT times as often as chance has it then."""
    by_chance, more = one * two * chance, 0.0
    for _ in range(50):
        more = LIFT * (one + more) * (two + more) * chance - by_chance
    return round(more)


def _noise(
    draw: np.random.Generator, popularity: NDArray[np.float64], visits: int, noise: float
) -> list[NDArray[np.int64]]:
    """(visit, item, bought) of what is looked at and bought by chance."""
    bought = 1 + draw.poisson(_BOUGHT, visits)
    looked = draw.poisson(_LOOKED, visits)
    rows = []
    for counts, is_bought in ((bought, True), (looked, False)):
        often = np.floor(counts * noise + draw.random(visits)).astype(np.int64)
        visit = np.repeat(np.arange(visits), often)
        item = draw.choice(len(popularity), len(visit), p=popularity)
        rows.append((visit, item, np.full(len(visit), is_bought)))
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def _together(
    pairs: Sequence[tuple[int, int]], times: Sequence[int], start: int, *, bought: bool
) -> list[NDArray[np.int64]]:
    """(visit, item, bought) of visits with nothing but the two."""
    both = np.repeat(np.array(pairs, dtype=np.int64).reshape(-1, 2), times, axis=0)
    visit = start + np.repeat(np.arange(len(both)), 2)
    return [visit, both.ravel(), np.full(2 * len(both), bought)]
