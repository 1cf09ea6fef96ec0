"""Who is shown how much by the running service: a sample of its lists, and the groups of the whole catalogue.

Reads   item state, the service's HTTP API
Writes  nothing
Never   opens the index; never names a shopper
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from app.asking import Asker, Refused, each
from app.labels import Query
from app.learning_inputs import catalogue
from app.settings import Settings
from app.wiring import open_store
from model.exposure import NONE, OTHERS, PLACES, Measured, bounds, groups_of, measured, ratio_of
from schemas.errors import Halt
from schemas.events import Frozen

CONFIDENCE = 0.95


class GroupExposure(Frozen):
    """A group's `share` of the catalogue, and its exposure as a multiple of that, with its interval."""

    group: str
    items: int
    share: float
    ratio: float
    low: float
    high: float


class KindExposure(Frozen):
    """One kind of groups. `most` and `least` name those that are shown most and least for their share."""

    kind: str
    gini: float
    gini_low: float
    gini_high: float
    most: str | None = None
    least: str | None = None
    groups: list[GroupExposure]


class Exposure(Frozen):
    """What a sample of lists shows. `refused` could not be asked; `unknown` hits have no item state."""

    release_id: str
    lists: int
    places: int
    items: int
    refused: int
    unknown: int
    kinds: list[KindExposure]


@dataclass(frozen=True, slots=True)
class Sample:
    """What is asked: so many items drawn by `seed`, or these shoppers' recommendations."""

    items: int
    seed: int
    users: Sequence[str] = ()


def exposure(settings: Settings, asker: Asker, sample: Sample) -> Exposure:
    """Ask, and measure. Raises Transient where no service answers, Halt where there is nothing to ask."""
    known = catalogue(open_store(settings))
    names = sorted(known)
    if not names:
        raise Halt("there is no item in the catalogue yet")
    release_id = asker.release()
    if sample.users:
        queries = [Query(user=user, relevant=frozenset()) for user in sample.users]
    else:
        drawn = Random(sample.seed).sample(names, min(sample.items, len(names)))
        queries = [Query(item=name, relevant=frozenset()) for name in drawn]
    place = {name: row for row, name in enumerate(names)}
    rows: list[list[int]] = []
    refused = unknown = 0
    for found in each(lambda query: asker.found(query, limit=PLACES), queries):
        if isinstance(found, Refused):
            refused += 1
            continue
        unknown += sum(name not in place for name in found)
        own = [place.get(name, -1) for name in found]
        rows.append([*own, *[-1] * (PLACES - len(own))])
    if not rows:
        raise Halt(f"none of {len(queries)} lists could be asked for")
    groups = groups_of([known[name].product for name in names], settings.exposure)
    lists = np.array(rows, dtype=np.int64)
    found_of = measured(lists, groups, seed=sample.seed, samples=settings.gate.samples)
    return Exposure(
        release_id=release_id,
        lists=len(rows),
        places=int((lists >= 0).sum()),
        items=len(names),
        refused=refused,
        unknown=unknown,
        kinds=[_kind(kind, one) for kind, one in found_of.items()],
    )


def _kind(kind: str, one: Measured) -> KindExposure:
    shares = one.grouping.shares()
    counts = np.bincount(one.grouping.group, minlength=len(one.grouping.names))
    groups = []
    for number, name in enumerate(one.grouping.names):
        ratio = ratio_of(one, number, CONFIDENCE)
        groups.append(
            GroupExposure(
                group=name,
                items=int(counts[number]),
                share=round(float(shares[number]), 5),
                ratio=round(ratio.value, 4),
                low=round(ratio.low, 4),
                high=round(ratio.high, 4),
            )
        )
    low, high = bounds(one.drawn_ginis(), CONFIDENCE)
    named = sorted((each for each in groups if each.group not in (NONE, OTHERS)), key=lambda each: each.ratio)
    return KindExposure(
        kind=kind,
        gini=round(one.gini(), 4),
        gini_low=round(low, 4),
        gini_high=round(high, 4),
        most=named[-1].group if named else None,
        least=named[0].group if named else None,
        groups=groups,
    )
