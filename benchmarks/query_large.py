"""Fused queries over 100,000 items: the time they take at a fixed rate, and the highest rate that keeps it.

As benchmarks/query.py: an open loop against the service in a process of its own, on Qdrant's engine with its
graph built. Vectors are drawn around encoded ones, words and shoppers are the shop's. The rate then rises in
steps until the slowest hundredth takes longer than is allowed, or a step cannot be sent on time.

Reads   the synthetic shop
Writes  a folder that goes away
Never   shares an interpreter between load and service
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

from benchmarks.harness import Figure, Report, percentile
from benchmarks.query import CONNECTIONS, Timed, latency_figures, load, serving
from benchmarks.query_catalogue import SEED, Catalogue

NAME = "query-large"
QUERIES_PER_SECOND = 40.0
ALLOWED_MS = 40.0
STEP_QUERIES_PER_SECOND = 10.0
HIGHEST_QUERIES_PER_SECOND = 400.0


def run(*, small: bool, data: Path | None) -> Report:
    """100,000 items, a minute at 40 queries/s, twenty seconds a step; in small 4,000 and five seconds."""
    items, encoded, seconds, step = (4_000, 400, 5.0, 2.5) if small else (100_000, 5_000, 60.0, 20.0)
    draw = Random(SEED)
    with tempfile.TemporaryDirectory(prefix="simstream-bench-") as scratch:
        folder = Path(scratch)
        catalogue = Catalogue(folder, items, drawn_around=encoded)

        def timed(rate: float, seconds: float) -> list[Timed]:
            bodies = [catalogue.query(draw, limit=10) for _ in range(int(seconds * rate))]
            return load(host, port, bodies, rate=rate)

        with serving(folder) as (host, port):
            timed(QUERIES_PER_SECOND, 5.0)  # not counted: the first touch of every page
            fixed = timed(QUERIES_PER_SECOND, seconds)
            kept, rate = 0.0, QUERIES_PER_SECOND
            while rate <= (QUERIES_PER_SECOND if small else HIGHEST_QUERIES_PER_SECOND):
                slowest = percentile([one.latency for one in timed(rate, step)], 99)
                print(f"{rate:g} queries/s: p99 {slowest:.1f} ms", flush=True)
                if slowest > ALLOWED_MS:
                    break
                kept, rate = rate, rate + STEP_QUERIES_PER_SECOND
    note = f"{items:,} items"
    figures = [
        *latency_figures(fixed, p99_ms=ALLOWED_MS, note=note),
        Figure(
            "highest rate with p99 within 40 ms", kept, "queries/s", kind="rate", note=note, headline=True
        ),
        Figure("queries", len(fixed), "", target=int(seconds * QUERIES_PER_SECOND), kind="count"),
    ]
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={
            "items": items,
            "encoded": encoded,
            "queries_per_second": QUERIES_PER_SECOND,
            "seconds": seconds,
            "seconds a step": step,
            "connections": CONNECTIONS,
            "seed": SEED,
            "index": "edge, graph built",
        },
        data=f"synthetic shop, vectors drawn around {encoded:,} encoded ones; filters as in `query`",
    )
