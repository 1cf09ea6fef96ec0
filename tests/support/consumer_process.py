"""One consumer in a process of its own, for tests that kill and pause: `python -m ...consumer_process`.

Reads, writes  what its consumer does, under `--namespace` (names: tests/support/draining.py)
Prints         READY once the group has given it partitions; on a fault its own line before it acts

`--fault` switches one guard off, for negative controls:

commit-before-write       settles records before anything is written, and commits at once
no-ticket                 writes points unconditionally (every process of the test has to be given it)
dead-letter-on-transient  puts records aside while Redis is away, and commits without asking it (products)
crash-before-announce:N   ends without a word between the write to Redis and the announcement of batch N

`behaviour` has faults of its own: tests/support/behaviour_faults.py.

`--tell` prints what a proof counts: the log, and `TOOK topic partition first last` before a batch is handled.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from adapters.index import IndexSettings, open_index
from adapters.index_port import VectorIndex
from adapters.kafka import KafkaSettings, Publisher, Record
from adapters.kafka_reader import GroupReader, Partition
from adapters.redis_client import Client, RedisSettings, connect
from adapters.redis_items import Applied, ItemStore, ProductWrite
from adapters.redis_nodes import RedisNodes
from adapters.redis_reviews import ReviewApplied, ReviewStore, ReviewWrite
from consumers.dead_letters import DeadLetters
from consumers.embeddings import EmbeddingsHandler, EmbeddingsSettings
from consumers.handler import Handler
from consumers.products import ProductChange, ProductsHandler
from consumers.progress import Delivery
from consumers.reviews import ReviewsHandler, ReviewsSettings
from consumers.runner import Runner, RunnerSettings
from model.text import ProductText
from schemas.errors import Transient
from schemas.vectors import PayloadChange, Point, item_vectors
from tests.support.behaviour_faults import faulty_behaviour
from tests.support.draining import SESSION_TIMEOUT_SECONDS, Names
from tests.support.fake_encoder import FakeEncoder

CRASH = "crash-before-announce:"
COMMIT_FIRST = "commit-before-write"
NO_TICKET = "no-ticket"
GIVE_UP = "dead-letter-on-transient"
#: How long commit-before-write leaves between the commit and the write: on a busy machine a look at commits
#: takes a second.
FAULT_PAUSE_SECONDS = 2.0


class SlowEncoder(FakeEncoder):
    """Takes its time, so that a kill finds texts in hand."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def encode(
        self, texts: Sequence[str], *, query: bool = False, background: bool = False
    ) -> list[list[float]]:
        """As FakeEncoder, after a pause."""
        time.sleep(self._seconds)
        vectors = super().encode(texts, query=query, background=background)
        # Nobody can ask this process what it encoded, and its memory is measured.
        self.texts.clear()
        self.queries.clear()
        return vectors


class CrashingStore(ItemStore):
    """Ends the process after the Nth batch is in Redis and before anything about it is announced."""

    def __init__(self, *, batches: int, **more: Any) -> None:
        super().__init__(**more)
        self._left = batches

    def apply(self, writes: Sequence[ProductWrite]) -> list[Applied]:
        """As ItemStore, and then the end."""
        answer = super().apply(writes)
        self._left -= 1
        if self._left <= 0:
            print(f"CRASH before announcing {len(writes)} writes", flush=True)
            os._exit(137)
        return answer


class CrashingReviews(ReviewStore):
    """The same for reviews: their texts are written, neither digest nor announcement is."""

    def __init__(self, *, batches: int, **more: Any) -> None:
        super().__init__(**more)
        self._left = batches

    def apply(self, writes: Sequence[ReviewWrite]) -> list[ReviewApplied]:
        """As ReviewStore, and then the end."""
        answer = super().apply(writes)
        self._left -= 1
        if self._left <= 0:
            print(f"CRASH before announcing {len(writes)} writes", flush=True)
            os._exit(137)
        return answer


