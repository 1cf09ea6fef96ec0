"""Who is shown how much: what brands, price bands and sellers get of lists of neighbours, over their share.

Reads, writes  nothing: products and arrays in memory
Never          says what is fair: it says what a group gets for what it has, and how surely

A place in a list is worth 1 / log2(1 + place), the discount of DCG (Järvelin and Kekäläinen 2002), as Singh
and Joachims (2018, Fairness of exposure in rankings, section 3) count exposure; every list is worth 1. A
group's `ratio` is its share of the exposure over its share of the items: 1 is parity. The Gini coefficient
is that of exposure over items when each item is given its group's mean: 0 where all ratios are 1. Intervals
are percentile bootstraps over the lists (Efron and Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.evaluation import Interval
from model.learning_settings import ExposureSettings, GateSettings
from schemas.events import Product
from schemas.releases import ExposureOf, Parity

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Places of a list that count.
PLACES = 10
#: Rows of queries ranked at a time.
_BLOCK = 512
#: A ratio below this, or above its inverse, is as far from parity as can be told.
_LEAST_RATIO = 0.01
NONE, OTHERS = "(none)", "(others)"


@dataclass(frozen=True, slots=True)
class Grouping:
    """One kind of groups: their names, and the number of the group of every item, shape (items,)."""

    names: Sequence[str]
    group: Ints

    def shares(self) -> Floats:
        """Each group's share of the items, shape (groups,)."""
        return np.bincount(self.group, minlength=len(self.names)) / max(1, len(self.group))


Groups = Mapping[str, Grouping]


@dataclass(frozen=True, slots=True)
class ExposureSet:
    """Items by their texts, what groups they are in, and the rows whose neighbours are looked at.

    `families` number the variants of one product, which do not show each other; -1 for an item of its own.
    """

    texts: Sequence[str]
    queries: Ints
    groups: Groups
    families: Ints


class Measured(NamedTuple):
    """A kind of groups in some lists: ratios, shape (groups,), and those of each bootstrap sample."""

    grouping: Grouping
    ratios: Floats
    drawn: Floats

    def gini(self) -> float:
        """Of all lists."""
        return float(ginis(self.ratios[None, :], self.grouping.shares())[0])

    def drawn_ginis(self) -> Floats:
        """Of each sample."""
        return ginis(self.drawn, self.grouping.shares())


def groups_of(products: Sequence[Product], settings: ExposureSettings) -> Groups:
    """Brands, price bands and sellers of these products, in their order; kinds that none has are left out.

    Groups of fewer than `least_items`, and those beyond the `most_groups` largest, are one: OTHERS.
    """
    brands = [(product.brand or "").strip() or None for product in products]
    sellers = [_seller(product, settings.seller_attribute) for product in products]
    bands = price_bands(products, settings.price_bands)
    found = {}
    for kind, labels in (("brand", brands), ("price band", bands), ("seller", sellers)):
        if any(label is not None for label in labels):
            found[kind] = _grouping(labels, settings)
    return found


def _seller(product: Product, attribute: str) -> str | None:
    value = product.seller_id or product.attributes.get(attribute)
    if isinstance(value, list):
        value = value[0] if value else None
    return value.strip() or None if value else None


def price_bands(products: Sequence[Product], count: int) -> list[str | None]:
    """Each product's band: between quantiles of the log prices of its own currency; None without a price."""
    labels: list[str | None] = [None] * len(products)
    rows: dict[str, list[int]] = {}
    for row, product in enumerate(products):
        if product.price is not None and product.price > 0:
            rows.setdefault(product.currency or "no currency", []).append(row)
    for currency, own in rows.items():
        logs = np.log([float(products[row].price or 0) for row in own])
        edges = np.unique(np.quantile(logs, np.arange(1, count) / count))
        band = np.searchsorted(edges, logs, side="left")
        for row, number in zip(own, band.tolist(), strict=True):
            low = f"{np.exp(edges[number - 1]):.2f}" if number else ""
            high = f"{np.exp(edges[number]):.2f}" if number < len(edges) else ""
            between = f"{low} to {high}" if low and high else f"to {high}" if high else f"from {low}"
            labels[row] = (
                f"{currency} {number + 1} of {len(edges) + 1}: {between}" if len(edges) else currency
            )
    return labels


def _grouping(labels: Sequence[str | None], settings: ExposureSettings) -> Grouping:
    # A brand is one brand however it is spelt; it is shown as it is spelt most often.
    spelt: dict[str, Counter[str]] = {}
    for label in labels:
        if label is not None:
            spelt.setdefault(label.casefold(), Counter())[label] += 1
    sizes = {key: sum(names.values()) for key, names in spelt.items()}
    ranked = sorted(sizes, key=lambda key: (-sizes[key], key))
    large = [key for key in ranked if sizes[key] >= settings.least_items][: settings.most_groups]
    number = {key: place for place, key in enumerate(large)}
    names = [spelt[key].most_common(1)[0][0] for key in large]
    places = [NONE if label is None else number.get(label.casefold(), OTHERS) for label in labels]
    for rest in (OTHERS, NONE):
        if rest in places:
            names.append(rest)
            places = [len(names) - 1 if place == rest else place for place in places]
    return Grouping(names, np.array(places, dtype=np.int64))


def nearest(vectors: NDArray[np.float32], asked: ExposureSet) -> Ints:
    """The ten nearest rows of each query, nearest first, shape (queries, 10); -1 where there are fewer.

    `vectors` are unit vectors of the items, shape (items, dimension). Neither an item itself nor its variants
    are its neighbours.
    """
    places = min(PLACES, len(vectors))
    found = np.full((len(asked.queries), PLACES), -1, dtype=np.int64)
    for start in range(0, len(asked.queries), _BLOCK):
        rows = asked.queries[start : start + _BLOCK]
        scores = vectors[rows] @ vectors.T
        family = asked.families[rows]
        scores[(family[:, None] == asked.families[None, :]) & (family[:, None] >= 0)] = -np.inf
        scores[np.arange(len(rows)), rows] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :places]
        shown = np.isfinite(np.take_along_axis(scores, best, axis=1))
        found[start : start + len(rows), :places] = np.where(shown, best, -1)
    return found


