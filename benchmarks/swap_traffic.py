"""What goes on while a release is swapped: queries that are due whatever happens, and events that must show.

Reads   what the stack answers
Writes  product events
Never   waits with the next query for the one before, which would hide how long a late one took
"""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from random import Random
from typing import Any

from adapters.index_edge import EdgeIndex
from adapters.kafka import Publisher
from benchmarks.stack import PRODUCTS, RunningStack
from schemas.events import ProductUpserted

SEED = 17
QUERIES_PER_SECOND = 50.0
PRICES_PER_SECOND = 20.0
TEXTS_PER_SECOND = 2.0
NEW_ITEMS_PER_SECOND = 1.0
CONNECTIONS = 16
#: Newest events that the live collection has to show before the stack is stopped and all are counted.
SETTLED_BY = 200
STILL, MOVING = "still", "moving"


@dataclass(slots=True)
class Asked:
    """One query and what came of it. `phase` is what the stack was doing when it was due."""

    phase: str
    body: dict[str, Any]
    latency_ms: float = 0.0
    status: int = 0
    answer: dict[str, Any] = field(default_factory=dict)


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
