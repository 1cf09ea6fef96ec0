"""What the failure proofs share: consumers as processes, servers that fail, a shop and its oracle.

Reads   the logs of its processes, commits of their groups, the index
Writes  product events; everything lies in the folder it is given
Never   trusts the code under test for the truth: the oracle is a dict of the newest event by revision
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import numpy as np

from adapters.index import IndexSettings, open_index
from adapters.kafka import KafkaSettings
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.kafka_reader import Partition
from app.children import Child
from app.local import LocalRedis
from consumers.redrive import read_dead_letters
from model.text import ProductText
from schemas.events import ItemChanged, ProductDeleted, ProductEvent, ProductUpserted
from schemas.items import context_fingerprint
from schemas.vectors import CONTENT, Point
from tests.support.draining import Names, Shop, ShopEvent, commits_of, wait_until_drained
from tests.support.fake_encoder import FakeEncoder
from tests.support.qdrant_rest import QdrantRest

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
_TOOK = re.compile(r"^TOOK (\S+) (\d+) (\d+) (\d+)$", re.M)
_SIDES = ("crimson", "walnut", "marine", "velvet", "copper", "linen", "granite", "amber", "cobalt", "birch")
_KINDS = ("lamp", "kettle", "jacket", "sofa", "drill", "router", "tent", "violin", "scooter", "mixer")


class Catalogue:
    """A seeded shop: updates, deletes, events that come too late; and what must be true in the end."""

    def __init__(self, seed: int, items: int, *, prefix: str = "item") -> None:
        self._draw = Random(seed)
        self._ids = [f"{prefix}-{number}" for number in range(items)]
        self._now = datetime.now(UTC)
        #: The newest event of each product, by revision: the oracle.
        self.newest: dict[str, ProductEvent] = {}

    def first(self) -> Iterator[ProductEvent]:
        """Every product once."""
        for product_id in self._ids:
            yield self._put(self._upsert(product_id, self._next(product_id), text=True))

    def again(self, *, text: bool) -> Iterator[ProductEvent]:
        """A newer price for every live product, and a new text or none."""
        for product_id in self._ids:
            yield self._put(self._upsert(product_id, self._next(product_id), text=text))

    def events(self, count: int) -> Iterator[ProductEvent]:
        """Texts, prices, deletions, returns; every tenth event is older than what its product has seen."""
        for _ in range(count):
            product_id = self._draw.choice(self._ids)
            newest, dice = self.newest.get(product_id), self._draw.random()
            if newest is not None and dice < 0.1:
                # Revisions go by two: the one in between is a change that was overtaken.
                yield self._upsert(product_id, newest.order - 1, text=True)
            elif newest is not None and dice < 0.2:
                gone = ProductDeleted(
                    product_id=product_id, revision=self._next(product_id), occurred_at=self._now
                )
                yield self._put(gone)
            else:
                yield self._put(self._upsert(product_id, self._next(product_id), text=dice < 0.6))

    def _next(self, product_id: str) -> int:
        newest = self.newest.get(product_id)
        return 2 if newest is None else newest.order + 2

    def _put(self, event: ProductEvent) -> ProductEvent:
        self.newest[event.product_id] = event
        return event

    def _upsert(self, product_id: str, revision: int, *, text: bool) -> ProductUpserted:
        before = self.newest.get(product_id)
        title = before.title if isinstance(before, ProductUpserted) and not text else None
        side, kind = self._draw.choice(_SIDES), self._draw.choice(_KINDS)
        return ProductUpserted(
            product_id=product_id,
            revision=revision,
            occurred_at=self._now,
            title=title or f"{side} {kind} {product_id} edition {revision}",
            # Never twice the same: a point that shows an older one differs from the oracle.
            price=Decimal(revision) + Decimal("0.25"),
            currency="EUR",
            in_stock=True,
        )


@dataclass(slots=True)
class Difference:
    """Items whose point is not what the oracle says. `lost`: missing or hidden. `stale`: not the newest."""

    items: int = 0
    deleted: int = 0
    lost: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    resurrected: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether the index is what it should be."""
        return not (self.lost or self.stale or self.resurrected)

    def __str__(self) -> str:
        counts = f"lost {len(self.lost)}, stale {len(self.stale)}, resurrected {len(self.resurrected)}"
        return f"{self.items} items ({self.deleted} deleted): {counts}"


