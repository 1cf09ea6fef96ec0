"""Fused queries over HTTP under a steady load: how long they take, and how close they are to everything.

The service runs in a process of its own over Qdrant's engine; this process sends queries at fixed times,
whether or not earlier ones were answered (an open loop), and measures each from the moment it was due. What
the service adds is latency without the time that its own calls of the index took (Server-Timing). The overlap
is with every item of the collection scored exactly, in numpy, in all four dimensions, filters and evidence
included (benchmarks/query_catalogue.py).

Reads   the synthetic shop
Writes  a folder that goes away
Never   shares an interpreter between load and service
"""

from __future__ import annotations

import http.client
import json
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
from pathlib import Path
from random import Random
from typing import Any

from adapters.child import GIL_SWITCH_SECONDS, calm_collector
from adapters.index_edge import EdgeIndex
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from benchmarks.harness import Figure, Report, percentile
from benchmarks.query_catalogue import SEED, Catalogue, open_store
from model.encoder_process import EncoderProcess
from model.release import LoadedRelease, start_release
from model.settings import ModelSettings
from service.api import create_app
from service.releases import ReleaseNotLoaded
from service.server import Service
from service.settings import ServiceSettings

NAME = "query"
QUERIES_PER_SECOND = 50.0
#: A rate that leaves a slow processor time: what a query takes where none waits for another.
GENTLE_QUERIES_PER_SECOND = 10.0
CONNECTIONS = 16
COMPARED = 200


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
    """20,000 items and a minute of 50 queries/s; in small 1,000 items and ten seconds."""
    items, seconds = (1_000, 10.0) if small else (20_000, 60.0)
    rate = QUERIES_PER_SECOND
    draw = Random(SEED)
    with tempfile.TemporaryDirectory(prefix="simstream-bench-") as scratch:
        folder = Path(scratch)
        catalogue = Catalogue(folder, items)
        count = int(seconds * rate)
        with serving(folder) as (host, port):
            bodies = [catalogue.query(draw, limit=10) for _ in range(count)]
            warm = [catalogue.query(draw, limit=10) for _ in range(100)]
            load(host, port, warm, rate=GENTLE_QUERIES_PER_SECOND)
            gentle = load(host, port, bodies[: count // 5], rate=GENTLE_QUERIES_PER_SECOND)
            timed = load(host, port, bodies, rate=rate)
            compared = [catalogue.query(draw, limit=10, ruled=False) for _ in range(COMPARED)]
            overlap = [catalogue.overlap(body, one_by_one(host, port, body)) for body in compared]
            texts = [{"text": catalogue.products[draw.randrange(items)].title} for _ in range(count // 4)]
            search = load(host, port, texts, rate=rate / 5, path="/v1/search")
    figures = [
        *latency_figures(timed, p99_ms=30.0, note=f"{rate:.0f} queries/s"),
        *latency_figures(gentle, p99_ms=None, note=f"{GENTLE_QUERIES_PER_SECOND:.0f} queries/s"),
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
        data="synthetic shop with reviews and shoppers; seeds are items, filters are stock with category, "
        "price ratio or brand cap",
    )


def latency_figures(timed: Sequence[Timed], *, p99_ms: float | None, note: str = "") -> list[Figure]:
    """What a steady load took: median, slowest hundredth, and how much of it the service added.

    Without `p99_ms` nothing is wanted of this load.
    """
    latencies = [one.latency for one in timed]

    def figure(name: str, value: float, target: float | None) -> Figure:
        wanted = target if p99_ms is not None else None
        return Figure(
            name, round(value, 2), "ms", wanted, "at most", kind="latency", note=note, headline=True
        )

    return [
        figure("fused query p50", percentile(latencies, 50), None),
        figure("fused query p99", percentile(latencies, 99), p99_ms),
        figure(
            "median overhead over the index's own calls",
            statistics.median(one.latency - one.index for one in timed),
            5.0,
        ),
        Figure(
            "index's own calls p50",
            round(statistics.median(one.index for one in timed), 2),
            "ms",
            note=note,
        ),
    ]


def serve(folder: Path) -> None:
    """The child: the service over the folder's index, on a free port that it prints."""
    sys.setswitchinterval(GIL_SWITCH_SECONDS)
    # Queries by item need no item state; nothing listens there.
    nobody = connect(RedisSettings(url="redis://127.0.0.1:1/0", timeout_seconds=0.5))
    app = create_app(
        index=EdgeIndex(folder / "index"),
        store=ItemStore(client=nobody),
        # The encoder in a process of its own, as the service has it.
        releases=OneRelease(start_release(*open_store(folder), ModelSettings())),
        settings=ServiceSettings(),
    )
    service = Service(app, host="127.0.0.1", port=0)
    print(service.address.rpartition(":")[2], flush=True)
    calm_collector()
    service.run()


def _wait_for(port: int, *, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


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
        _wait_for(int(line))
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
