"""A release is filled, swapped in and rolled back under queries and live events, and nobody notices.

The candidate's vectors are the live ones under a fixed rotation (tests/support/rotated_model.py), so each
release's neighbours are known, and a query of one release against vectors of the other has a wrong score.
After the run every hit of every answer is scored again, offline, with the release that the answer names.

Queries are neighbours by content, one in ten a search by text. They ask for a lot of items whose texts stand
still, so that their scores are known; prices change everywhere, texts in another lot, and new items come.

The control searches through the alias at every call of the index, while the alias moves in each request.

Reads   the synthetic shop
Writes  an embedded stack in a folder that goes away
Never   judges an answer by another release than the one it names
"""

from __future__ import annotations

import http.client
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.index_edge import EdgeIndex
from adapters.index_port import LIVE_ALIAS, release_of
from adapters.kafka import Publisher
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from adapters.releases import ReleaseSettings, ReleaseStore
from benchmarks.harness import ROOT, Figure, Report, percentile
from benchmarks.stack import PRODUCTS, RunningStack, Updates, embedded_stack, import_catalogue, stop
from model.release import LoadedRelease, first_release, load_release
from model.settings import ModelSettings, base_folder
from producers.shop import Shop
from schemas.api import SimilarRequest
from schemas.events import ProductUpserted
from service.catalogue import Catalogue
from service.query import QueryEngine
from service.releases import ReleaseNotLoaded
from service.settings import ServiceSettings
from service.timing import Timings
from tests.support.moving_alias import MovingAlias
from tests.support.rotated_model import write_rotated_model

NAME = "swap"
SEED = 17
QUERIES_PER_SECOND = 50.0
PRICES_PER_SECOND = 20.0
TEXTS_PER_SECOND = 2.0
NEW_ITEMS_PER_SECOND = 1.0
CONNECTIONS = 16
TOLERANCE = 1e-3
#: Newest events that the live collection has to show before the stack is stopped and all are counted.
SETTLED_BY = 200
STILL, MOVING = "still", "moving"
#: fp32, so that a text encoded again, among others, has the same vector.
MODEL = ModelSettings(dtype="fp32")
ENVIRONMENT = {"SIMSTREAM_MODEL__DTYPE": "fp32", "SIMSTREAM_ROLLOUT__POLL_SECONDS": "0.5"}
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of it: items, seconds of each quiet stretch."""

    items: int
    seconds: float


@dataclass(slots=True)
class Asked:
    """One query and what came of it. `phase` is what the stack was doing when it was due."""

    phase: str
    body: dict[str, Any]
    latency_ms: float = 0.0
    status: int = 0
    answer: dict[str, Any] = field(default_factory=dict)


def run(*, small: bool, data: Path | None) -> Report:
    """5,000 items and a minute before, between and after; in small 300 and eight seconds."""
    sizes = Sizes(300, 8.0) if small else Sizes(5_000, 60.0)
    products = _products(sizes.items)
    with embedded_stack(environment=ENVIRONMENT) as stack:
        publisher, updates = Publisher(stack.settings), Updates(stack)
        import_catalogue(stack, publisher, updates, products)
        updates.close()
        candidate = _publish_rotated(stack)
        load, events = Load(stack, products), Events(publisher, products)
        with load.running(), events.running():
            load.phase = "quiet"
            time.sleep(sizes.seconds)
            load.phase = "backfill and swap"
            started = time.monotonic()
            _command(stack, "promote", candidate)
            filled_seconds = time.monotonic() - started
            load.phase = "after the swap"
            time.sleep(sizes.seconds)
            load.phase = "rollback"
            started = time.monotonic()
            _command(stack, "rollback")
            back_seconds = time.monotonic() - started
            time.sleep(sizes.seconds)
        events.settle(stack)
        publisher.close()
        stop(stack.process)
        releases = _releases(stack, candidate)
        judge = Judge(products, releases)
        judged = judge.judge(load.asked)
        index = EdgeIndex(stack.folder / "index")
        try:
            collections = len(index.collections())
            missing = events.missing(index)
            control = judge.judge(_through_the_alias(index, products, releases))
        finally:
            index.close()
    quiet = _p99(load.asked, "quiet")
    swapping = _p99(load.asked, "backfill and swap")
    failed = sum(one.status != HTTPStatus.OK for one in load.asked)
    for phase in dict.fromkeys(one.phase for one in load.asked):
        print(f"{phase}: p99 {_p99(load.asked, phase):.1f} ms")
    print(f"{events.sent} events, {judged}", flush=True)
    return Report(
        benchmark=NAME,
        figures=[
            Figure("failed queries", failed, "queries", 0, "at most", kind="count", headline=True),
            Figure(
                "hits off by more than 0.001", judged.off, "hits", 0, "at most", kind="count", headline=True
            ),
            Figure("events missing", missing, "events", 0, "at most", kind="count", headline=True),
            Figure("query p99", round(quiet, 1), "ms", kind="latency", note="quiet"),
            Figure(
                "query p99",
                round(swapping, 1),
                "ms",
                # Two encoders and the load on two cores without bf16 are a queue: in small printed only.
                None if small else max(2 * quiet, 100.0),
                "at most",
                kind="latency",
                note="during backfill and swap",
                headline=True,
            ),
            Figure("hits scored again", judged.hits, "hits", 1_000, kind="count"),
            Figure(
                "answers of the live release", judged.by_release.get("first", 0), "answers", 1, kind="count"
            ),
            Figure(
                "answers of the candidate", judged.by_release.get("candidate", 0), "answers", 1, kind="count"
            ),
            Figure("events", events.sent, "events", 1, kind="count"),
            Figure("collections that show every event", collections, "collections", 2, kind="count"),
            Figure("hits off when the alias is read twice", control.off, "hits", 1, kind="count"),
            Figure("hits of the control", control.hits, "hits", 1, kind="count"),
            Figure("from promote to live", round(filled_seconds, 1), "s"),
            Figure("from rollback to live", round(back_seconds, 1), "s"),
        ],
        settings={
            "items": sizes.items,
            "queries per second": QUERIES_PER_SECOND,
            "prices per second": PRICES_PER_SECOND,
            "texts per second": TEXTS_PER_SECOND,
            "new items per second": NEW_ITEMS_PER_SECOND,
            "seconds quiet": sizes.seconds,
            "seed": SEED,
            "broker": "Tansu",
            "index": "edge",
            "backfill": "nice 19",
        },
        data="synthetic shop; stack, backfill, load and events on the same cores",
    )


def _p99(asked: Sequence[Asked], phase: str) -> float:
    return percentile([one.latency_ms for one in asked if one.phase == phase], 99)


def _products(count: int) -> list[ProductUpserted]:
    """The shop's products with short texts, every fifth in the lot whose texts move."""
    found = []
    for number, product in enumerate(Shop(SEED, products=count).products()):
        if number >= count:
            break
        update = {
            "attributes": {"lot": MOVING if number % 5 == 0 else STILL},
            "description": None,
            "group_id": None,
            "occurred_at": datetime.now(UTC),
            "revision": 1,
        }
        found.append(product.model_copy(update=update))
    return found


