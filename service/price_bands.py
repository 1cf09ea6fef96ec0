"""What comparable items cost, robustly: the centre of log prices, their spread, and how far off one is. Pure.

Prices of one kind of thing are near log-normal, and a catalogue holds wrong ones, so a few of the comparable
prices may be wrong themselves: the median and the median absolute deviation find the bulk (Hampel 1974), and
mean and deviation of the bulk, corrected for what was cut off, are its more exact description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from schemas.insights import PriceBand, PriceBasis

#: Names of attributes that say how many a pack holds, as `attribute_terms` writes them.
PACK_NAMES = frozenset(
    {"pack", "pack size", "pack_size", "pack of", "multipack", "package quantity", "item package quantity"}
    | {"units per pack", "quantity per pack", "packungsgröße", "anzahl pro packung", "包装数量"}
)
_NUMBER = re.compile(r"\d+")
#: A pack of more is a mistake in the attribute.
MOST_IN_PACK = 1_000
#: From the median of |x| to the standard deviation of a normal distribution.
_MAD = 1.4826
#: How many deviations around the median count as the bulk, and what the cut leaves of the deviation.
_BULK = 2.5
_BULK_DEVIATION = 0.9546
#: Prices that are all the same still differ by this much: rounding to 9.99.
LEAST_SPREAD = 0.02
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Offer(Generic[Key]):
    """One price: of a pack of `pack`, in a condition (None: not said), of whatever `key` names."""

    key: Key
    price: float
    pack: int = 1
    condition: str | None = None

    @property
    def unit_price(self) -> float:
        """The price of one."""
        return self.price / self.pack


@dataclass(frozen=True, slots=True)
class Standing(Generic[Key]):
    """Where a price stands among those it was held `against`: see schemas.insights.PriceView."""

    score: float
    ratio: float
    position: float
    band: PriceBand
    basis: PriceBasis
    against: Sequence[Offer[Key]]


def pack_of(payload: Mapping[str, Any]) -> int:
    """How many a pack holds, by the item's attributes; 1 where nothing is said."""
    for term in payload.get("attributes") or ():
        name, _, value = term.partition("=")
        found = _NUMBER.search(value) if name in PACK_NAMES else None
        if found is not None and 1 <= int(found[0]) <= MOST_IN_PACK:
            return int(found[0])
    return 1


def comparable(
    offer: Offer[Key], others: Sequence[Offer[Key]], least: int
) -> tuple[PriceBasis, list[Offer[Key]]]:
    """The others that say most about a price: of the same pack and condition if there are `least` of them."""
    alike = [one for one in others if _condition(one) == _condition(offer)]
    same = [one for one in alike if one.pack == offer.pack]
    if len(same) >= least:
        return "same pack, same condition", same
    if len(alike) >= least:
        return "unit price, same condition", alike
    return "unit price, any condition", list(others)


def standing(
    offer: Offer[Key],
    others: Sequence[Offer[Key]],
    *,
    least: int,
    usual_spread: float,
    usual_weight: float,
    currency: str | None,
) -> Standing[Key] | None:
    """Where the offer stands among `others`; None where fewer than `least` can be compared.

    The spread is drawn towards `usual_spread` as if `usual_weight` more prices had shown it: that of a few
    prices is itself uncertain.
    """
    basis, against = comparable(offer, others, least)
    if len(against) < least:
        return None
    logs = np.log([one.unit_price for one in against])
    centre, spread = bulk(logs)
    count = len(against)
    drawn = np.sqrt((count * spread**2 + usual_weight * usual_spread**2) / (count + usual_weight))
    off = float(np.log(offer.unit_price) - centre)
    quantiles = np.exp(np.quantile(logs, _QUANTILES)) * offer.pack
    low, quarter, median, three_quarters, high = (round(float(one), 2) for one in quantiles)
    return Standing(
        score=off / float(drawn),
        ratio=float(np.exp(off)),
        position=float(np.mean(logs < np.log(offer.unit_price))),
        band=PriceBand(
            currency=currency,
            low=low,
            quarter=quarter,
            median=median,
            three_quarters=three_quarters,
            high=high,
            spread=round(float(drawn), 4),
            items=count,
        ),
        basis=basis,
        against=against,
    )


def bulk(values: Sequence[float] | np.ndarray[Any, Any]) -> tuple[float, float]:
    """Centre and standard deviation of the bulk of `values`, whatever lies far outside it."""
    found = np.asarray(values, dtype=np.float64)
    middle = float(np.median(found))
    rough = max(LEAST_SPREAD, _MAD * float(np.median(np.abs(found - middle))))
    kept = found[np.abs(found - middle) <= _BULK * rough]
    return float(kept.mean()), max(LEAST_SPREAD, float(kept.std()) / _BULK_DEVIATION)


def _condition(offer: Offer[Any]) -> str:
    return (offer.condition or "new").casefold()
