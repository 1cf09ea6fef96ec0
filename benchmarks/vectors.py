"""Quantised dense vectors side by side: recall, speed, memory and size in one table.

An index holds the content vectors of a catalogue; each variant is built anew, its graph too, and measured in
a fresh process, as a service would open it: 100 candidates of a query, the ten best of them. Recall@10 is of
the labelled matches of two shops among everything, and of the exact ten nearest.

What a search walks through is in memory: the quantised vectors, or the vectors themselves where there are
none such. Originals beside quantised ones are on disk; those of the candidates are read, and what the kernel
keeps of their pages it may take back. So both are told: the bytes of what is walked through, and what was
resident after the queries: memory of the process's own, and pages of the files of vectors.

    full    abt-buy and amazon-google, asked and searched, among the titles of amazon-beauty, base model
    small   a synthetic shop, bags of words, one bit a number, too few for a graph: no model and no data set

Reads   the data sets; the base model
Writes  vectors of texts under var/quality, so that a second run encodes nothing; indexes that go away
Never   measures a process that has built anything
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from adapters.index_edge import EdgeIndex
from adapters.index_port import Quantisation
from benchmarks.harness import ROOT, Figure, Report
from benchmarks.insights import release
from benchmarks.matching import EVERY_PAIR, SETS, matches, needed, read_products
from benchmarks.quality_index import remembering
from benchmarks.quality_sets import beauty
from producers.shop import Shop
from schemas.vectors import CONTENT, CollectionSpec, DimensionQuery, FusedQuery, Point

NAME = "vectors"
VARIANTS: Sequence[Quantisation] = get_args(Quantisation)
K, CANDIDATES = 10, 100
COLLECTION = "items__bench__1"
#: Below 10 MB of vectors the engine makes no graph, and of its own keeps eight bits of none.
SMALL_ITEMS, SMALL_QUERIES = 2_000, 100
SMALL_VARIANTS: Sequence[Quantisation] = ("none", "binary")
QUERIES = 1_500
ROUNDS = 3

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Searched:
    """Items and queries as unit vectors; the items that match each query, where anybody said so."""

    items: Floats
    queries: Floats
    gold: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Measured:
    """One variant. `anonymous` and `mapped` are what opening and asking made resident."""

    recall_gold: float
    recall_exact: float
    p50_ms: float
    walked_mb: float
    anonymous_mb: float
    mapped_mb: float
    folder_mb: float
    build_seconds: float


def run(*, small: bool, data: Path | None) -> Report:
    """All variants, the same vectors."""
    searched = _synthetic() if small else _real(needed(data))
    found = {variant: _variant(variant, searched) for variant in (SMALL_VARIANTS if small else VARIANTS)}
    base = found["none"]
    figures = []
    for variant, one in found.items():
        note = variant
        if variant != "none":
            lost = base.recall_exact - one.recall_exact if small else base.recall_gold - one.recall_gold
            figures += [
                Figure(
                    f"recall@{K} lost",
                    round(100 * lost, 2),
                    "points",
                    1.0,
                    "at most",
                    kind="quality",
                    note=note,
                ),
                Figure(
                    "vector memory, originals' over it",
                    round(base.walked_mb / one.walked_mb, 2),
                    "x",
                    # Eight bits a number, and one number more a vector: a little more than a quarter.
                    4.0 if variant == "binary" else 3.9,
                    note=note,
                    headline=True,
                ),
                Figure("searches, the originals' time over it", base.p50_ms / one.p50_ms, "x", note=note),
            ]
        figures += [
            Figure(
                f"recall@{K} of the exact {K} nearest",
                round(one.recall_exact, 4),
                "",
                kind="quality",
                note=note,
            ),
            Figure("a search, p50", one.p50_ms, "ms", kind="latency", note=note),
            Figure("walked through in memory", one.walked_mb, "MB", note=note),
            Figure("resident, anonymous", one.anonymous_mb, "MB", note=note),
            Figure("resident, mapped files", one.mapped_mb, "MB", note=note),
            Figure("folder", one.folder_mb, "MB", note=note),
            Figure("written, and its graph made", one.build_seconds, "s", note=note),
        ]
        if not small:
            figures.append(
                Figure(
                    f"recall@{K} of labelled matches",
                    round(one.recall_gold, 4),
                    "",
                    kind="quality",
                    note=note,
                )
            )
    settings: dict[str, str | int | float | bool | None] = {
        "items": len(searched.items),
        "queries": len(searched.queries),
        "dimension": searched.items.shape[1],
        "candidates": CANDIDATES,
    }
    about = (
        "a synthetic shop, bags of words"
        if small
        else "abt-buy and amazon-google among amazon-beauty's titles"
    )
    return Report(NAME, figures, settings, about)


def _real(data: Path) -> Searched:
    wanted: list[str] = []
    asked: list[tuple[str, set[int]]] = []
    with remembering(ROOT / "var" / "quality") as base:
        for name in SETS:
            place = {}
            for product_id, product in read_products(data, name, "b").items():
                place[product_id] = len(wanted)
                wanted.append(base.recipe.content(product))
            offers = read_products(data, name, "a")
            for seed, those in matches(data, name, EVERY_PAIR).items():
                asked.append(
                    (base.recipe.content(offers[seed]), {place[one] for one in those if one in place})
                )
        wanted += [base.recipe.content(product) for product in beauty(data).contents.products]
        asked = asked[:: max(1, len(asked) // QUERIES)]
        items = np.array(base.encoder.encode(wanted), dtype=np.float32)
        queries = np.array(base.encoder.encode([text for text, _ in asked]), dtype=np.float32)
    return Searched(items, queries, [sorted(gold) for _, gold in asked])


def _synthetic() -> Searched:
    made = release()
    texts = [
        made.recipe.content(product) for product in Shop(11, products=SMALL_ITEMS, shoppers=5).products()
    ]
    vectors = np.array(made.encoder.encode(texts), dtype=np.float32)
    return Searched(vectors, vectors[:: len(vectors) // SMALL_QUERIES], [])


def _variant(variant: Quantisation, searched: Searched) -> Measured:
    with tempfile.TemporaryDirectory(prefix="simstream-bench-") as name:
        folder = Path(name)
        started = time.monotonic()
        _build(variant, searched.items, folder / "index")
        seconds = time.monotonic() - started
        np.savez(folder / "asked.npz", items=searched.items, queries=searched.queries)
        (folder / "gold.json").write_text(json.dumps(searched.gold))
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.vectors", str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=1_200,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{variant}: {done.stderr[-2_000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        sizes = _sizes(folder / "index")
    measured = Measured(
        **found,
        walked_mb=(sizes["quantised"] or sizes["originals"]) / 1e6,
        folder_mb=sizes["all"] / 1e6,
        build_seconds=seconds,
    )
    print(f"{variant}: {measured}", flush=True)
    return measured


def _build(variant: Quantisation, vectors: Floats, folder: Path) -> None:
    index = EdgeIndex(folder, quantisation=variant)
    index.ensure_collection(COLLECTION, CollectionSpec(dense={CONTENT: vectors.shape[1]}, sparse_with_idf=()))
    for start in range(0, len(vectors), 256):
        points = [
            Point(f"p{row}", {CONTENT: vector.tolist()}, {"product_id": f"p{row}"})
            for row, vector in enumerate(vectors[start : start + 256], start=start)
        ]
        index.upsert(COLLECTION, points, ticket=1)
    index.optimize(COLLECTION)
    index.close()


def _sizes(folder: Path) -> Mapping[str, int]:
    """Bytes on disk, for files are longer than what is in them: of dense vectors by kind, and of all."""
    found = {"quantised": 0, "originals": 0, "all": 0}
    for file in folder.rglob("*"):
        if file.is_file():
            size, parts = file.stat().st_blocks * 512, file.relative_to(folder).parts
            found["all"] += size
            if any(part.startswith("vector_storage") for part in parts):
                quantised = any(part.startswith("quantized") for part in parts)
                found["quantised" if quantised else "originals"] += size
    return found


# --- the process that is measured ---------------------------------------------------------------------


def _measure(folder: Path) -> dict[str, float]:
    with np.load(folder / "asked.npz") as kept:
        queries = kept["queries"].tolist()
    gold = json.loads((folder / "gold.json").read_text())
    before = _anonymous_mb()
    index = EdgeIndex(folder / "index")
    found, times = [], []
    for number in range(ROUNDS):
        for query in queries:
            asked = FusedQuery((DimensionQuery(CONTENT, query, 1.0, candidates=CANDIDATES),), limit=K)
            began = time.perf_counter()
            hits = index.candidates(COLLECTION, asked)
            times.append(time.perf_counter() - began)
            if number == 0:
                found.append({int(hit.product_id[1:]) for hit in hits})
    anonymous, mapped = _anonymous_mb(), _mapped_mb()
    index.close()
    with np.load(folder / "asked.npz") as kept:
        scores = kept["queries"] @ kept["items"].T
    exact = np.argsort(-scores, axis=1)[:, :K].tolist()
    shares = [
        len(those & set(right)) / len(right) for those, right in zip(found, gold, strict=False) if right
    ]
    return {
        "recall_gold": float(np.mean(shares)) if shares else 0.0,
        "recall_exact": float(
            np.mean([len(those & set(right)) / K for those, right in zip(found, exact, strict=True)])
        ),
        "p50_ms": 1000 * statistics.median(times),
        "anonymous_mb": anonymous - before,
        "mapped_mb": mapped,
    }


def _anonymous_mb() -> float:
    """Memory of this process that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def _mapped_mb() -> float:
    """Pages of files of vectors that are resident here."""
    found, of_vectors = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            of_vectors = "/vector_storage" in line
        elif of_vectors and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found / 1024


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]))))