class TicketlessIndex:
    """Every write carries the same ticket, so none is ever refused."""

    def __init__(self, index: VectorIndex) -> None:
        self._index = index

    def upsert(self, collection: str, points: Sequence[Point], *, ticket: int) -> None:
        """As the index, whoever wrote later."""
        self._index.upsert(collection, points, ticket=1)

    def change_payloads(self, collection: str, changes: Sequence[PayloadChange], *, ticket: int) -> set[str]:
        """As the index, whatever stands there now."""
        found = self._index.fetch(collection, [one.product_id for one in changes], vectors=False)
        anyhow = [
            replace(one, before=found[one.product_id].payload) for one in changes if one.product_id in found
        ]
        return self._index.change_payloads(collection, anyhow, ticket=1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)


class CommitFirst:
    """Settles what it is handed before the handler has done anything."""

    def __init__(self, handler: Handler[Any]) -> None:
        self._handler = handler
        self.commit_delay_seconds = 0.0

    def handle(self, deliveries: Sequence[Delivery[Any]]) -> None:
        """Settle, let the loop commit, then work."""
        for delivery in deliveries:
            delivery.settle()
        time.sleep(FAULT_PAUSE_SECONDS)
        self._handler.handle(deliveries)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)


class GiveUp:
    """Takes a store that is away for bad records. For products: its events say where their records stood."""

    def __init__(self, handler: ProductsHandler, dead_letters: DeadLetters) -> None:
        self._handler = handler
        self._dead_letters = dead_letters
        self._records: dict[tuple[int, int], Record] = {}

    def decode(self, record: Record) -> ProductChange:
        """As the handler, remembered."""
        change = self._handler.decode(record)
        self._records[record.partition, record.offset] = record
        return change

    def handle(self, deliveries: Sequence[Delivery[ProductChange]]) -> None:
        """Work, once; what was not done then is put aside."""
        records = [self._of(delivery) for delivery in deliveries]
        try:
            self._handler.handle(deliveries)
        except Transient as error:
            for delivery, record in zip(deliveries, records, strict=True):
                self._dead_letters.put(record, str(error), on_done=delivery.settle)

    def _of(self, delivery: Delivery[ProductChange]) -> Record:
        position = delivery.event.write.position
        return self._records.pop((position.partition, position.offset))

    def store_epoch(self) -> str | None:
        """Nobody's: commits wait for no store."""
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)


class Telling:
    """Says which records it is about to handle, so that whoever kills it knows what was in flight."""

    def __init__(self, handler: Handler[Any]) -> None:
        self._handler = handler
        self._read: dict[Partition, list[int]] = {}
        # decode runs on the loop's thread, handle on the worker's
        self._lock = threading.Lock()

    def decode(self, record: Record) -> Any:
        """As the handler, remembered."""
        with self._lock:
            self._read.setdefault(Partition(record.topic, record.partition), []).append(record.offset)
        return self._handler.decode(record)

    def handle(self, deliveries: Sequence[Delivery[Any]]) -> None:
        """Tell, then work. A batch that is tried again is told once."""
        with self._lock:
            read, self._read = self._read, {}
        for part, offsets in read.items():
            print(f"TOOK {part.topic} {part.number} {min(offsets)} {max(offsets)}", flush=True)
        self._handler.handle(deliveries)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the consumer until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("consumer", choices=["products", "reviews", "embeddings", "behaviour"])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--redis-cluster", action="store_true", help="the URL names one node of a cluster")
    parser.add_argument("--index", default="", help="http://.. of the test server; embeddings only")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--fault", default="")
    parser.add_argument("--encode-seconds", type=float, default=0.0, help="how long each encode takes")
    parser.add_argument("--commit-delay-seconds", type=float, default=None, help="default 3")
    parser.add_argument("--commit-interval-seconds", type=float, default=0.05)
    parser.add_argument("--write-seconds", type=float, default=0.0, help="behaviour: how long a write takes")
    parser.add_argument("--batch-records", type=int, default=100)
    parser.add_argument("--tell", action="store_true", help="print the log and what is taken in hand")
    asked = parser.parse_args(arguments)
    if asked.tell:
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(name)s %(message)s")
        logging.getLogger("httpx").setLevel(logging.WARNING)

    runner = _runner(asked)
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())

    def announce() -> None:
        runner.assigned.wait()
        print("READY", flush=True)

    threading.Thread(target=announce, daemon=True).start()
    runner.run()


