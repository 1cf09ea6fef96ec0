"""Fused queries over HTTP under a steady load: how long they take, and how close they are to everything.

The service runs in a process of its own over Qdrant's engine; this process sends queries at fixed times,
whether or not earlier ones were answered (an open loop), and measures each from the moment it was due. What
the service adds is latency without the time that its own calls of the index took (Server-Timing). The overlap
is with every item of the collection scored exactly, in numpy, filters included.

Reads   the synthetic shop
Writes  a folder that goes away
Never   shares an interpreter between load and service
"""

from __future__ import annotations

import http.client
import json
import math
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.child import GIL_SWITCH_SECONDS
from adapters.index_edge import EdgeIndex
from adapters.index_port import LIVE_ALIAS, collection_name
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from adapters.releases import ReleaseSettings, ReleaseStore
from benchmarks.harness import Figure, Report, percentile
from consumers.assembly import Encoded, assemble
from model.encoder import TextEncoder
from model.encoder_process import EncoderProcess
from model.release import LoadedRelease, first_release, load_release, start_release
from model.settings import ModelSettings
from producers.shop import Shop
from schemas.items import ItemState
from schemas.vectors import SparseVector, item_vectors
from service.api import create_app
from service.releases import ReleaseNotLoaded
from service.settings import ServiceSettings

NAME = "query"
SEED = 11
QUERIES_PER_SECOND = 50.0
CONNECTIONS = 16
COMPARED = 200
BATCH = 256


@dataclass(frozen=True, slots=True)
class Timed:
    """One query, in milliseconds from when it was due."""

    latency: float
    index: float


class OneRelease:
    """Implements service.releases.Releases for one release."""

    def __init__(self, release: LoadedRelease[EncoderProcess]) -> None:
        self._release = release

    def loaded(self, release_id: str) -> LoadedRelease[EncoderProcess]:
        """The release by name. Raises ReleaseNotLoaded."""
        if release_id != self._release.release_id:
            raise ReleaseNotLoaded(release_id)
        return self._release


