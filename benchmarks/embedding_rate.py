"""What the embeddings consumer makes of its encoder while texts are plentiful.

Reads   nothing but the synthetic shop
Writes  an embedded stack in a folder that goes away

A catalogue is imported on the bulk lane; the rate counts from the item that ends the warm-up to the last one
that was searchable, as items.updated says. Before it and after it, the same texts run through the same
model's encoder and nothing else: in one call, so that it may sort them by length as it likes. The ratio is to
the mean of the two, because on a shared machine either may be a third off.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from adapters.kafka import Publisher
from adapters.releases import ReleaseSettings, ReleaseStore
from benchmarks.harness import Figure, Report
from benchmarks.stack import BULK, Updates, embedded_stack, publish, stop
from consumers.embeddings import EmbeddingsSettings
from model.release import first_release, start_release
from model.settings import ModelSettings
from producers.shop import Shop
from schemas.events import ProductUpserted

NAME = "embedding-rate"
SEED = 17
#: The first items are left out: those of the first batch come all at once, after as long as all of it took.
WARM_UP = EmbeddingsSettings().bulk_batch_texts


def run(*, small: bool, data: Path | None) -> Report:
    """4,000 items; 400 in small."""
    items = 400 if small else 4_000
    products = list(Shop(SEED, products=items + WARM_UP).products())
    before = _alone(products[WARM_UP:])
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
    after = _alone(products[WARM_UP:])
    alone = statistics.harmonic_mean([before, after])
    searchable_at.sort()
    first = searchable_at[WARM_UP - 1]
    rate = sum(at > first for at in searchable_at) / (searchable_at[-1] - first).total_seconds()
    return Report(
        benchmark=NAME,
        figures=[
            # The encoder alone fills two cores, and all else then takes from it: a small run asks for less.
            Figure("embeddings consumer over its encoder alone", rate / alone, "x", 0.6 if small else 0.85),
            Figure("items embedded and searchable", rate, "items/s", kind="rate", headline=True),
            Figure("the encoder alone", alone, "texts/s", kind="rate"),
            Figure("the encoder alone, after over before", after / before, "x", note="1: a quiet machine"),
        ],
        settings={"items": items, "warm-up items": WARM_UP, "seed": SEED, "broker": "Tansu", "index": "edge"},
        data="synthetic shop with descriptions (about 110 tokens a text); servers on the same cores",
    )


def _alone(products: list[ProductUpserted]) -> float:
    """Texts per second of the model in a process of its own, called with all texts at once."""
    with tempfile.TemporaryDirectory(prefix="simstream-bench-") as folder:
        store = ReleaseStore(ReleaseSettings(url=folder))
        manifest = first_release(ModelSettings(), store, created_at=datetime.now(UTC))
        release = start_release(store, manifest.release_id, ModelSettings())
        try:
            texts = [release.recipe.content(product) for product in products]
            release.encoder.encode(texts[:50], background=True)
            started = time.monotonic()
            release.encoder.encode(texts, background=True)
            return len(texts) / (time.monotonic() - started)
        finally:
            release.encoder.close()