def _publish_rotated(stack: RunningStack) -> str:
    """The live model's rotated twin as a release of the stack; its id."""
    folder = write_rotated_model(base_folder(MODEL), stack.folder / "rotated")
    store = ReleaseStore(ReleaseSettings(url=str(stack.folder / "releases")))
    settings = MODEL.model_copy(update={"name": str(folder)})
    return first_release(settings, store, created_at=datetime.now(UTC)).release_id


def _command(stack: RunningStack, *words: str) -> None:
    """`simstream releases ...` as a person would, out of the way of what is measured."""
    command = ["nice", "-n", "19", sys.executable, "-m", "app.cli", "releases", *words]
    command += ["--data-dir", str(stack.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1_800, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        raise RuntimeError(f"simstream releases {' '.join(words)}: {done.stderr}")


class Load:
    """Queries at fixed times over a pool of connections; each is timed from when it was due."""

    def __init__(self, stack: RunningStack, products: Sequence[ProductUpserted]) -> None:
        self._host, _, port = stack.http.removeprefix("http://").partition(":")
        self._port = int(port)
        self._still = [one for one in products if one.attributes["lot"] == STILL]
        self._draw = Random(SEED)
        self.phase = "quiet"
        self.asked: list[Asked] = []

    def _next(self) -> tuple[str, dict[str, Any]]:
        product = self._draw.choice(self._still)
        shared = {"weights": {"content": 1.0}, "filter": {"attributes": {"lot": [STILL]}}, "limit": 10}
        if self._draw.random() < 0.1:
            return "/v1/search", {"text": product.title, **shared}
        return "/v1/similar", {"seeds": [{"item_id": product.product_id}], **shared}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask until the block ends."""
        due: queue.SimpleQueue[tuple[float, str, Asked] | None] = queue.SimpleQueue()
        stopped = threading.Event()
        workers = [threading.Thread(target=self._work, args=(due,)) for _ in range(CONNECTIONS)]

        def ask() -> None:
            started = time.perf_counter()
            for number in range(1_000_000):
                at = started + number / QUERIES_PER_SECOND
                if stopped.wait(max(0.0, at - time.perf_counter())):
                    return
                path, body = self._next()
                asked = Asked(self.phase, body)
                self.asked.append(asked)
                due.put((at, path, asked))

        asking = threading.Thread(target=ask)
        for thread in (*workers, asking):
            thread.start()
        try:
            yield
        finally:
            stopped.set()
            asking.join()
            for _ in workers:
                due.put(None)
            for thread in workers:
                thread.join()

    def _work(self, due: queue.SimpleQueue[tuple[float, str, Asked] | None]) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        while (job := due.get()) is not None:
            at, path, asked = job
            try:
                connection.request("POST", path, json.dumps(asked.body), {"Content-Type": "application/json"})
                response = connection.getresponse()
                asked.answer = json.loads(response.read())
                asked.status = response.status
            except (OSError, http.client.HTTPException) as error:
                asked.answer = {"detail": repr(error)}
                connection.close()
            asked.latency_ms = (time.perf_counter() - at) * 1000
            if asked.status != HTTPStatus.OK:
                print(f"failed: {asked.status} {asked.answer}", flush=True)
        connection.close()


class Events:
    """Prices, texts and new items while the stack works, and what the index must show in the end."""

    def __init__(self, publisher: Publisher, products: Sequence[ProductUpserted]) -> None:
        self._publisher = publisher
        self._products = {one.product_id: one for one in products}
        self._moving = [one.product_id for one in products if one.attributes["lot"] == MOVING]
        self._draw = Random(SEED + 1)
        # As those of the import: microseconds.
        self._revision = int(time.time() * 1e6)
        self.newest: dict[str, int] = {}
        self.sent = 0

    def _event(self) -> ProductUpserted:
        self._revision += 1
        rates = (PRICES_PER_SECOND, TEXTS_PER_SECOND, NEW_ITEMS_PER_SECOND)
        kind = self._draw.choices(("price", "text", "new"), weights=rates)[0]
        chosen = self._draw.choice(self._moving if kind != "price" else list(self._products))
        before = self._products[chosen]
        update: dict[str, Any] = {"revision": self._revision, "occurred_at": datetime.now(UTC)}
        if kind == "price":
            update["price"] = Decimal(self.sent) + Decimal("0.25")
        else:
            update["title"] = f"{before.title} {self._revision}"
        if kind == "new":
            update["product_id"] = f"new-{self._revision}"
        return before.model_copy(update=update)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Publish until the block ends."""
        stopped = threading.Event()

        def publish() -> None:
            while not stopped.wait(1 / (PRICES_PER_SECOND + TEXTS_PER_SECOND + NEW_ITEMS_PER_SECOND)):
                event = self._event()
                body = event.model_dump_json(exclude_none=True).encode()
                self._publisher.send(PRODUCTS, key=event.product_id, value=body)
                self._products[event.product_id] = event
                self.newest[event.product_id] = event.order
                self.sent += 1

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def settle(self, stack: RunningStack, patience_seconds: float = 60.0) -> None:
        """Wait until the live collection shows the newest events; all are counted afterwards."""
        self._publisher.flush(30.0)
        host, _, port = stack.http.removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        deadline = time.monotonic() + patience_seconds
        newest = sorted(self.newest.items(), key=lambda pair: -pair[1])[:SETTLED_BY]
        while newest and time.monotonic() < deadline:
            item_id, revision = newest[-1]
            connection.request("GET", f"/v1/items/{item_id}")
            response = connection.getresponse()
            shown = json.loads(response.read())
            if response.status == HTTPStatus.OK and (shown["indexed_revision"] or 0) >= revision:
                newest.pop()
            else:
                time.sleep(0.05)
        connection.close()

    def missing(self, index: EdgeIndex) -> int:
        """Items that a collection does not show as in their newest event, over all collections."""
        count = 0
        for collection in index.collections():
            for start in range(0, len(self.newest), 256):
                page = dict(list(self.newest.items())[start : start + 256])
                points = index.fetch(collection, list(page), vectors=False)
                count += sum(
                    item_id not in points or int(points[item_id].payload["revision"]) < revision
                    for item_id, revision in page.items()
                )
        return count


# --- afterwards ----------------------------------------------------------------------------------------


def _releases(stack: RunningStack, candidate: str) -> dict[str, LoadedRelease[Any]]:
    """Both releases by id, the first one first."""
    store = ReleaseStore(ReleaseSettings(url=str(stack.folder / "releases")))
    names = sorted(store.list(), key=lambda name: name == candidate)
    return {name: load_release(store, name, MODEL) for name in names}


@dataclass(slots=True)
class Judged:
    """What came of scoring every hit again."""

    hits: int = 0
    off: int = 0
    worst: float = 0.0
    by_release: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.hits} hits scored again, {self.off} off, the worst by {self.worst:.6f}"


class Judge:
    """Scores hits offline: the cosine of seed and item in one release."""

    def __init__(
        self, products: Sequence[ProductUpserted], releases: Mapping[str, LoadedRelease[Any]]
    ) -> None:
        self._releases = releases
        self._row = {one.product_id: row for row, one in enumerate(products)}
        self._items = {
            name: self._encoded(name, [release.recipe.content(one) for one in products])
            for name, release in releases.items()
        }

    def _encoded(self, release_id: str, texts: list[str], *, query: bool = False) -> Vectors:
        found: Vectors = self._releases[release_id].encoder.encode_array(texts, query=query)
        return found

    def expected(self, release_id: str, seed: str | Vectors, item_ids: Sequence[str]) -> Vectors:
        """Cosines of a seed (an item, or a vector) and items, as the release has them."""
        items = self._items[release_id]
        vector = items[self._row[seed]] if isinstance(seed, str) else seed
        found: Vectors = items[[self._row[one] for one in item_ids]] @ vector
        return found

    def judge(self, asked: Sequence[Asked]) -> Judged:
        """Every hit of every answer."""
        judged = Judged()
        names = dict(zip(self._releases, ("first", "candidate"), strict=True))
        searches = [one for one in asked if "text" in one.body and one.status == HTTPStatus.OK]
        texts = {name: sorted({one.body["text"] for one in searches}) for name in names}
        vectors = {
            name: dict(zip(found, self._encoded(name, found, query=True), strict=True)) if found else {}
            for name, found in texts.items()
        }
        for one in asked:
            if one.status != HTTPStatus.OK:
                continue
            release_id, hits = one.answer["release_id"], one.answer["items"]
            by = judged.by_release
            by[names[release_id]] = by.get(names[release_id], 0) + 1
            seed = (
                vectors[release_id][one.body["text"]]
                if "text" in one.body
                else str(one.body["seeds"][0]["item_id"])
            )
            expected = self.expected(release_id, seed, [hit["item_id"] for hit in hits])
            for hit, score in zip(hits, expected, strict=True):
                difference = abs(hit["dimensions"]["content"]["score"] - float(score))
                judged.hits += 1
                judged.off += difference > TOLERANCE
                judged.worst = max(judged.worst, difference)
        return judged


class _NoEncoder:
    """Implements service.releases.Releases: both are there, neither is asked to encode."""

    def __init__(self, releases: Mapping[str, LoadedRelease[Any]]) -> None:
        self._releases = releases

    def loaded(self, release_id: str) -> LoadedRelease[Any]:
        """The release by name. Raises ReleaseNotLoaded."""
        if release_id not in self._releases:
            raise ReleaseNotLoaded(release_id)
        return self._releases[release_id]


def _through_the_alias(
    index: EdgeIndex, products: Sequence[ProductUpserted], releases: Mapping[str, LoadedRelease[Any]]
) -> list[Asked]:
    """The same queries where each call of the index goes through an alias that moves."""
    first, second = (next(one for one in index.collections() if release_of(one) == name) for name in releases)
    nobody = ItemStore(client=connect(RedisSettings(url="redis://127.0.0.1:1/0", timeout_seconds=0.5)))
    catalogue = Catalogue(
        index=MovingAlias(index, (first, second), through_alias=True),
        store=nobody,
        releases=_NoEncoder(releases),
        alias=LIVE_ALIAS,
    )
    engine = QueryEngine(catalogue=catalogue, settings=ServiceSettings())
    answered = []
    for product in [one for one in products if one.attributes["lot"] == STILL][:50]:
        body = {
            "seeds": [{"item_id": product.product_id}],
            "weights": {"content": 1.0},
            "filter": {"attributes": {"lot": [STILL]}},
        }
        answer = engine.similar(SimilarRequest.model_validate(body), Timings()).model_dump(mode="json")
        answered.append(Asked("control", body, status=HTTPStatus.OK, answer=answer))
    return answered
