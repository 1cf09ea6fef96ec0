"""One index of drawn items, filled in a process of its own, then opened and asked in another.

    python -m benchmarks.capacity_index fill FOLDER ITEMS DIMENSIONS QUANTISATION
    python -m benchmarks.capacity_index ask FOLDER ITEMS DIMENSIONS QUANTISATION

Each prints one line of JSON. Seconds of a processor (`cpu`, of all threads) come beside those of the clock:
they hold also on a machine that others work on. Memory is what the process has of its own (anonymous), and
which pages of the index's files are mapped and resident; disk is blocks that were written, for the engine
reserves more than it has filled. The page cache is warm: a first start after a boot takes longer.

Reads, writes  the folder
Never          counts the drawing of items as import
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

from adapters.index_edge import EdgeIndex
from adapters.index_port import Quantisation
from benchmarks.capacity_items import TOUCHED_EVERY, Drawn
from benchmarks.harness import ROOT, percentile
from schemas.vectors import DimensionQuery, FusedQuery, item_vectors

COLLECTION = "items__drawn__1"
BATCH = 256
QUERIES, WARM = 400, 400
#: As the service asks by default (service/settings.py).
CANDIDATES, RESCORED = 100, 50


def in_child(
    what: str, folder: Path, count: int, dimensions: int, quantisation: Quantisation, until: float
) -> dict[str, Any]:
    """Run one of the two parts; what it found. Raises RuntimeError with what it said if it failed, and
    TimeoutExpired if it is not done at `until`, of the monotonic clock."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.capacity_index", what),
            *(str(folder), str(count), str(dimensions), quantisation),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=max(0.0, until - time.monotonic()),
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{what} {count}: {done.stderr[-2_000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def sizes(folder: Path) -> dict[str, int]:
    """Bytes on disk by what they hold: the files that a search walks through, and all others."""
    found = {"vectors": 0, "quantised": 0, "graph": 0, "sparse": 0, "payload": 0, "log": 0, "rest": 0}
    for file in folder.rglob("*"):
        if not file.is_file():
            continue
        name = str(file.relative_to(folder))
        if "quantized" in name:
            kind = "quantised"
        elif "vector_storage" in name:
            kind = "sparse" if _is_sparse(name) else "vectors"
        elif "vector_index" in name:
            kind = "sparse" if _is_sparse(name) else "graph"
        elif "payload" in name:
            kind = "payload"
        elif "/wal" in name:
            kind = "log"
        else:
            kind = "rest"
        found[kind] += file.stat().st_blocks * 512
    return found


def _is_sparse(name: str) -> bool:
    return any(f"-{sparse}" in name for sparse in ("lexical", "behaviour"))


def memory() -> dict[str, int]:
    """Bytes of this process: its own, and those of resident pages of an index's files."""
    status = Path("/proc/self/status").read_text().splitlines()
    own = int(next(line for line in status if line.startswith("RssAnon")).split()[1])
    mapped, of_index = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            of_index = "/shard/" in line
        elif of_index and line.startswith("Rss:"):
            mapped += int(line.split()[1])
    return {"own": own * 1024, "mapped": mapped * 1024}


def fill(folder: Path, drawn: Drawn, quantisation: Quantisation) -> dict[str, float]:
    """Write all points, build the graph, close."""
    batches, before = drawn.batches(BATCH), memory()
    index = EdgeIndex(folder, quantisation=quantisation)
    index.ensure_collection(COLLECTION, item_vectors(drawn.dimensions))
    writing, writing_cpu = 0.0, 0.0
    for points in batches:
        started, cpu = time.monotonic(), time.process_time()
        index.upsert(COLLECTION, points, ticket=1)
        writing, writing_cpu = writing + time.monotonic() - started, writing_cpu + time.process_time() - cpu
    filled, disk = memory(), sum(sizes(folder).values())
    started, cpu = time.monotonic(), time.process_time()
    index.optimize(COLLECTION)
    graph, graph_cpu = time.monotonic() - started, time.process_time() - cpu
    index.close()
    return {
        "import_seconds": writing,
        "import_cpu_seconds": writing_cpu,
        "graph_seconds": graph,
        "graph_cpu_seconds": graph_cpu,
        "own_filled": filled["own"] - before["own"],
        "mapped_filled": filled["mapped"],
        "disk_filled": disk,
        "own_built": memory()["own"] - before["own"],
        "peak": _peak() - before["own"],
    }


def ask(folder: Path, drawn: Drawn) -> dict[str, float]:
    """Open, then ask as the service does: read the seed, 100 candidates a dimension, score the 50 best."""
    before, cpu = memory(), time.process_time()
    started = time.monotonic()
    index = EdgeIndex(folder)
    index.ensure_collection(COLLECTION, item_vectors(drawn.dimensions))
    counted = index.count(COLLECTION)
    start, start_cpu = time.monotonic() - started, time.process_time() - cpu
    opened = memory()
    times = []
    for place in range(WARM + QUERIES):
        cpu = time.process_time() if place == WARM else cpu
        # Seeds that have every dimension, all over the catalogue.
        seed = f"item-{place * 7_919 * TOUCHED_EVERY * 3 % drawn.count // 6 * 6}"
        started = time.monotonic()
        vectors = index.fetch(COLLECTION, [seed], vectors=True)[seed].vectors
        queries = tuple(DimensionQuery(name, vector, 1.0, CANDIDATES) for name, vector in vectors.items())
        best = index.candidates(COLLECTION, FusedQuery(queries, limit=RESCORED))
        known = [[one.product_id for one in best if query.dimension in one.known] for query in queries]
        index.scores(COLLECTION, queries, [one.product_id for one in best], known=known)
        times.append(time.monotonic() - started)
    asked, cpu = memory(), time.process_time() - cpu
    index.close()
    return {
        "counted": counted,
        "start_seconds": start,
        "start_cpu_seconds": start_cpu,
        "own_opened": opened["own"] - before["own"],
        "own": asked["own"] - before["own"],
        "mapped": asked["mapped"],
        "p50_ms": 1_000 * percentile(times[WARM:], 50),
        "cpu_ms": 1_000 * cpu / QUERIES,
        "p99_ms": 1_000 * percentile(times[WARM:], 99),
    }


def _peak() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024


if __name__ == "__main__":
    place, drawn = Path(sys.argv[2]), Drawn.of(int(sys.argv[3]), int(sys.argv[4]))
    found = (
        fill(place, drawn, cast(Quantisation, sys.argv[5])) if sys.argv[1] == "fill" else ask(place, drawn)
    )
    print(json.dumps(found))