class ConsumerProcess(Child):
    """One consumer. `start` does not wait for it: see `wait_assigned`."""

    stop_timeout_seconds = 20.0

    def __init__(self, folder: Path, name: str, arguments: Sequence[str]) -> None:
        super().__init__(folder)
        self.name = name
        self.group = ""
        self._arguments = list(arguments)
        self.extra: list[str] = []

    def command(self) -> list[str]:
        arguments = ["-m", "tests.support.consumer_process", *self._arguments, "--tell", *self.extra]
        return [sys.executable, *arguments]

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        return {**os.environ, "PYTHONPATH": path}

    def ready(self) -> bool:
        return True

    def said(self) -> str:
        """What this run of the process has printed so far."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def wait_said(self, words: str, timeout_seconds: float = 60.0) -> None:
        """Wait until it has printed `words`. Raises AssertionError, with its last lines, when it does not."""
        deadline = time.monotonic() + timeout_seconds
        while words not in self.said():
            assert self.running, f"{self.name} ended: {self.said()[-2000:]}"
            assert time.monotonic() < deadline, f"{self.name} never said {words!r}: {self.said()[-2000:]}"
            time.sleep(0.05)

    def wait_assigned(self) -> None:
        """Wait until the group has given it partitions."""
        self.wait_said("READY")

    def wait_ended(self, timeout_seconds: float) -> bool:
        """Whether it ends by itself in time."""
        deadline = time.monotonic() + timeout_seconds
        while self.running and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.running

    def taken(self, *, all_runs: bool = False) -> list[tuple[Partition, range]]:
        """Records it has taken in hand, in this run or in all of them."""
        text = self.log_file.read_text(errors="replace") if all_runs else self.said()
        return [
            (Partition(topic, int(number)), range(int(first), int(last) + 1))
            for topic, number, first, last in _TOOK.findall(text)
        ]

    def assignments(self) -> int:
        """How often the group has given it partitions, in this run."""
        return self.said().count("partitions_assigned")

    def memory_bytes(self, what: str = "VmRSS") -> int:
        """Resident memory now, or with `VmHWM` the most there has been."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(rf"{what}:\s+(\d+) kB", status)[0]) * 1024


