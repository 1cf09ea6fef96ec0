"""The consumers and all they need, in this process, for tests and benchmarks.

Reads   nothing but what its topics carry
Writes  topics, keys and one collection, all under its namespace

The parts are the real ones; what a test may choose is the index, the encoder, and how far commits trail.
tests/support/consumer_process.py runs one of the consumers in a process of its own, under the same names.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from adapters.behaviour_reader import RedisBehaviourReader
from adapters.index_port import VectorIndex
from adapters.kafka import KafkaSettings, Publisher
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.kafka_reader import GroupReader
from adapters.redis_behaviour import BehaviourStore
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from adapters.redis_nodes import RedisNodes
from adapters.redis_reviews import ReviewStore
from consumers.behaviour import BehaviourHandler, BehaviourSettings
from consumers.dead_letters import DeadLetters
from consumers.debounce import DebounceSettings
from consumers.embeddings import EmbeddingsHandler, EmbeddingsSettings
from consumers.handler import Handler
from consumers.products import ProductsHandler
from consumers.reconcile import Reconciler
from consumers.redrive import DeadLetter, read_dead_letters
from consumers.reviews import ReviewsHandler, ReviewsSettings
from consumers.runner import Runner, RunnerSettings
from consumers.shopper_vectors import ShopperVectors, VectorSettings
from model.text import ProductText
from schemas.vectors import Encoder, Point, TextRecipe, item_vectors
from tests.support.draining import Names, Shop, ShopEvent, wait_for_commits, wait_until_drained
from tests.support.fake_encoder import FakeEncoder

#: Tests commit often; production's half second would only make them wait.
QUICK_LOOP = RunnerSettings(commit_interval_seconds=0.05)
QUICK_BEHAVIOUR = BehaviourSettings(
    debounce=DebounceSettings(delay_seconds=0.2, max_delay_seconds=0.5, interval_seconds=0.05)
)


class RunnerThread:
    """One runner on a thread, and what it died of."""

    def __init__(self, runner: Runner[Any], name: str) -> None:
        self.runner = runner
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.runner.run()
        except BaseException as error:  # noqa: BLE001  raised again by `check`, on the test's own thread
            self.failure = error

    def check(self) -> None:
        """Raise what the runner died of, if it did."""
        if self.failure is not None:
            raise self.failure

    def wait_ended(self, timeout_seconds: float) -> BaseException | None:
        """Wait for the end; what it died of, None after a clean one."""
        self._thread.join(timeout_seconds)
        assert not self._thread.is_alive(), f"{self._thread.name} still runs after {timeout_seconds} s"
        return self.failure

    def stop(self, timeout_seconds: float = 45.0) -> None:
        """Ask for a clean end and wait for it."""
        self.runner.stop()
        self.wait_ended(timeout_seconds)


class Pipeline:
    """Products and embeddings under one namespace; a context manager that starts and stops them.

    `start_reviews` and `start_behaviour` add the others.

    `products_commit_delay_seconds` is 0 unless a test asks for production's three seconds; it is that of all
    that write to Redis. `redis_cluster` says that the URL names a node of a cluster.
    """

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        redis_url: str,
        redis_cluster: bool = False,
        namespace: str,
        index: VectorIndex,
        encoder: Encoder | None = None,
        recipe: TextRecipe | None = None,
        loop: RunnerSettings = QUICK_LOOP,
        embeddings: EmbeddingsSettings | None = None,
        behaviour: BehaviourSettings = QUICK_BEHAVIOUR,
        products_commit_delay_seconds: float = 0.0,
        accept_poison: int = 0,
        max_message_bytes: int | None = None,
    ) -> None:
        self.names = Names(namespace, max_message_bytes)
        self.topics = self.names.topics
        self.settings = kafka
        self.index = index
        self.encoder = encoder if encoder is not None else FakeEncoder()
        self.recipe: TextRecipe = recipe if recipe is not None else ProductText()
        self.collection = self.names.collection
        self._loop = loop
        self._embeddings_settings = embeddings or EmbeddingsSettings()
        self._products_delay = products_commit_delay_seconds
        self._accept_poison = accept_poison
        ensure_topics(
            open_admin(kafka), self.names.declared(), partitions=kafka.partitions, replication_factor=1
        )
        index.ensure_collection(self.collection, item_vectors(self.encoder.dimension))
        self._redis = connect(RedisSettings(url=redis_url, cluster=redis_cluster))
        self._vectors = VectorSettings()
        self._behaviour = behaviour
        self.store = ItemStore(
            client=self._redis, namespace=namespace, behaviour_mark=self._vectors.mark, opinions=True
        )
        self.nodes = RedisNodes(self._redis)
        self.behaviour_store = BehaviourStore(
            nodes=self.nodes,
            namespace=namespace,
            sketch_members=behaviour.sketch.members,
            enough_share=behaviour.enough_share,
        )
        #: Figures, recent items and trending, as the service reads them.
        self.reader = RedisBehaviourReader(store=self.behaviour_store, hash_key=behaviour.sketch.key)
        self.review_store = ReviewStore(client=self._redis, namespace=namespace)
        self.publisher = Publisher(self.settings, client_id="test-pipeline")
        self.shop = Shop(self.settings, self.names)
        self.products: RunnerThread | None = None
        self.reviews: RunnerThread | None = None
        self.behaviour: RunnerThread | None = None
        self.embeddings: RunnerThread | None = None

    def __enter__(self) -> Pipeline:
        self.start_products()
        self.start_embeddings()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(check=kind is None)

    def _runner(self, handler: Handler[Any], group: str) -> Runner[Any]:
        return Runner(
            reader=GroupReader(self.settings, group=group, client_id=f"test-{handler.name}"),
            handler=handler,
            dead_letters=DeadLetters(publisher=self.publisher),
            settings=self._loop,
            accept_poison=self._accept_poison,
        )

    def products_handler(self) -> ProductsHandler:
        """The handler as this pipeline runs it."""
        handler = ProductsHandler(store=self.store, publisher=self.publisher, topics=self.topics)
        handler.commit_delay_seconds = self._products_delay
        return handler

    def start_products(self, handler: Handler[Any] | None = None) -> RunnerThread:
        """Start (again) the products consumer, with another handler if one is given."""
        runner = self._runner(handler or self.products_handler(), self.names.products_group)
        self.products = RunnerThread(runner, "test-products")
        return self.products

    def start_reviews(self) -> RunnerThread:
        """Start (again) the reviews consumer; its commits trail as those of products."""
        runner = self._runner(self.reviews_handler(), self.names.reviews_group)
        self.reviews = RunnerThread(runner, "test-reviews")
        return self.reviews

    def reviews_handler(self) -> ReviewsHandler:
        """The handler as this pipeline runs it."""
        handler = ReviewsHandler(
            store=self.review_store,
            publisher=self.publisher,
            topics=self.topics,
            settings=ReviewsSettings(),
            hash_key=b"test",
        )
        handler.commit_delay_seconds = self._products_delay
        return handler

    def start_behaviour(self) -> RunnerThread:
        """Start (again) the behaviour consumer; its commits trail as those of products."""
        runner = self._runner(self.behaviour_handler(), self.names.behaviour_group)
        self.behaviour = RunnerThread(runner, "test-behaviour")
        return self.behaviour

    def behaviour_handler(self) -> BehaviourHandler:
        """The handler as this pipeline runs it; its announcing thread has started."""
        handler = BehaviourHandler(
            store=self.behaviour_store,
            publisher=self.publisher,
            topics=self.topics,
            settings=self._behaviour,
        )
        handler.commit_delay_seconds = self._products_delay
        return handler

    def start_embeddings(self, handler: Handler[Any] | None = None) -> RunnerThread:
        """Start (again) the embeddings consumer, with another handler if one is given."""
        made = handler or EmbeddingsHandler(
            store=self.store,
            index=self.index,
            collection=self.collection,
            encoder=self.encoder,
            recipe=self.recipe,
            publisher=self.publisher,
            topics=self.topics,
            settings=self._embeddings_settings,
            behaviour=ShopperVectors(store=self.behaviour_store, settings=self._vectors),
        )
        self.embeddings = RunnerThread(self._runner(made, self.names.embeddings_group), "test-embeddings")
        return self.embeddings

    @property
    def _running(self) -> list[RunnerThread]:
        threads = (self.products, self.reviews, self.behaviour, self.embeddings)
        return [one for one in threads if one is not None]

    def check(self) -> None:
        """Raise what a runner died of, if one did."""
        for one in self._running:
            one.check()

    def publish(self, events: Iterable[ShopEvent], *, bulk: bool = False) -> int:
        """Events of a shop; how many. `wait_until_drained` waits for their effect."""
        return self.shop.publish(events, bulk=bulk)

    def send(self, key: str | bytes | None, value: bytes | None, **more: Any) -> None:
        """Any record at all onto the products topic."""
        self.shop.send(self.topics.products.name, key=key, value=value, **more)

    def wait_until_drained(self, timeout_seconds: float = 30.0) -> None:
        """Return once all that was published is searchable and committed; raises what a runner died of."""
        if self.behaviour is not None:
            self._wait_until_announced(timeout_seconds)
        wait_until_drained(
            self.settings,
            self.names,
            self.shop,
            partitions=self.settings.partitions,
            timeout_seconds=timeout_seconds,
            check=self.check,
        )

    def _wait_until_announced(self, timeout_seconds: float) -> None:
        """Return once the user events are committed, and the items that moved announced."""
        deadline = time.monotonic() + timeout_seconds
        self.shop.flush(timeout_seconds)
        group = self.names.behaviour_group
        ends = {part: end for part, end in self.shop.ends.items() if part.topic == self.topics.events.name}
        wait_for_commits(self.settings, group, ends, deadline=deadline, check=self.check)
        while (waiting := self.behaviour_store.waiting()) > 0:
            assert time.monotonic() < deadline, f"{waiting} items still wait to be announced"
            time.sleep(0.02)

    def reconciler(self, **more: Any) -> Reconciler:
        """Compares this pipeline's Redis with its collection."""
        return Reconciler(
            store=self.store,
            index=self.index,
            collection=self.collection,
            recipe=self.recipe,
            publisher=self.publisher,
            topics=self.topics,
            **more,
        )

    def point(self, product_id: str) -> Point | None:
        """The item's point with its vectors, tombstones included."""
        return self.index.fetch(self.collection, [product_id], vectors=True).get(product_id)

    def dead_letters(self) -> list[DeadLetter]:
        """Dead letters of the products topic."""
        return read_dead_letters(self.settings, self.topics.products.name)

    def stop(self, *, check: bool = True) -> None:
        """Stop them, close what was opened (the index is the caller's); raise what a runner died of."""
        try:
            for one in self._running:
                one.stop()
        finally:
            self.publisher.close()
            self._redis.close()
        if check:
            self.check()
