"""What an index and Redis take, and what the model behind `simstream capacity` said: both, side by side.

Points and state are those that the consumers write, of a drawn catalogue (benchmarks/capacity_items.py);
Qdrant's engine imports them and builds its graph in one process and is asked in another (capacity_index.py).
Seconds of a processor stand beside seconds of the clock, because other work may run on the machine.

    full    indexes of 1,000,000, 100,000 and 40,000 items, and of 20,000 quantised; Redis of 40,000 and
            100,000 items. The largest takes an hour and a quarter, 16 GB of memory and 8 GB of disk. What was
            measured is kept: a run that was cut off goes on, one without that folder begins
    small   1,000 items: too few for a graph, and nothing is kept

Reads   what an earlier run in full has kept
Writes  folders that go away; in full `KEPT`
Never   judges the model by sizes that its constants were fitted on: of memory and disk those were 10,000 and
        20,000, unquantised; times are of 10,000 and 1,000,000, and are not judged
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from adapters.index_port import Quantisation
from adapters.redis_client import RedisSettings, connect
from app import capacity as model
from app.local import LocalRedis
from benchmarks.capacity_index import in_child, sizes
from benchmarks.capacity_items import ITEMS_A_SHOPPER, REVIEWED_EVERY, REVIEWS_EACH, SEED, Drawn, fill_redis
from benchmarks.harness import ROOT, Figure, Report, shown

NAME = "capacity"
FULL_SECONDS = 18_000
DIMENSIONS = 384
#: How far the model may be off, of memory and disk.
WITHIN = 0.2
KEPT = ROOT / "var" / "benchmarks" / "capacity"
#: An index that is not filled and asked by then hangs.
MOST_SECONDS = 14_400.0
IndexRun = tuple[int, Quantisation]
#: Numbers by what was measured, then by name.
Raw = dict[str, dict[str, float]]
#: The largest last, so that all others are kept if it is cut off.
FULL: tuple[IndexRun, ...] = (
    (100_000, "none"),
    (40_000, "none"),
    (20_000, "int8"),
    (20_000, "binary"),
    (1_000_000, "none"),
)
SMALL: tuple[IndexRun, ...] = ((1_000, "none"),)
FULL_REDIS, SMALL_REDIS = (40_000, 100_000), (1_000,)


def run(*, small: bool, data: Path | None) -> Report:
    """Each size in processes of its own."""
    figures: list[Figure] = []
    before = 0 if small else len(list(KEPT.glob("*.json")))
    for count, quantisation in SMALL if small else FULL:
        raw = kept(f"index-{count}-{quantisation}", partial(measured, count, quantisation), keep=not small)
        figures += compared(count, quantisation, **raw)
    for count in SMALL_REDIS if small else FULL_REDIS:
        figures += _redis(count, kept(f"redis-{count}", partial(_redis_filled, count), keep=not small))
    return Report(
        NAME,
        figures,
        {
            "seed": SEED,
            "dimensions": DIMENSIONS,
            "index": "edge, graph built (of 1,000 none)",
            "parts measured by earlier runs": before,
            "machine": "other work ran on it: hold seconds of a processor against each other",
        },
        f"drawn items: 4 reviews on each of every {REVIEWED_EVERY}rd, 40 shoppers on every 2nd, "
        "about 200 grams of text, two dense vectors",
    )


def kept(name: str, measure: Callable[[], Raw], *, keep: bool) -> Raw:
    """What is measured, or was by an earlier run if it is to be kept."""
    file = KEPT / f"{name}.json"
    if keep and file.exists():
        print(f"{file} was measured before", flush=True)
        found: Raw = json.loads(file.read_text())
        return found
    found = measure()
    print(f"{name}: {json.dumps(found)}", flush=True)
    if keep:
        KEPT.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
    return found


def shop_of(count: int, quantisation: Quantisation = "none") -> model.Shop:
    """The drawn catalogue as the model sees it."""
    return model.Shop(
        items=count,
        dimensions=DIMENSIONS,
        quantisation=quantisation,
        reviews_per_item=REVIEWS_EACH / REVIEWED_EVERY,
        touched=0.5,
        shoppers_kept=40,
        shoppers=count // ITEMS_A_SHOPPER,
    )


def beside(
    what: str,
    measured: float,
    predicted: float,
    unit: str,
    note: str,
    *,
    judged: bool = False,
    per: float = 1.0,
) -> list[Figure]:
    """Measured and predicted, and by how much the model is off; held against `WITHIN` where `judged`."""
    off = predicted / measured - 1 if measured else float("inf")
    said = f"{shown(measured / per, unit)}, the model says {shown(predicted / per, unit)}"
    print(f"{note}, {what}: {said} ({off:+.1%})", flush=True)
    return [
        Figure(what, measured / per, unit, note=note),
        Figure(f"{what}, predicted", predicted / per, unit, note=note),
        Figure(
            f"{what}, off by",
            round(100 * abs(off), 1),
            "%",
            100 * WITHIN if judged else None,
            "at most",
            kind="quality" if judged else "ratio",
            note=note,
        ),
    ]


def _redis_filled(count: int) -> Raw:
    with (
        tempfile.TemporaryDirectory(prefix="simstream-capacity-") as folder,
        LocalRedis(Path(folder)) as server,
    ):
        client = connect(RedisSettings(url=server.url))
        try:
            return {"found": {**fill_redis(Drawn.of(count, DIMENSIONS), client)}}
        finally:
            client.close()


def _redis(count: int, raw: Raw) -> list[Figure]:
    found = raw["found"]
    said, note = model.redis_bytes(shop_of(count)), f"{count:,} items"
    figures = beside(
        "Redis, all state", sum(found.values()), sum(said.values()), "MB", note, judged=True, per=1e6
    )
    for name, taken in found.items():
        figures += beside(f"Redis, {name}", taken, said[name], "MB", note, per=1e6)
    return figures


def measured(count: int, quantisation: Quantisation) -> Raw:
    """What filling found, bytes on disk by kind, what asking found."""
    until = time.monotonic() + MOST_SECONDS
    with tempfile.TemporaryDirectory(prefix="simstream-capacity-") as scratch:
        folder = Path(scratch)
        filled = in_child("fill", folder, count, DIMENSIONS, quantisation, until)
        kinds: dict[str, float] = {**sizes(folder)}
        return {
            "filled": filled,
            "kinds": kinds,
            "asked": in_child("ask", folder, count, DIMENSIONS, quantisation, until),
        }


def compared(
    count: int,
    quantisation: Quantisation,
    filled: Mapping[str, float],
    kinds: Mapping[str, float],
    asked: Mapping[str, float],
) -> list[Figure]:
    """The figures of one index."""
    shop = shop_of(count, quantisation)
    note = f"{count:,} items" + ("" if quantisation == "none" else f", {quantisation}")
    # Quantised vectors were read into the process's own memory, and the originals stay on disk.
    walked = kinds["graph"] + kinds["sparse"] + (kinds["vectors"] if quantisation == "none" else 0)
    own, said_own, said_walked = asked["own"], model.index_own_bytes(shop), model.index_walked_bytes(shop)
    figures = [
        *beside("index in memory", own + walked, said_own + said_walked, "MB", note, judged=True, per=1e6),
        *beside("of it the process's own", own, said_own, "MB", note, per=1e6),
        *beside("of it files that are walked through", walked, said_walked, "MB", note, per=1e6),
        *beside(
            "index on disk",
            sum(kinds.values()),
            model.index_disk_bytes(shop),
            "MB",
            note,
            judged=True,
            per=1e6,
        ),
        *beside(
            "memory while importing", filled["own_filled"], model.import_own_bytes(shop), "MB", note, per=1e6
        ),
        *beside(
            "an import's time of a processor",
            filled["import_cpu_seconds"],
            count * model.IMPORT_CPU_SECONDS_AN_ITEM,
            "s",
            note,
        ),
        *beside(
            "start-up, time of a processor",
            asked["start_cpu_seconds"],
            model.index_start_seconds(shop),
            "s",
            note,
        ),
        Figure("start-up", asked["start_seconds"], "s", kind="latency", note=note),
        Figure("imported", count / filled["import_seconds"], "items/s", kind="rate", note=note),
        Figure("its peak, mapped files included", filled["peak"] / 1e6, "MB", note=note),
        Figure("items found again", asked["counted"], "items", count, kind="count", note=note),
    ]
    if filled["graph_cpu_seconds"] > 1:
        figures += beside(
            "graph, time of a processor",
            filled["graph_cpu_seconds"],
            model.index_graph_seconds(shop),
            "s",
            note,
        )
        figures.append(Figure("graph", filled["graph_seconds"], "s", note=note))
    query = 1_000 * model.index_query_seconds(shop)
    return [
        *figures,
        *beside("a query, time of a processor", asked["cpu_ms"], query, "ms", note),
        *beside("a query, p50", asked["p50_ms"], query, "ms", note),
        *beside("a query, p99", asked["p99_ms"], query * model.QUERY_P99_OVER_P50, "ms", note),
    ]