def _runner(asked: argparse.Namespace) -> Runner[Any]:
    settings = KafkaSettings(
        bootstrap_servers=asked.bootstrap,
        options={
            "session.timeout.ms": str(round(SESSION_TIMEOUT_SECONDS * 1000)),
            "heartbeat.interval.ms": "1000",
        },
    )
    names = Names(asked.namespace)
    client = connect(RedisSettings(url=asked.redis, cluster=asked.redis_cluster))
    fault: str = asked.fault
    publisher = Publisher(settings, client_id=f"test-{asked.consumer}-{os.getpid()}")
    dead_letters = DeadLetters(publisher=publisher)
    handler: Any
    if asked.consumer == "products":
        handler = ProductsHandler(store=_store(asked, client), publisher=publisher, topics=names.topics)
        if fault == GIVE_UP:
            handler = GiveUp(handler, dead_letters)
    elif asked.consumer == "reviews":
        reviews = ReviewStore(client=client, namespace=asked.namespace)
        if fault.startswith(CRASH):
            batches = int(fault.removeprefix(CRASH))
            reviews = CrashingReviews(batches=batches, client=client, namespace=asked.namespace)
        handler = ReviewsHandler(
            store=reviews,
            publisher=publisher,
            topics=names.topics,
            settings=ReviewsSettings(),
            hash_key=b"test",
        )
    elif asked.consumer == "behaviour":
        handler = faulty_behaviour(
            publisher=publisher,
            topics=names.topics,
            nodes=RedisNodes(client),
            namespace=asked.namespace,
            fault=fault,
            write_seconds=asked.write_seconds,
        )
    else:
        index: Any = open_index(IndexSettings(url=asked.index))
        encoder = SlowEncoder(asked.encode_seconds)
        index.ensure_collection(names.collection, item_vectors(encoder.dimension))
        handler = EmbeddingsHandler(
            store=_store(asked, client),
            index=TicketlessIndex(index) if fault == NO_TICKET else index,
            collection=names.collection,
            encoder=encoder,
            recipe=ProductText(),
            publisher=publisher,
            topics=names.topics,
            settings=EmbeddingsSettings(),
        )
    if asked.commit_delay_seconds is not None:
        handler.commit_delay_seconds = asked.commit_delay_seconds
    if fault == COMMIT_FIRST:
        handler = CommitFirst(handler)
    if asked.tell:
        handler = Telling(handler)
    return Runner(
        reader=GroupReader(
            settings, group=names.group(asked.consumer), client_id=f"test-{asked.consumer}-{os.getpid()}"
        ),
        handler=handler,
        dead_letters=dead_letters,
        settings=RunnerSettings(
            commit_interval_seconds=asked.commit_interval_seconds, batch_records=asked.batch_records
        ),
    )


def _store(asked: argparse.Namespace, client: Client) -> ItemStore:
    fault: str = asked.fault
    if fault.startswith(CRASH):
        batches = int(fault.removeprefix(CRASH))
        return CrashingStore(batches=batches, client=client, namespace=asked.namespace)
    if fault not in ("", COMMIT_FIRST, NO_TICKET, GIVE_UP):
        raise SystemExit(
            f"unknown --fault {fault!r}: one of {COMMIT_FIRST}, {NO_TICKET}, {GIVE_UP}, {CRASH}N"
        )
    return ItemStore(client=client, namespace=asked.namespace)


if __name__ == "__main__":
    main()