class World:
    """Redis, the index server, topics, and the consumers a proof starts; all gone at the end."""

    #: Whether a proof needs the index.
    indexed = True
    partitions = PARTITIONS

    def __init__(self, folder: Path, bootstrap: str, namespace: str) -> None:
        self.folder = folder
        self.names = Names(namespace)
        self.settings = KafkaSettings(bootstrap_servers=bootstrap)
        self.redis = LocalRedis(folder / "redis")
        self.server = QdrantRest(folder / "index")
        self.processes: list[ConsumerProcess] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            opening.enter_context(self.stores())
            if self.indexed:
                opening.enter_context(self.server)
            ensure_topics(
                open_admin(self.settings),
                self.names.declared(),
                partitions=self.partitions,
                replication_factor=1,
            )
            self.shop = Shop(self.settings, self.names)
            if self.indexed:
                self.index = open_index(IndexSettings(url=self.server.url))
                opening.callback(self.index.close)
            opening.callback(self._stop_processes)
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def stores(self) -> AbstractContextManager[object]:
        """The Redis of this proof, to be started."""
        return self.redis

    def redis_arguments(self) -> list[str]:
        """How a consumer is told of it."""
        return ["--redis", self.redis.url]

    def _stop_processes(self) -> None:
        for process in self.processes:
            process.kill()  # a proof has drained what it wanted to see
            process.stop()

    def consumer(self, consumer: str, *more: str, index_url: str = "") -> ConsumerProcess:
        """Start one more process of `products`, `reviews`, `embeddings` or `behaviour`."""
        arguments = [consumer, "--bootstrap", self.settings.bootstrap_servers, *self.redis_arguments()]
        arguments += ["--namespace", self.names.namespace, *more]
        if self.indexed:
            arguments += ["--index", index_url or self.server.url]
        name = f"{consumer}-{sum(one.name.startswith(consumer) for one in self.processes) + 1}"
        process = ConsumerProcess(self.folder / "consumers", name, arguments)
        process.group = self.names.group(consumer)
        self.processes.append(process)
        process.start()
        return process

    def publish(self, events: Iterable[ShopEvent], *, seconds: float = 0.0, count: int = 0) -> int:
        """Events of the shop, `count` of them spread over `seconds`; how many."""
        started, sent = time.monotonic(), 0
        for event in events:
            self.shop.publish([event])
            sent += 1
            if count and sent % 10 == 0:
                time.sleep(max(0.0, started + seconds * sent / count - time.monotonic()))
        return sent

    def hint(self, product_ids: Iterable[str]) -> None:
        """Hints on the live lane, as `simstream reconcile` announces them."""
        now = datetime.now(UTC)
        for product_id in product_ids:
            body = ItemChanged(product_id=product_id, occurred_at=now).model_dump_json().encode()
            self.shop.send(self.names.topics.changed.name, key=product_id, value=body)

    def publishing(self, events: Iterable[ShopEvent], *, seconds: float, count: int) -> threading.Thread:
        """The same on a thread, which has been started."""
        thread = threading.Thread(
            target=self.publish, args=(events,), kwargs={"seconds": seconds, "count": count}, daemon=True
        )
        thread.start()
        return thread

    def drain(self, timeout_seconds: float = 60.0) -> None:
        """Wait until everything published is in the index and committed."""
        wait_until_drained(
            self.settings, self.names, self.shop, partitions=self.partitions, timeout_seconds=timeout_seconds
        )

    def committed(self, group: str) -> dict[Partition, int]:
        """Commits of the group, 0 where there is none."""
        topics = [topic.name for topic in self.names.declared() if not topic.name.endswith(".dlq")]
        parts = [Partition(topic, number) for topic in topics for number in range(self.partitions)]
        return commits_of(self.settings, group, parts)

    def in_flight(self, process: ConsumerProcess) -> int:
        """Records that this run has taken in hand and that its group has not committed."""
        commits = self.committed(process.group)
        taken = {(part, offset) for part, offsets in process.taken() for offset in offsets}
        return sum(1 for part, offset in taken if offset >= commits[part])

    def redelivered(self) -> tuple[int, int]:
        """(records, deliveries beyond the first): what the groups have handled more than once so far."""
        times: dict[tuple[str, Partition, int], int] = {}
        for process in self.processes:
            for part, offsets in process.taken(all_runs=True):
                for offset in offsets:
                    key = (process.group, part, offset)
                    times[key] = times.get(key, 0) + 1
        again = [count for count in times.values() if count > 1]
        return len(again), sum(again) - len(again)

    def dead_letters(self) -> int:
        """How many dead letters there are, of any topic."""
        topics = self.names.topics
        inputs = (
            topics.products,
            topics.reviews,
            topics.events,
            topics.changed,
            topics.changed_bulk,
        )
        return sum(len(read_dead_letters(self.settings, one.name)) for one in inputs)

    def compare(self, *catalogues: Catalogue) -> Difference:
        """Every item's point against the oracle: revision, fingerprints and the vector itself."""
        newest = {key: event for one in catalogues for key, event in one.newest.items()}
        points: dict[str, Point] = {}
        for start in range(0, len(newest), 256):
            page = list(newest)[start : start + 256]
            points |= self.index.fetch(self.names.collection, page, vectors=True)
        return difference(newest, points)


def difference(newest: Mapping[str, ProductEvent], points: Mapping[str, Point]) -> Difference:
    """Every item's point against the newest event of its product."""
    found = Difference(items=len(newest))
    for product_id, event in newest.items():
        point = points.get(product_id)
        live = point is not None and not point.payload["deleted"]
        if isinstance(event, ProductDeleted):
            found.deleted += 1
            if live:
                found.resurrected.append(product_id)
        elif point is None or not live:
            found.lost.append(product_id)
        elif not _shows(point, event):
            found.stale.append(product_id)
    return found


_ENCODER, _RECIPE = FakeEncoder(), ProductText()


def _shows(point: Point, event: ProductUpserted) -> bool:
    """Whether the point was made from exactly this event."""
    prints = point.payload["fingerprints"]
    if point.payload["revision"] != event.order or prints["context"] != context_fingerprint(event):
        return False
    (vector,) = _ENCODER.encode([_RECIPE.content(event)])
    same: bool = np.allclose(np.asarray(point.vectors[CONTENT]), np.asarray(vector), atol=1e-3)
    return same and prints[CONTENT] == _RECIPE.fingerprint(event)