def run(*, small: bool, data: Path | None) -> Report:
    """20,000 items and a minute of 50 queries/s; in small 3,000 items and ten seconds."""
    items, seconds = (3_000, 10.0) if small else (20_000, 60.0)
    rate = QUERIES_PER_SECOND
    draw = Random(SEED)
    with tempfile.TemporaryDirectory(prefix="simstream-bench-") as scratch:
        folder = Path(scratch)
        catalogue = Catalogue(folder, items)
        count = int(seconds * rate)
        with serving(folder) as (host, port):
            bodies = [catalogue.query(draw, limit=10) for _ in range(count)]
            warm = [catalogue.query(draw, limit=10) for _ in range(100)]
            load(host, port, warm, rate=rate)
            timed = load(host, port, bodies, rate=rate)
            compared = [catalogue.query(draw, limit=10, capped=False) for _ in range(COMPARED)]
            overlap = [catalogue.overlap(body, one_by_one(host, port, body)) for body in compared]
            texts = [{"text": catalogue.products[draw.randrange(items)].title} for _ in range(count // 4)]
            search = load(host, port, texts, rate=rate / 5, path="/v1/search")
    latencies = [one.latency for one in timed]
    overheads = [one.latency - one.index for one in timed]
    figures = [
        Figure("fused query p50", round(percentile(latencies, 50), 2), "ms", kind="latency", headline=True),
        Figure(
            "fused query p99",
            round(percentile(latencies, 99), 2),
            "ms",
            target=30.0,
            direction="at most",
            kind="latency",
            headline=True,
        ),
        Figure(
            "median overhead over the index's own calls",
            round(statistics.median(overheads), 2),
            "ms",
            target=5.0,
            direction="at most",
            kind="latency",
        ),
        Figure("index's own calls p50", round(statistics.median(one.index for one in timed), 2), "ms"),
        Figure(
            "overlap@10 with every item scored exactly",
            round(statistics.fmean(overlap), 4),
            "",
            target=0.98,
            kind="quality",
            headline=True,
        ),
        Figure(
            "search by text p50",
            round(percentile([one.latency for one in search], 50), 2),
            "ms",
            kind="latency",
            note="encoder on the same cores",
        ),
        Figure("queries", len(timed), "", target=count, kind="count"),
    ]
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={
            "items": items,
            "queries_per_second": rate,
            "seconds": seconds,
            "connections": CONNECTIONS,
            "compared": COMPARED,
            "seed": SEED,
            "index": "edge, graph built",
        },
        data="synthetic shop; seeds are items, filters are stock with category, price ratio or brand cap",
    )


class Catalogue:
    """The shop in an index folder, and in memory to score everything exactly."""

    def __init__(self, folder: Path, items: int) -> None:
        release = load_release(*open_store(folder), ModelSettings())
        self.collection = collection_name(release.release_id)
        self.products = list(Shop(SEED, products=items).products())[:items]
        self.row = {product.product_id: number for number, product in enumerate(self.products)}
        started = time.monotonic()
        texts = [release.recipe.content(product) for product in self.products]
        self.content = encoded(release.encoder, texts)
        print(f"{len(texts)} texts encoded in {time.monotonic() - started:.0f} s", flush=True)
        self.lexical = [release.recipe.lexical(product) for product in self.products]
        index = EdgeIndex(folder / "index")
        index.ensure_collection(self.collection, item_vectors(release.manifest.dimension))
        index.set_alias(LIVE_ALIAS, self.collection)
        for start in range(0, len(self.products), BATCH):
            rows = range(start, min(start + BATCH, len(self.products)))
            index.upsert(self.collection, [self._point(row, release) for row in rows], ticket=1)
        # As the embedded stack does when it starts with so many items, and in small too: the same path.
        index.optimize(self.collection)
        index.close()
        release.encoder.close()
        self._postings = self._inverted()

    def _point(self, row: int, release: LoadedRelease[TextEncoder]) -> Any:
        product = self.products[row]
        state = ItemState(product.product_id, product.order, product.occurred_at, product)
        vector = Encoded(release.recipe.fingerprint(product), self.content[row].tolist())
        made = assemble(
            product.product_id,
            state,
            None,
            recipe=release.recipe,
            encoded={vector.fingerprint: vector},
            now=datetime.now(UTC),
        )
        return made.point

    def _inverted(self) -> dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]]:
        rows: dict[int, list[tuple[int, float]]] = {}
        for number, vector in enumerate(self.lexical):
            for index, value in zip(vector.indices, vector.values, strict=True):
                rows.setdefault(index, []).append((number, value))
        return {
            index: (np.array([row for row, _ in pairs]), np.array([value for _, value in pairs]))
            for index, pairs in rows.items()
        }

    def query(self, draw: Random, *, limit: int, capped: bool = True) -> dict[str, Any]:
        """A request by item: in stock, and one of: same department, price band, brand cap."""
        product = self.products[draw.randrange(len(self.products))]
        wanted: dict[str, Any] = {"in_stock": True}
        kind = draw.randrange(3 if capped else 2)
        if kind == 0 and product.category:
            wanted["category"] = [product.category[0]]
        elif kind == 1 and product.price is not None:
            wanted["price_ratio"] = {"min": 0.5, "max": 2.0}
        elif capped:
            wanted["brand_cap"] = 3
        return {"seeds": [{"item_id": product.product_id}], "filter": wanted, "limit": limit}

    def overlap(self, body: dict[str, Any], found: list[str]) -> float:
        """Share of the truly best that were found; truth is every allowed item, scored exactly."""
        seed = self.row[body["seeds"][0]["item_id"]]
        weights = ServiceSettings().weights
        total = weights["content"] * (self.content @ self.content[seed]) + weights["lexical"] * self._lexical(
            seed
        )
        allowed = np.array([self._allowed(row, seed, body["filter"]) for row in range(len(self.products))])
        total = np.where(allowed, total, -np.inf)
        best = [row for row in np.argsort(-total)[: body["limit"]] if total[row] > -np.inf]
        if not best:
            return 1.0
        # Items that tie with the last place are as good as it.
        bound = total[best[-1]] - 1e-3
        good = sum(1 for item in found[: len(best)] if total[self.row[item]] >= bound)
        return good / len(best)

    def _lexical(self, seed: int) -> NDArray[np.float64]:
        scores = np.zeros(len(self.products))
        vector: SparseVector = self.lexical[seed]
        count = len(self.products)
        for index, value in zip(vector.indices, vector.values, strict=True):
            rows, values = self._postings[index]
            idf = math.log((count - len(rows) + 0.5) / (len(rows) + 0.5) + 1)
            scores[rows] += value * idf * values
        exact: NDArray[np.float64] = scores / scores[seed]
        return exact

    def _allowed(self, row: int, seed: int, wanted: dict[str, Any]) -> bool:
        product, other = self.products[row], self.products[seed]
        if row == seed or product.in_stock is not True:
            return False
        if "category" in wanted and wanted["category"][0] not in product.category:
            return False
        if "price_ratio" in wanted:
            if product.price is None or other.price is None or product.currency != other.currency:
                return False
            return 0.5 * float(other.price) <= float(product.price) <= 2.0 * float(other.price)
        return True


