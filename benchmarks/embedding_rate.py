"""What the embeddings consumer makes of its encoder while texts are plentiful.

Reads   nothing but the synthetic shop
Writes  an embedded stack in a folder that goes away

A catalogue is imported on the bulk lane; the rate counts from the item that ends the warm-up to the last one
that was searchable, as items.updated says. Then, with the stack stopped, the same texts run through the same
release's encoder and nothing else: in one call, so that it may sort them by length as it likes.
"""

from __future__ import annotations

import time
from pathlib import Path

from adapters.kafka import Publisher
from adapters.releases import ReleaseSettings, ReleaseStore
from benchmarks.harness import Figure, Report
from benchmarks.stack import BULK, Updates, embedded_stack, publish, stop
from model.release import load_release
from model.settings import ModelSettings
from producers.shop import Shop
from schemas.events import ProductUpserted

NAME = "embedding-rate"
SEED = 17
#: The first items are left out: the encoder's batches grow while it finds out how fast it is.
WARM_UP = 100


def run(*, small: bool, data: Path | None) -> Report:
    """4,000 items; 700 in small."""
    items = 700 if small else 4_000
    products = list(Shop(SEED, products=items + WARM_UP).products())
    with embedded_stack() as stack:
        publisher, updates = Publisher(stack.settings), Updates(stack)
        waiting = {product.product_id for product in products}
        publish(publisher, products, headers=BULK)
        searchable_at = []
        deadline = time.monotonic() + 60 + items / 10
        while waiting:
            for update in updates.poll():
                if update.product_id in waiting and update.stages.encoded_at is not None:
                    waiting.discard(update.product_id)
                    searchable_at.append(update.stages.searchable_at)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(waiting)} items were not searchable in time")
        publisher.close()
        updates.close()
        stop(stack.process)
        alone = _alone(stack.folder, products[WARM_UP:])
    searchable_at.sort()
    seconds = (searchable_at[-1] - searchable_at[WARM_UP - 1]).total_seconds()
    rate = items / seconds
    return Report(
        benchmark=NAME,
        figures=[
            # A rate and no ratio of one run: its halves are a minute apart, and on a shared machine with two
            # cores each alone varies by a third. In small it is asserted as rates are.
            Figure("embeddings consumer over its encoder alone", rate / alone, "x", 0.85, kind="rate"),
            Figure("items embedded and searchable", rate, "items/s", kind="rate", headline=True),
            Figure("the encoder alone", alone, "texts/s", kind="rate"),
        ],
        settings={"items": items, "warm-up items": WARM_UP, "seed": SEED, "broker": "Tansu", "index": "edge"},
        data="synthetic shop with descriptions (about 110 tokens a text); servers on the same cores",
    )


def _alone(folder: Path, products: list[ProductUpserted]) -> float:
    """Texts per second of the release in `folder`, called with all texts at once, as bulk texts are."""
    store = ReleaseStore(ReleaseSettings(url=str(folder / "releases")))
    (release_id,) = store.list()
    release = load_release(store, release_id, ModelSettings())
    texts = [release.recipe.content(product) for product in products]
    release.encoder.encode(texts[:50], background=True)
    started = time.monotonic()
    release.encoder.encode(texts, background=True)
    return len(texts) / (time.monotonic() - started)
