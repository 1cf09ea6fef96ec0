"""A shop that lives, for the proof that a rebuild from its topics comes to the same.

Reads   what the consumers read
Writes  everything under its namespace: topics, state, collections, the alias

The consumers are put together by app/runners.py, as a process would; the encoder is a fake one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from fastapi import FastAPI

from adapters.index_port import VectorIndex, collection_name
from adapters.kafka import KafkaSettings
from adapters.kafka_admin import open_admin
from adapters.kafka_reader import Partition
from adapters.redis_client import RedisSettings, connect
from adapters.redis_nodes import RedisNodes
from adapters.state_export import export_state
from app.rebuild import FromLog
from app.runners import STATE_CONSUMERS, embeddings_runner, reconciler, state_runner
from app.settings import Settings
from app.wiring import alias_of, live_state, make_topics, open_behaviour, open_publisher, open_store
from consumers.behaviour import BehaviourHandler
from consumers.erasures import erasure_key
from consumers.products import ProductsHandler
from consumers.reviews import ReviewsHandler
from consumers.runner import Runner
from model.text import ProductText
from schemas.events import (
    ProductDeleted,
    ProductUpserted,
    ReviewPosted,
    ReviewRemoved,
    UserErased,
    UserEvent,
)
from schemas.vectors import Point, SparseVector, item_vectors
from service.api import create_app
from service.settings import ServiceSettings
from tests.service.shop import StaticRelease, StaticReleases, manifest
from tests.support.draining import Names, Shop, ShopEvent, wait_for_commits, wait_until_drained
from tests.support.fake_encoder import FakeEncoder
from tests.support.pipeline import QUICK_BEHAVIOUR, QUICK_LOOP, RunnerThread
from tests.support.shoppers import Shoppers

RELEASE = "test"
PARTITIONS = 2
ITEMS, REVIEWERS = 14, 20
#: Shoppers who asked to be forgotten before anything of theirs came.
FORGOTTEN = ("u1", "u4")


def quick(kafka: KafkaSettings, redis_url: str, namespace: str) -> Settings:
    """Production's settings, but for commits and announcements, which tests do not wait for."""
    return Settings(
        namespace=namespace,
        kafka=kafka,
        redis=RedisSettings(url=redis_url),
        loop=QUICK_LOOP,
        behaviour=QUICK_BEHAVIOUR,
    )


