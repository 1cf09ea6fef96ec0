"""What is found out about items from their neighbours, against what was planted in the synthetic shop.

Prices out of line: a tenth of the products cost 1.8 to 4 times what their kind costs, or as small a part of
it; a fifth are packs that only look dear; all others are log-normal around their kind
(producers/shop_prices.py). The service sees products and nothing else; the truth is written to a file, which
only the scorer reads. `best possible` is what one finds who knows what every kind costs and takes the best
threshold: what the noise leaves.

Thresholds were chosen on the seeds 101 and 102; those reported here are others.

Content vectors are bags of words: no model runs, texts of one kind are as near as their words are.

Reads   nothing
Writes  the truth, and an index, into a folder that goes away
Never   tunes anything
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from benchmarks.harness import Figure, Report
from benchmarks.quality_index import Contents, Remembering, filled
from model.text import ProductText
from producers.shop import Shop
from producers.shop_prices import load, precision_and_recall, priced
from schemas.api import SimilarRequest
from schemas.events import ProductUpserted
from service.prices import Prices
from service.query import QueryEngine
from service.rulebook import RuleBook, RuleSettings
from service.settings import ServiceSettings
from service.timing import Timings
from tests.service.shop import RELEASE, manifest
from tests.support.fake_encoder import FakeEncoder

NAME = "insights"
PRODUCTS = 6_000
KINDS = 24
FEW_KINDS = 8
SEEDS = (201, 202, 203, 204)
NOISES = (0.5, 1.0, 2.0)
DIMENSION = 256
RELOADS = 5


class Words(FakeEncoder):
    """A bag of words; nothing to keep for the next run."""

    def keep(self) -> None:
        """Nothing is kept."""


def release() -> Remembering:
    """A release without a model."""
    return Remembering(RELEASE, cast(Any, Words(DIMENSION)), ProductText(), manifest(RELEASE, DIMENSION))


def run(*, small: bool, data: Path | None) -> Report:
    """Prices, and how soon a changed rules file is obeyed."""
    seeds = SEEDS[:1] if small else SEEDS
    figures: list[Figure] = []
    for noise in NOISES:
        kinds = FEW_KINDS if small and noise != 1.0 else KINDS
        figures += _prices(seeds, noise, kinds)
    figures.append(_reload())
    settings: dict[str, str | int | float | bool | None] = {
        "products": PRODUCTS,
        "kinds": KINDS,
        "seeds": ",".join(str(seed) for seed in seeds),
    }
    about = f"synthetic shops of seeds {', '.join(map(str, seeds))}, {KINDS} kinds, planted prices"
    return Report(NAME, figures, settings, about)


def _prices(seeds: Sequence[int], noise: float, kinds: int) -> list[Figure]:
    found, best, on_top = [], [], []
    for seed in seeds:
        shop = Shop(seed, products=PRODUCTS, shoppers=20)
        with tempfile.TemporaryDirectory(prefix="simstream-bench-") as folder:
            truth = Path(folder) / "truth.json"
            products = _planted(shop, noise, kinds, truth)
            started = time.monotonic()
            outliers = _outliers(products)
            seconds = time.monotonic() - started
            planted = load(truth)
        found.append(precision_and_recall(outliers, planted.outliers))
        best.append(_best(products, planted.expected, planted.outliers))
        harder, truth_of_it = priced(shop, noise=noise, kinds=kinds, on_top=True)
        on_top.append(_best(harder, truth_of_it.expected, truth_of_it.outliers))
        print(
            f"prices, noise x {noise:g}, seed {seed}: {len(products)} items, {len(planted.outliers)} planted,"
            f" {len(planted.packs)} packs, {len(outliers)} found in {seconds:.0f} s:"
            f" precision {found[-1][0]:.3f}, recall {found[-1][1]:.3f};"
            f" best possible {best[-1][0]:.3f}, {best[-1][1]:.3f};"
            f" with the item's own draw on top {on_top[-1][0]:.3f}, {on_top[-1][1]:.3f}",
            flush=True,
        )
    target = 0.9 if noise == 1.0 else None
    note = f"noise x {noise:g}: sigma {0.25 * noise:g}"
    figures = []
    for place, name in enumerate(("precision", "recall")):
        value = fmean(one[place] for one in found)
        figures.append(Figure(f"prices: {name}", value, "", target=target, kind="quality", note=note))
        ceiling = fmean(one[place] for one in best)
        figures.append(Figure(f"prices: {name}, best possible", ceiling, "", kind="quality", note=note))
    if noise == max(NOISES):
        # What is flat at 1 has seen the truth.
        worst = min(fmean(one[place] for one in found) for place in (0, 1))
        figures.append(
            Figure("prices: the lower of the two", worst, "", 0.8, "at most", kind="quality", note=note)
        )
    return figures


def _planted(shop: Shop, noise: float, kinds: int, truth: Path) -> list[ProductUpserted]:
    products, planted = priced(shop, noise=noise, kinds=kinds)
    planted.save(truth)
    return products


def _outliers(products: Sequence[ProductUpserted]) -> list[str]:
    """What the service says of each product."""
    with filled(Contents(products), release(), ServiceSettings()) as asked:
        prices = Prices(catalogue=asked.catalogue, service=ServiceSettings())
        return [
            product.product_id for product in products if prices.price(product.product_id, Timings()).outlier
        ]


def _best(
    products: Sequence[ProductUpserted], expected: Mapping[str, float], outliers: Mapping[str, object]
) -> tuple[float, float]:
    """Precision and recall of the best threshold on how far each price is from what it should be."""
    off = {
        product.product_id: abs(math.log(float(product.price or 1) / expected[product.product_id]))
        for product in products
    }
    tried = [
        precision_and_recall([one for one in off if off[one] >= threshold / 100], outliers)
        for threshold in range(20, 150)
    ]
    return max(tried, key=min)


def _reload() -> Figure:
    """From a rules file that was replaced to the first query that obeys it; queries go on meanwhile."""
    products, _ = priced(Shop(SEEDS[0], products=400, shoppers=20), kinds=FEW_KINDS)
    waits = []
    with tempfile.TemporaryDirectory(prefix="simstream-bench-") as folder:
        path = Path(folder) / "rules.yaml"
        path.write_text("")
        book = RuleBook(RuleSettings(file=path))
        with filled(Contents(products), release(), ServiceSettings()) as asked, _watching(book):
            engine = QueryEngine(
                catalogue=asked.catalogue, settings=ServiceSettings(), rules=lambda: book.rules
            )
            blocked: list[str] = []
            for _ in range(RELOADS):
                nearest = _nearest(engine, products[0].product_id)
                blocked.append(nearest)
                beside = path.with_suffix(".new")
                beside.write_text(f"blocked: {{items: [{', '.join(blocked)}]}}")
                os.replace(beside, path)
                started = time.monotonic()
                while _nearest(engine, products[0].product_id) == nearest:
                    pass
                waits.append(time.monotonic() - started)
    print(
        f"rules: {RELOADS} versions obeyed after {', '.join(f'{wait:.2f}' for wait in waits)} s", flush=True
    )
    return Figure("rules: a new version is obeyed after", max(waits), "s", 2.0, "at most", kind="latency")


@contextmanager
def _watching(book: RuleBook) -> Iterator[None]:
    thread = threading.Thread(target=book.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        book.stop()
        thread.join(10.0)


def _nearest(engine: QueryEngine, item: str) -> str:
    request = SimilarRequest.model_validate({"seeds": [{"item_id": item}], "limit": 5})
    return engine.similar(request, Timings()).items[0].item_id