def encoded(encoder: TextEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """All vectors, shape (texts, dimension)."""
    return np.concatenate(
        [encoder.encode_array(texts[start : start + 2_048]) for start in range(0, len(texts), 2_048)]
    )


def open_store(folder: Path) -> tuple[ReleaseStore, str]:
    """Where releases are kept in this folder, and the base model's, made if it is not there."""
    store = ReleaseStore(ReleaseSettings(url=str(folder / "releases")))
    return store, first_release(ModelSettings(), store, created_at=datetime.now(UTC)).release_id


def serve(folder: Path) -> None:
    """The child: the service over the folder's index, on a free port that it prints."""
    import uvicorn

    sys.setswitchinterval(GIL_SWITCH_SECONDS)
    # As the stack's own listener: without the protocol's name asyncio leaves Nagle's algorithm on.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    # From here on connections wait for the service instead of being refused.
    listener.listen(128)
    # Queries by item need no item state; nothing listens there.
    nobody = connect(RedisSettings(url="redis://127.0.0.1:1/0", timeout_seconds=0.5))
    app = create_app(
        index=EdgeIndex(folder / "index"),
        store=ItemStore(client=nobody),
        # The encoder in a process of its own, as the service has it.
        releases=OneRelease(start_release(*open_store(folder), ModelSettings())),
        settings=ServiceSettings(),
    )
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, int]]:
    """The service in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.query", str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            raise RuntimeError("the service did not start")
        yield "127.0.0.1", int(line)
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def load(
    host: str, port: int, bodies: Sequence[dict[str, Any]], *, rate: float, path: str = "/v1/similar"
) -> list[Timed]:
    """Send each body when it is due, `rate` a second, over a pool of connections; times of every answer."""
    due: queue.SimpleQueue[tuple[float, bytes] | None] = queue.SimpleQueue()
    results: list[Timed] = []
    failures: list[str] = []

    def worker() -> None:
        connection = http.client.HTTPConnection(host, port, timeout=30)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (job := due.get()) is not None:
            at, body = job
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            latency = (time.perf_counter() - at) * 1000
            if response.status != 200:
                failures.append(f"{response.status}: {content[:300]!r}")
                continue
            results.append(Timed(latency, _index_ms(response.headers["Server-Timing"])))
        connection.close()

    workers = [threading.Thread(target=worker) for _ in range(CONNECTIONS)]
    for thread in workers:
        thread.start()
    started = time.perf_counter() + 0.2
    for number, body in enumerate(bodies):
        at = started + number / rate
        encoded_body = json.dumps(body).encode()
        time.sleep(max(0.0, at - time.perf_counter()))
        due.put((at, encoded_body))
    for _ in workers:
        due.put(None)
    for thread in workers:
        thread.join()
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(bodies)} queries failed, the first: {failures[0]}")
    return results


def one_by_one(host: str, port: int, body: dict[str, Any]) -> list[str]:
    """The ids of one answer."""
    connection = http.client.HTTPConnection(host, port, timeout=30)
    connection.request("POST", "/v1/similar", json.dumps(body), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return [hit["item_id"] for hit in answer["items"]]


def _index_ms(header: str) -> float:
    spans = dict(part.split(";dur=") for part in header.split(", "))
    return float(spans["index"])


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
