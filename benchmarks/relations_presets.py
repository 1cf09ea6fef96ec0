"""What mined relations do for the presets that use them: planted pairs among the first ten, with and without.

    python -m benchmarks.relations_presets    # what the presets should weigh them with, on seeds 301 and 302

Every item with planted partners is asked for; the index has the shoppers of the same visits, so the preset
without relations is not blind. Control: what is mined of the same visits with their items shuffled.

Reads   a synthetic shop's products and visits; the truth, to score
Writes  standard output
Never   shows the truth to what is scored
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import fmean, median
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

from benchmarks import sketching
from benchmarks.insights import release
from benchmarks.quality_index import NOW, Asked, Contents, filled
from consumers.baskets import Interactions, RelationSettings
from consumers.relations import Found as FoundRelations
from consumers.relations import mine
from producers.shop import Shop
from producers.shop_relations import Pair, Planted, Visits, related
from schemas.api import PresetName, SimilarRequest
from schemas.events import ProductUpserted
from schemas.relations import Known, Mined, RelationReader, Run
from service.presets import PRESETS
from service.query import QueryEngine
from service.settings import ServiceSettings
from service.timing import Timings

CHOOSING = (301, 302)
TRIED = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
FIRST = 10
KINDS: Sequence[PresetName] = ("complements", "substitutes")


class InMemory:
    """What was mined. Implements schemas.relations.RelationReader."""

    def __init__(self, mined: Mapping[str, Mined], run: Run) -> None:
        self._mined = mined
        self._run = run

    def of(self, product_id: str) -> Known:
        """See the protocol."""
        return Known(self._run, self._mined.get(product_id))

    def of_all(self, product_ids: Sequence[str]) -> tuple[Run | None, Mapping[str, Mined]]:
        """See the protocol."""
        return self._run, {name: self._mined[name] for name in product_ids if name in self._mined}


class Found(NamedTuple):
    """Recall of each preset's planted pairs, complements shown as substitutes, and a query's milliseconds."""

    complements: float
    substitutes: float
    wrong: float
    milliseconds: float


class Compared(NamedTuple):
    """Without relations, with those mined, and with those of shuffled visits."""

    before: Found
    after: Found
    control: Found


def compared(products: Sequence[ProductUpserted], happened: Visits, truth: Planted) -> Compared:
    """The presets on one shop."""
    with _asked(products, happened) as asked:
        readers = (
            None,
            mined(products, happened),
            mined(products, happened._replace(item=_shuffled(happened))),
        )
        return Compared(*(_found(asked, reader, truth) for reader in readers))


def mined(products: Sequence[ProductUpserted], happened: Visits) -> InMemory:
    """What the miner finds in these visits."""
    return in_memory(mine(_events(products, happened), RelationSettings()))


def in_memory(found: FoundRelations) -> InMemory:
    """A run of the miner as the service reads it."""
    run = Run(
        run="r",
        mined_at=NOW,
        baskets=found.baskets,
        visits=found.visits,
        items=len(found.mined),
        pairs=found.pairs,
    )
    return InMemory(found.mined, run)


def _events(products: Sequence[ProductUpserted], happened: Visits) -> Interactions:
    """A look for everything, and a purchase for what was bought."""
    again = np.concatenate([np.arange(len(happened.item)), np.flatnonzero(happened.bought)])
    return Interactions(
        items=[product.product_id for product in products],
        item=happened.item[again],
        shopper=happened.shopper[again],
        at_ms=happened.at_ms[again],
        visit=happened.visit[again],
        bought=np.arange(len(again)) >= len(happened.item),
    )


def _shuffled(happened: Visits) -> np.ndarray:
    """The same visits with their items dealt anew, looks and purchases each among themselves."""
    draw, item = np.random.default_rng(1), happened.item.copy()
    for rows in (np.flatnonzero(happened.bought), np.flatnonzero(~happened.bought)):
        item[rows] = item[draw.permutation(rows)]
    return item


@contextmanager
def _asked(products: Sequence[ProductUpserted], happened: Visits) -> Iterator[Asked]:
    """An index of the products with the shoppers of these visits."""
    seen = sketching.Interactions(
        shoppers=[f"s{number}" for number in range(int(happened.shopper.max()) + 1)],
        items=[product.product_id for product in products],
        shopper=happened.shopper,
        item=happened.item,
        at_seconds=happened.at_ms / 1000,
        session=happened.visit,
    )
    with filled(Contents(products, interactions=seen, kind="view"), release(), ServiceSettings()) as asked:
        yield asked


def _found(asked: Asked, reader: RelationReader | None, truth: Planted) -> Found:
    engine = QueryEngine(
        catalogue=asked.catalogue, settings=ServiceSettings(), clock=lambda: NOW, relations=reader
    )
    complements = _partners(truth.complements)
    took: list[float] = []

    def first(item: str, preset: PresetName) -> list[str]:
        wanted = {"seeds": [{"item_id": item}], "preset": preset, "limit": FIRST}
        request = SimilarRequest.model_validate(wanted)
        started = time.perf_counter()
        hits = engine.similar(request, Timings()).items
        took.append(1000 * (time.perf_counter() - started))
        return [hit.item_id for hit in hits]

    recalls: dict[str, float] = {}
    shown: list[bool] = []
    for preset in KINDS:
        planted = _partners(getattr(truth, preset))
        each = []
        for item, wanted in planted.items():
            hits = set(first(item, preset))
            each.append(len(hits & wanted) / min(len(wanted), FIRST))
            if preset == "substitutes":
                shown += [other in hits for other in complements.get(item, ())]
        recalls[preset] = fmean(each)
    return Found(recalls["complements"], recalls["substitutes"], fmean(shown) if shown else 0.0, median(took))


def _partners(pairs: Sequence[Pair]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one, other in pairs:
        found.setdefault(one, set()).add(other)
        found.setdefault(other, set()).add(one)
    return found


def choose(visits: int = 120_000) -> None:
    """Print what each weight finds, on seeds that the benchmark does not report."""
    for seed in CHOOSING:
        products, happened, truth = related(Shop(seed, products=6_000, shoppers=20), visits=visits)
        reader = mined(products, happened)
        with _asked(products, happened) as asked:
            print(f"seed {seed}, without: {_found(asked, None, truth)}", flush=True)
            for weight in TRIED:
                tried = {name: replace(PRESETS[name], relations_weight=weight) for name in KINDS}
                with patch.dict(PRESETS, tried):
                    print(f"seed {seed}, weight {weight:g}: {_found(asked, reader, truth)}", flush=True)


if __name__ == "__main__":
    choose()
