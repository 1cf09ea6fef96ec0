"""Price changes of distinct items, from Kafka to the searchable payload, against the index's own bare rate.

Reads   nothing but the synthetic shop
Writes  an embedded stack in a folder that goes away

The changes arrive as fast as the producer can send them. The clock runs from the first change that `products`
consumed to the last that was searchable, as items.updated says. Then, with the stack stopped, the folder's
points are read back whole and written with the same conditional upsert in batches: what the index alone does.
"""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path

from adapters.index_edge import EdgeIndex
from adapters.index_port import LIVE_ALIAS
from adapters.kafka import Publisher
from benchmarks.harness import Figure, Report
from benchmarks.stack import Updates, embedded_stack, import_catalogue, publish, stop
from producers.shop import Shop

NAME = "prices"
BATCH = 256
SEED = 11


def run(*, small: bool, data: Path | None) -> Report:
    """1,000 items in small (their texts have to be encoded first), 20,000 in full."""
    items = 1_000 if small else 20_000
    products = list(Shop(SEED, products=items).products())
    # Texts are cut short so that the import, which is not timed, takes minutes; documents stay whole.
    with embedded_stack(environment={"SIMSTREAM_MODEL__MAX_LENGTH": "16"}) as stack:
        publisher, updates = Publisher(stack.settings), Updates(stack)
        print(f"importing {items} items")
        import_catalogue(stack, publisher, updates, products)
        print("changing every price")
        changed = [
            product.model_copy(update={"price": (product.price or Decimal(1)) + Decimal("0.01")})
            for product in products
        ]
        waiting = {product.product_id for product in changed}
        publish(publisher, changed)
        consumed_at, searchable_at, calls = [], [], 0
        deadline = time.monotonic() + 120
        while waiting:
            for update in updates.poll():
                if update.product_id in waiting and "context" in update.dimensions:
                    waiting.discard(update.product_id)
                    calls += update.encoder_calls
                    searchable_at.append(update.stages.searchable_at)
                    if update.stages.consumed_at is not None:
                        consumed_at.append(update.stages.consumed_at)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(waiting)} prices were not searchable after two minutes")
        seconds = (max(searchable_at) - min(consumed_at)).total_seconds()
        publisher.close()
        updates.close()
        folder = stack.folder
        stop(stack.process)
        bare = _bare_rate(folder / "index", [product.product_id for product in products])
    rate = items / seconds
    return Report(
        benchmark=NAME,
        figures=[
            Figure("price changes, Kafka to searchable payload", rate, "changes/s", 3_000, kind="rate"),
            Figure("the same over the index's bare read-back and conditional upsert", rate / bare, "x", 0.4),
            Figure("the index's bare rate", bare, "points/s", kind="rate"),
            Figure("encoder calls of price changes", calls, "calls", 0, "at most", kind="count"),
        ],
        settings={"items": items, "batch": BATCH, "seed": SEED, "broker": "Tansu", "index": "edge"},
        data=f"synthetic shop of {items:,} products; one process, broker and Redis on the same cores",
    )


def _bare_rate(folder: Path, ids: list[str]) -> float:
    """Points per second: fetched with their vectors, written whole with a newer ticket, in batches."""
    index = EdgeIndex(folder)
    try:
        collection = index.resolve(LIVE_ALIAS)
        assert collection is not None
        ticket = time.time_ns() // 1_000_000 + 1_000_000
        started = time.monotonic()
        for number, start in enumerate(range(0, len(ids), BATCH)):
            points = index.fetch(collection, ids[start : start + BATCH], vectors=True)
            index.upsert(collection, list(points.values()), ticket=ticket + number)
        return len(ids) / (time.monotonic() - started)
    finally:
        index.close()
