"""How far a training that is as it should be moves brands, price bands and sellers from their share.

    python -m benchmarks.exposure_drift

What docs/learning.md says of SIMSTREAM_GATE__MOST_EXPOSURE_DRIFT rests on it. Shoppers of the
synthetic shop like kinds of products together that are nothing alike, so a model that learns it has to
show other neighbours than before. Each seed is one run as the trainer makes it, up to the gate's verdict.

Reads   the base model; a synthetic shop
Writes  standard output; a run and its release, into a folder that goes away
Never   knows what a group should get
"""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from adapters.archive import EVENTS
from benchmarks.query_catalogue import open_store
from model.candidate import finish, new_run
from model.examples import prepare
from model.exposure import NONE, OTHERS
from model.learning_settings import ExposureSettings, GateSettings, PairSettings
from model.recipe import Recipe
from model.release import release_recipe
from model.sessions import Item
from model.settings import ModelSettings
from producers.shop import Shop
from schemas.releases import ExposureOf

SEEDS = (501, 502)
PRODUCTS, SHOPPERS, PAIRS = 400, 250, 640
DAYS = 30
NOW = datetime(2026, 11, 25, tzinfo=UTC)
#: As in `simstream demo-learn`: enough for two cores, with nothing that holds the old behaviour in place.
RECIPE = Recipe(batch_pairs=32, max_tokens=32, learning_rate=2e-4, distil=0.0, evaluations=1)


def drift(seed: int, folder: Path) -> None:
    """One run; what it printed is what the gate says."""
    shop = Shop(
        seed,
        products=PRODUCTS,
        shoppers=SHOPPERS,
        sessions_per_shopper=8.0,
        history_days=DAYS,
        start=NOW,
        tastes="kinds",
    )
    catalogue = {product.product_id: Item(product) for product in shop.products()}
    table = _archive(shop)
    cut = (NOW - timedelta(days=DAYS / 2)).timestamp() * 1000
    past = np.array(table["at_ms"].to_pylist()) < cut
    store, parent = open_store(folder)
    prepared = prepare(
        recent=table.filter(pa.array(~past)),
        past=table.filter(pa.array(past)),
        catalogue=catalogue,
        recipe=release_recipe(store, parent),
        settings=PairSettings(max_pairs=PAIRS),
        replay=RECIPE.replay,
        seed=seed,
        exposure=ExposureSettings(least_items=10),
    )
    runs = folder / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    run = new_run(runs, parent=parent, recipe=RECIPE, prepared=prepared, created_at=datetime.now(UTC))
    started = time.monotonic()
    outcome = finish(
        run,
        store=store,
        settings=ModelSettings(),
        gate=GateSettings(least_queries=100),
        created_at=datetime.now(UTC),
    )
    print(f"seed {seed}: {time.monotonic() - started:.0f} s, {dict(prepared.counts)}", flush=True)
    print(f"  passed {outcome.verdict.passed} {outcome.verdict.reasons}")
    for figure in outcome.verdict.figures:
        if not figure.slice:
            print(f"  {figure.name}: hit@10 {figure.before:.4f} -> {figure.after:.4f}")
    for kind in outcome.verdict.exposure:
        named = [one for one in kind.groups if one.group not in (NONE, OTHERS)]
        print(
            f"  {kind.kind}: {len(named)} groups, Gini {kind.gini_before:.3f} -> {kind.gini_after:.3f}"
            f" [{kind.low:+.3f}, {kind.high:+.3f}]"
        )
        for one in sorted(named, key=_away, reverse=True)[:5]:
            print(
                f"    {one.group}, {one.items} items: {one.before:.2f} -> {one.after:.2f}, away from its"
                f" share by a factor of {np.exp(_away(one)):.2f}"
            )


def _away(one: ExposureOf) -> float:
    """How much further from parity, in logarithms."""
    before, after = (np.abs(np.log(max(0.01, value))) for value in (one.before, one.after))
    return float(after - before)


def _archive(shop: Shop) -> pa.Table:
    rows = [
        {
            "shopper": event.user_id,
            "session": event.session_id,
            "product": event.product_id,
            "category": "",
            "type": event.type,
            "at_ms": round(event.occurred_at.timestamp() * 1000),
            "position": event.position,
            "query": event.query,
            "topic": "t",
            "partition": 0,
            "offset": offset,
        }
        for offset, event in enumerate(shop.events())
    ]
    return pa.Table.from_pylist(rows, schema=EVENTS)


if __name__ == "__main__":
    for number in SEEDS:
        with tempfile.TemporaryDirectory(prefix="simstream-bench-") as made:
            drift(number, Path(made))