def shares_of(lists: Ints, grouping: Grouping) -> Floats:
    """How each list divides its exposure among the groups, shape (lists, groups); rows add up to 1.

    `lists` are rows of items, best first, shape (lists, places), -1 where a list is shorter or shows what is
    no item any more. An empty list is all 0.
    """
    worth = np.where(lists >= 0, 1.0 / np.log2(2.0 + np.arange(lists.shape[1])), 0.0)
    total = worth.sum(axis=1, keepdims=True)
    worth = np.divide(worth, total, out=np.zeros_like(worth), where=total > 0)
    count = len(grouping.names)
    if not lists.size:
        return np.zeros((len(lists), count))
    place = np.arange(len(lists))[:, None] * count + grouping.group[np.maximum(lists, 0)]
    found = np.bincount(place.ravel(), weights=worth.ravel(), minlength=len(lists) * count)
    shares: Floats = found.reshape(len(lists), count).astype(np.float64)
    return shares


def measured(lists: Ints, groups: Groups, *, seed: int, samples: int) -> dict[str, Measured]:
    """Every kind of groups in these lists. The same seed draws the same lists, so two can be paired."""
    shown = (lists >= 0).any(axis=1).astype(np.float64)
    many = len(lists)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(many, np.full(many, 1.0 / many), size=samples).astype(np.float64)
    found = {}
    for kind, grouping in groups.items():
        shares, own = shares_of(lists, grouping), grouping.shares()
        weight = np.maximum(drawn @ shown, 1.0)[:, None]
        ratios = shares.sum(axis=0) / max(1.0, float(shown.sum())) / own
        found[kind] = Measured(grouping, ratios, (drawn @ shares) / weight / own)
    return found


def ginis(ratios: Floats, shares: Floats) -> Floats:
    """Gini coefficients of exposure over items, shape (samples,), of ratios (samples, groups)."""
    order = np.argsort(ratios, axis=1, kind="stable")
    population = shares[order]
    exposure = np.take_along_axis(ratios, order, axis=1) * population
    total = exposure.sum(axis=1, keepdims=True)
    lorenz = np.cumsum(np.divide(exposure, total, out=np.zeros_like(exposure), where=total > 0), axis=1)
    before = np.concatenate([np.zeros((len(lorenz), 1)), lorenz[:, :-1]], axis=1)
    found: Floats = np.maximum(0.0, 1.0 - (population * (lorenz + before)).sum(axis=1))
    return found


def bounds(drawn: Floats, confidence: float) -> tuple[float, float]:
    """The percentile interval of bootstrap samples."""
    low, high = np.quantile(drawn, ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high)


def ratio_of(found: Measured, group: int, confidence: float) -> Interval:
    """A group's ratio and its interval."""
    return Interval(float(found.ratios[group]), *bounds(found.drawn[:, group], confidence))


def parity(
    asked: ExposureSet,
    *,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    settings: GateSettings,
    seed: int,
) -> tuple[list[Parity], list[str]]:
    """Each kind of groups under the live release and the candidate, and reasons to refuse the candidate.

    `before` and `after` are the items' vectors under the two. A reason is a group that has surely moved away
    from its share by more than a factor of `most_exposure_drift`; None never refuses.
    """
    sides = [
        measured(nearest(vectors, asked), asked.groups, seed=seed, samples=settings.samples)
        for vectors in (before, after)
    ]
    found, reasons = [], []
    for kind in asked.groups:
        old, new = (side[kind] for side in sides)
        counts = np.bincount(old.grouping.group, minlength=len(old.grouping.names))
        groups = []
        for number, name in enumerate(old.grouping.names):
            low, high = bounds(new.drawn[:, number] - old.drawn[:, number], settings.confidence)
            one = ExposureOf(
                group=name,
                items=int(counts[number]),
                share=round(float(counts[number]) / len(old.grouping.group), 5),
                before=round(float(old.ratios[number]), 4),
                after=round(float(new.ratios[number]), 4),
                low=round(low, 4),
                high=round(high, 4),
            )
            groups.append(one)
            if settings.most_exposure_drift is not None and name not in (NONE, OTHERS):
                away = _away(new.drawn[:, number]) - _away(old.drawn[:, number])
                if bounds(away, settings.confidence)[0] > np.log(settings.most_exposure_drift):
                    reasons.append(_sentence(kind, one, settings.most_exposure_drift))
        low, high = bounds(new.drawn_ginis() - old.drawn_ginis(), settings.confidence)
        found.append(
            Parity(
                kind=kind,
                lists=len(asked.queries),
                gini_before=round(old.gini(), 4),
                gini_after=round(new.gini(), 4),
                low=round(low, 4),
                high=round(high, 4),
                groups=groups,
            )
        )
    return found, reasons


def _away(ratios: Floats) -> Floats:
    """How far from parity, in logarithms: twice its share is as far as half of it."""
    found: Floats = np.abs(np.log(np.clip(ratios, _LEAST_RATIO, 1 / _LEAST_RATIO)))
    return found


def _sentence(kind: str, one: ExposureOf, most: float) -> str:
    return (
        f"{kind} {one.group!r} moves away from its share by more than a factor of {most:g}: it is shown "
        f"{one.before:.2f} -> {one.after:.2f} times as much as its {one.items} items would have by chance"
    )