def prompt_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody kills Redis in such a test, so commits need not trail what it may lose."""
    for handler in (ProductsHandler, ReviewsHandler, BehaviourHandler):
        monkeypatch.setattr(handler, "commit_delay_seconds", 0.0)


class LivingShop:
    """Producer, live consumers, service."""

    def __init__(self, settings: Settings, index: VectorIndex) -> None:
        self.settings = settings
        self.index = index
        self.encoder, self.recipe = FakeEncoder(), ProductText()
        self.names = Names(settings.namespace)
        make_topics(settings)
        self.collection = collection_name(RELEASE, namespace=settings.namespace)
        index.ensure_collection(self.collection, item_vectors(self.encoder.dimension))
        index.set_alias(alias_of(settings), self.collection)
        self.publisher = open_publisher(settings, "test")
        self.shop = Shop(settings.kafka, self.names)
        self.running: dict[str, RunnerThread] = {}

    # --- consumers ---------------------------------------------------------------------------------

    def start(self, *consumers: str) -> None:
        """Start (again) consumers of whatever is live; without names, all of them."""
        for consumer in consumers or (*STATE_CONSUMERS, "embeddings"):
            runner = (
                self._embeddings()
                if consumer == "embeddings"
                else state_runner(consumer, self.settings, publisher=self.publisher)
            )
            self.running[consumer] = RunnerThread(runner, f"test-{consumer}")

    def _embeddings(self) -> Runner[Any]:
        collection = self.index.resolve(alias_of(self.settings))
        assert collection is not None
        return embeddings_runner(
            self.settings,
            store=open_store(self.settings),
            publisher=self.publisher,
            index=self.index,
            collection=collection,
            encoder=self.encoder,
            recipe=self.recipe,
        )

    def stop(self) -> None:
        """Stop what runs."""
        for thread in self.running.values():
            thread.stop()
        self.running.clear()

    def close(self) -> None:
        """Stop, and let go of the broker."""
        self.stop()
        self.publisher.close()

    def read_again(self, consumer: str) -> int:
        """Stop a consumer, set its group back to the beginning, start it; how many records that were."""
        self.running[consumer].stop()
        group = self.names.group(consumer)
        topic = {"products": "products", "reviews": "reviews", "behaviour": "events"}[consumer]
        name = getattr(self.names.topics, topic).name
        ends = {part: end for part, end in self.shop.ends.items() if part.topic == name}
        _commit(self.settings.kafka, group, dict.fromkeys(ends, 0))
        self.start(consumer)
        return sum(ends.values())

    def cut(self, *topics: str) -> None:
        """As retention does: what has been published to these so far is gone."""
        ends = [
            TopicPartition(part.topic, part.number, end)
            for part, end in self.shop.ends.items()
            if part.topic in topics
        ]
        admin = open_admin(self.settings.kafka)
        for future in admin.delete_records(ends).values():
            future.result(20.0)

    def drain(self, timeout_seconds: float = 150.0) -> None:
        """Return once everything that was published is in the live state and collection, and committed."""
        deadline = time.monotonic() + timeout_seconds
        self.shop.flush(timeout_seconds)
        events = self.names.topics.events.name
        ends = {part: end for part, end in self.shop.ends.items() if part.topic == events}
        wait_for_commits(
            self.settings.kafka, self.names.behaviour_group, ends, deadline=deadline, check=self._check
        )
        store = open_behaviour(self.settings)
        while store.waiting() > 0:
            assert time.monotonic() < deadline, "items still wait to be announced"
            time.sleep(0.02)
        wait_until_drained(
            self.settings.kafka,
            self.names,
            self.shop,
            partitions=PARTITIONS,
            timeout_seconds=timeout_seconds,
            check=self._check,
        )

    def reconcile(self) -> int:
        """As `simstream reconcile`; how many points were outdated."""
        found = reconciler(
            self.settings,
            store=open_store(self.settings),
            publisher=self.publisher,
            index=self.index,
            collection=self.collection,
            recipe=self.recipe,
            weigh=True,
        ).run(accept_deletes=ITEMS)
        return found.outdated

    def _check(self) -> None:
        for thread in self.running.values():
            thread.check()

    def rebuild(self) -> FromLog:
        """A rebuild of all this."""
        return FromLog(
            self.settings,
            index=self.index,
            release_id=RELEASE,
            encoder=self.encoder,
            recipe=self.recipe,
            publisher=self.publisher,
            say=print,
        )

    # --- what there is -----------------------------------------------------------------------------

    def app(self) -> FastAPI:
        """The service over it, as app/stack.py puts it together."""
        made = manifest(RELEASE, self.encoder.dimension)
        state = live_state(self.settings)
        return create_app(
            index=self.index,
            store=state,
            releases=StaticReleases({RELEASE: StaticRelease(self.encoder, self.recipe, made)}),
            settings=ServiceSettings(),
            alias=alias_of(self.settings),
            behaviour=state,
        )

    def export(self, generation: int) -> list[bytes]:
        """The canonical state of a generation."""
        nodes = RedisNodes(connect(self.settings.redis))
        return list(export_state(nodes=nodes, namespace=self.settings.namespace, generation=generation))

    def points(self, collection: str) -> dict[str, Point]:
        """Every live point with its vectors."""
        ids = [point.product_id for page in self.index.scan(collection) for point in page]
        found = self.index.fetch(collection, ids, vectors=True)
        return {one: point for one, point in found.items() if not point.payload.get("deleted")}


def _commit(settings: KafkaSettings, group: str, offsets: dict[Partition, int]) -> None:
    asking = Consumer({**settings.client_config("test-rewind"), "group.id": group})
    deadline = time.monotonic() + 20.0
    asked = [TopicPartition(part.topic, part.number, offset) for part, offset in offsets.items()]
    try:
        while True:
            try:
                asking.commit(offsets=asked, asynchronous=False)
                return
            except KafkaException:  # a member is still leaving
                assert time.monotonic() < deadline, "the group did not become empty"
                time.sleep(0.2)
    finally:
        asking.close()


@contextmanager
def living(settings: Settings, index: VectorIndex) -> Iterator[LivingShop]:
    """A shop that is closed in the end."""
    shop = LivingShop(settings, index)
    try:
        yield shop
    finally:
        shop.close()


# --- what happens in it ------------------------------------------------------------------------------


def erase(shop: LivingShop, users: Sequence[str], *, at: datetime) -> None:
    """Shoppers ask to be forgotten."""
    for user in users:
        shop.shop.send(
            shop.names.topics.erasures.name,
            key=erasure_key(user, shop.settings.erasures.secret),
            value=UserErased(erased_at=at).model_dump_json().encode(),
        )
    shop.shop.flush()


def mixture(draw: Random, *, count: int, now: datetime, first: int = 0) -> Iterator[ShopEvent]:
    """Products, reviews and events, mixed: late revisions, removals before posts, duplicates, deletions."""
    shoppers = Shoppers(draw, items=ITEMS, shoppers=40, now=now)
    products = [_product(draw, number, now) for number in range(ITEMS)]
    yield from products
    sent: list[ShopEvent] = []
    for number in range(first, first + count):
        kind = draw.random()
        event: ShopEvent
        if sent and kind < 0.08:
            event = draw.choice(sent[-30:])
        elif kind < 0.2:
            event = _product(draw, draw.randrange(ITEMS), now)
        elif kind < 0.45:
            event = _review(draw, number, now)
        else:
            event = _renamed(shoppers.event(), first)
        sent.append(event)
        yield event


def _renamed(event: UserEvent, first: int) -> UserEvent:
    """Another stretch of the same stream has other event ids."""
    return event.model_copy(update={"event_id": f"{first}-{event.event_id}"})


def _product(draw: Random, number: int, now: datetime) -> ProductUpserted | ProductDeleted:
    revision = draw.randrange(1, 1_000)
    if number >= ITEMS - 2 and draw.random() < 0.5:
        return ProductDeleted(product_id=f"p{number}", revision=revision, occurred_at=now)
    return ProductUpserted(
        product_id=f"p{number}",
        revision=revision,
        occurred_at=now - timedelta(seconds=draw.randrange(1_000)),
        title=f"Lamp number {number} of {draw.choice(('brass', 'steel', 'glass'))}",
        price=f"{draw.randrange(1, 90)}.90",
    )


def _review(draw: Random, number: int, now: datetime) -> ReviewPosted | ReviewRemoved:
    # A review is about one product, whatever its revision.
    review = draw.randrange(60)
    fields = {
        "review_id": f"r{review}",
        "product_id": f"p{review % ITEMS}",
        "revision": draw.randrange(1, 50),
        "occurred_at": now - timedelta(days=draw.randrange(300)),
    }
    if draw.random() < 0.2:
        return ReviewRemoved.model_validate(fields)
    return ReviewPosted.model_validate(
        fields
        | {
            "user_id": f"u{draw.randrange(REVIEWERS)}",
            "rating": draw.randrange(6),
            "text": f"It lights room {number} evenly. The switch is {draw.choice(('firm', 'loose'))}.",
            "helpful_votes": draw.randrange(9),
        }
    )


# --- how two of them compare -------------------------------------------------------------------------


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two dense vectors."""
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def unlike(live: dict[str, Point], rebuilt: dict[str, Point]) -> list[str]:
    """What differs between two sets of points: sparse vectors at all, dense ones below a cosine of 0.9999."""
    found = [f"{one}: only one has it" for one in sorted(live.keys() ^ rebuilt.keys())]
    for product_id in sorted(live.keys() & rebuilt.keys()):
        ours, theirs = live[product_id].vectors, rebuilt[product_id].vectors
        found += [f"{product_id} {name}: only one has it" for name in sorted(ours.keys() ^ theirs.keys())]
        for name in sorted(ours.keys() & theirs.keys()):
            one, other = ours[name], theirs[name]
            if isinstance(one, SparseVector) or isinstance(other, SparseVector):
                equal = one == other
            else:
                equal = cosine(one, other) >= 0.9999
            if not equal:
                found.append(f"{product_id} {name}")
    return found
