"""Filters of a request as conditions that run inside the index, before the top-k. Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.api import Filter
from schemas.vectors import AnyOf, Between, Clause, Ids, Where


@dataclass(frozen=True, slots=True)
class Price:
    """An amount in a currency; None is a currency that nobody named, comparable with its like only."""

    amount: float
    currency: str | None


def conditions(
    wanted: Filter, *, seeds: Iterable[str], groups: Iterable[str], price: Price | None
) -> tuple[Where, list[str]]:
    """The conditions for hits, and notes on what could not be applied.

    `seeds` are never hits. `groups`, the seeds' own, are left out when variants collapse: the seed stands for
    its group. `price` is that of the first positive seed with one,
    for `price_ratio`. Empty lists ask nothing.
    """
    notes: list[str] = []
    must: list[Clause] = []
    must_not: list[Clause] = [AnyOf("deleted", (True,))]
    if wanted.in_stock is not None:
        must.append(AnyOf("in_stock", (wanted.in_stock,)))
    if wanted.category:
        must.append(AnyOf("category", tuple(wanted.category)))
    if wanted.brand:
        must.append(AnyOf("brand", tuple(brand.casefold() for brand in wanted.brand)))
    if wanted.price is not None:
        must.append(AnyOf("currency", (wanted.price.currency,)))
        low, high = wanted.price.min, wanted.price.max
        if low is not None or high is not None:
            must.append(
                Between("price", None if low is None else float(low), None if high is None else float(high))
            )
    ratio = wanted.price_ratio
    if ratio is not None and (ratio.min is not None or ratio.max is not None):
        if price is None:
            notes.append("filter.price_ratio was ignored: no positive seed has a price")
        else:
            if price.currency is not None:
                must.append(AnyOf("currency", (price.currency,)))
            must.append(
                Between(
                    "price",
                    None if ratio.min is None else _times(price.amount, ratio.min),
                    None if ratio.max is None else _times(price.amount, ratio.max),
                )
            )
    for name, values in wanted.attributes.items():
        if values:
            must.append(AnyOf("attributes", tuple(f"{name}={value}".casefold() for value in values)))
    for term in wanted.opinions:
        side = must_not if term.startswith("not ") else must
        side.append(AnyOf("opinions", (term.removeprefix("not "),)))
    excluded = tuple(dict.fromkeys([*seeds, *wanted.exclude]))
    if excluded:
        must_not.append(Ids(excluded))
    if wanted.group == "collapse":
        own = tuple(dict.fromkeys(groups))
        if own:
            must_not.append(AnyOf("group_id", own))
    return Where(tuple(must), tuple(must_not)), notes


def _times(amount: float, ratio: float) -> float:
    """A bound of the band. The largest ratio there is means "no limit", and no bound may be infinite."""
    return min(amount * ratio, sys.float_info.max)


def narrowed(where: Where, *, ids: Iterable[str], brands: Iterable[str], groups: Iterable[str]) -> Where:
    """`where` without what earlier rounds have judged: these products, full brands, shown groups."""
    judged = tuple(ids)
    extra: list[Clause] = [Ids(judged)] if judged else []
    for field, values in (("brand", tuple(brands)), ("group_id", tuple(groups))):
        if values:
            extra.append(AnyOf(field, values))
    return Where(where.must, (*where.must_not, *extra))


def holds(where: Where, payload: Mapping[str, Any]) -> bool:
    """Whether a payload meets conditions, as the index would say: for items that come from elsewhere."""
    return all(_met(clause, payload) for clause in where.must) and not any(
        _met(clause, payload) for clause in where.must_not
    )


def _met(clause: Clause, payload: Mapping[str, Any]) -> bool:
    if isinstance(clause, Ids):
        return payload.get("product_id") in clause.product_ids
    value = payload.get(clause.field)
    if value is None:
        return False
    if isinstance(clause, AnyOf):
        return any(each in clause.values for each in (value if isinstance(value, list) else [value]))
    return (clause.low is None or value >= clause.low) and (clause.high is None or value <= clause.high)
