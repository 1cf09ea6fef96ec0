"""Everything is opened and put together here, from settings; nothing else in the house does both.

Reads   settings
Writes  the first release and the live collection, where there are none yet
Never   imports torch before an encoder is asked for: item-to-item queries and `products` do without
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from adapters.behaviour_reader import RedisBehaviourReader
from adapters.index import open_index
from adapters.index_port import LIVE_ALIAS, VectorIndex, collection_name, release_of
from adapters.kafka import Publisher
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.kafka_log import Tail, read_to_end
from adapters.kafka_reader import GroupReader
from adapters.redis_behaviour import BehaviourStore
from adapters.redis_client import connect
from adapters.redis_items import ItemStore
from adapters.redis_nodes import RedisNodes
from adapters.redis_reviews import ReviewStore
from adapters.redis_rollouts import RolloutBoard
from adapters.releases import ReleaseStore
from app.settings import Settings
from consumers.behaviour import BehaviourHandler
from consumers.dead_letters import DeadLetters
from consumers.embeddings import EmbeddingsHandler
from consumers.erasures import Erasures
from consumers.interactions import Interaction
from consumers.products import ProductChange, ProductsHandler
from consumers.reconcile import Reconciler
from consumers.reviews import ReviewChange, ReviewsHandler
from consumers.runner import Runner
from consumers.shopper_vectors import ShopperVectors
from consumers.work import Hint
from schemas.errors import Halt, Transient
from schemas.vectors import Encoder, TextRecipe, item_vectors
from service.releases import ReleaseNotLoaded

if TYPE_CHECKING:
    from model.encoder_process import EncoderProcess
    from model.release import LoadedRelease

log = logging.getLogger(__name__)

T = TypeVar("T")


def client_id(settings: Settings, role: str) -> str:
    """Names a client in the broker's logs and metrics: role, machine, process."""
    return f"{settings.namespace}simstream-{role}-{socket.gethostname()}-{os.getpid()}"


def patiently(what: str, attempt: Callable[[], T], *, pause_seconds: float = 1.0) -> T:
    """Repeat while a store or the broker is away: compose and Kubernetes start things in any order."""
    while True:
        try:
            return attempt()
        except Transient as error:
            log.warning("start_waits for=%s reason=%s", what, error)
            time.sleep(pause_seconds)


def make_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing; the names created. Raises Transient or Halt."""
    return ensure_topics(
        open_admin(settings.kafka),
        settings.named_topics().declared(),
        partitions=settings.kafka.partitions,
        replication_factor=settings.kafka.replication_factor,
    )


def open_store(settings: Settings) -> ItemStore:
    """Item state in Redis."""
    return ItemStore(
        client=connect(settings.redis),
        namespace=settings.namespace,
        behaviour_mark=settings.shopper_vectors.mark,
    )


def open_reviews(settings: Settings) -> ReviewStore:
    """Reviews of items, in Redis."""
    return ReviewStore(
        client=connect(settings.redis),
        namespace=settings.namespace,
        max_texts=settings.reviews.max_texts,
    )


def open_behaviour(settings: Settings) -> BehaviourStore:
    """What shoppers did, in Redis."""
    return BehaviourStore(
        nodes=RedisNodes(connect(settings.redis)),
        namespace=settings.namespace,
        sketch_members=settings.behaviour.sketch.members,
        enough_share=settings.behaviour.enough_share,
    )


def behaviour_reader(settings: Settings) -> RedisBehaviourReader:
    """What shoppers did, for the service."""
    return RedisBehaviourReader(store=open_behaviour(settings), hash_key=settings.behaviour.sketch.key)


def open_publisher(settings: Settings, role: str) -> Publisher:
    """A producer under the name of its role."""
    return Publisher(settings.kafka, client_id=client_id(settings, role))


def open_board(settings: Settings) -> RolloutBoard:
    """Records of the rollout of releases, and the leases."""
    return RolloutBoard(client=connect(settings.redis), namespace=settings.namespace)


def embeddings_group(settings: Settings, collection: str) -> str:
    """The consumer group that fills a collection: one each."""
    return f"{settings.namespace}simstream-embeddings-{collection.removeprefix(settings.namespace)}"


def alias_of(settings: Settings) -> str:
    """The alias of the live collection."""
    return settings.namespace + LIVE_ALIAS


class LoadedReleases:
    """The releases that this process can encode with; implements service.releases.Releases."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaded: dict[str, LoadedRelease[EncoderProcess]] = {}
        self._lock = threading.Lock()

    def loaded(self, release_id: str) -> LoadedRelease[EncoderProcess]:
        """The release by name. Raises ReleaseNotLoaded; never loads anything itself."""
        try:
            return self._loaded[release_id]
        except KeyError:
            raise ReleaseNotLoaded(release_id) from None

    def load(self, release_id: str) -> LoadedRelease[EncoderProcess]:
        """Load a release, once, verified against its manifest."""
        from model.release import start_release

        with self._lock:
            if release_id not in self._loaded:
                store = ReleaseStore(self._settings.releases)
                self._loaded[release_id] = start_release(store, release_id, self._settings.model)
            return self._loaded[release_id]

    def ids(self) -> set[str]:
        """Which releases are loaded here."""
        return set(self._loaded)

    def keep(self, release_ids: Collection[str]) -> None:
        """Let go of every other release."""
        with self._lock:
            for release_id in set(self._loaded) - set(release_ids):
                self._loaded.pop(release_id).encoder.close()

    def close(self) -> None:
        """End the encoders' processes."""
        with self._lock:
            for release in self._loaded.values():
                release.encoder.close()
            self._loaded.clear()


def live_collection(settings: Settings, index: VectorIndex) -> str:
    """The collection behind the alias; where there is none, the first release and its collection are made.

    Two processes that start at once make the same release and so the same collection.
    """
    alias = alias_of(settings)
    found = index.resolve(alias)
    if found is not None:
        return found
    from model.release import first_release

    manifest = first_release(settings.model, ReleaseStore(settings.releases), created_at=datetime.now(UTC))
    collection = collection_name(manifest.release_id, namespace=settings.namespace)
    index.ensure_collection(collection, item_vectors(manifest.dimension))
    index.set_alias(alias, collection)
    log.info("first_collection_made collection=%s", collection)
    return collection


def open_live_index(settings: Settings) -> tuple[VectorIndex, str]:
    """The index and its live collection."""
    index = open_index(settings.qdrant)
    return index, patiently("qdrant", lambda: live_collection(settings, index))


def open_live(settings: Settings) -> tuple[VectorIndex, str, LoadedReleases]:
    """The index, its live collection, and that collection's release loaded.

    Raises Halt when the collection was made with other vectors, by an older version.
    """
    index, collection = open_live_index(settings)
    dimension = ReleaseStore(settings.releases).manifest(release_of(collection)).dimension
    try:
        index.ensure_collection(collection, item_vectors(dimension))
    except ValueError as error:
        index.close()
        raise Halt(
            f"{error}. An older version made it: remove the collection and its alias (embedded: the folder "
            "`index` in the data folder) and start again, and it is filled from item state"
        ) from error
    releases = LoadedReleases(settings)
    releases.load(release_of(collection))
    return index, collection, releases


def recipe_of(settings: Settings, collection: str) -> TextRecipe:
    """The text recipe of a collection's release; starts no encoder."""
    from model.release import release_recipe

    return release_recipe(ReleaseStore(settings.releases), release_of(collection))


def products_runner(
    settings: Settings, *, store: ItemStore, publisher: Publisher, accept_poison: int = 0
) -> Runner[ProductChange]:
    """The products consumer, ready to run."""
    handler = ProductsHandler(store=store, publisher=publisher, topics=settings.named_topics())
    return Runner(
        reader=GroupReader(
            settings.kafka,
            group=f"{settings.namespace}simstream-products",
            client_id=client_id(settings, "products"),
        ),
        handler=handler,
        dead_letters=DeadLetters(publisher=publisher),
        settings=settings.loop,
        accept_poison=accept_poison,
    )


def read_erasures(settings: Settings) -> Erasures:
    """Who asked to be forgotten up to now; it goes on reading."""
    erasures = Erasures(key=settings.erasures.secret)
    topic = settings.named_topics().erasures.name
    erasures.take(patiently("kafka", lambda: list(read_to_end(settings.kafka, topic))))
    # From the beginning once more: the topic is compacted and small, and nothing between the two is missed.
    tail = Tail(settings.kafka.unhurried(), topic)
    erasures.follow(tail.poll, release=tail.close)
    return erasures


def reviews_runner(
    settings: Settings, *, publisher: Publisher, accept_poison: int = 0
) -> Runner[ReviewChange]:
    """The reviews consumer, ready to run."""
    handler = ReviewsHandler(
        store=open_reviews(settings),
        publisher=publisher,
        topics=settings.named_topics(),
        settings=settings.reviews,
        hash_key=settings.behaviour.sketch.key,
        erasures=read_erasures(settings),
    )
    return Runner(
        reader=GroupReader(
            settings.kafka.unhurried(),
            group=f"{settings.namespace}simstream-reviews",
            client_id=client_id(settings, "reviews"),
        ),
        handler=handler,
        dead_letters=DeadLetters(publisher=publisher),
        settings=settings.loop,
        accept_poison=accept_poison,
    )


def behaviour_runner(
    settings: Settings, *, publisher: Publisher, accept_poison: int = 0
) -> Runner[Interaction]:
    """The behaviour consumer, ready to run; its announcing thread has started."""
    handler = BehaviourHandler(
        store=open_behaviour(settings),
        erasures=read_erasures(settings),
        publisher=publisher,
        topics=settings.named_topics(),
        settings=settings.behaviour,
    )
    batch = settings.behaviour.batch_records
    return Runner(
        reader=GroupReader(
            settings.kafka.unhurried(),
            group=f"{settings.namespace}simstream-behaviour",
            client_id=client_id(settings, "behaviour"),
        ),
        handler=handler,
        dead_letters=DeadLetters(publisher=publisher),
        # An event is small work: large batches find more events of one item together.
        settings=settings.loop.model_copy(
            update={
                "batch_records": batch,
                "in_flight_records": max(settings.loop.in_flight_records, 4 * batch),
            }
        ),
        accept_poison=accept_poison,
    )


def state_runner(
    consumer: str, settings: Settings, *, publisher: Publisher, accept_poison: int = 0
) -> Runner[Any]:
    """A consumer that needs the broker and Redis alone: products, reviews or behaviour, ready to run."""
    if consumer == "products":
        return products_runner(
            settings, store=open_store(settings), publisher=publisher, accept_poison=accept_poison
        )
    if consumer == "reviews":
        return reviews_runner(settings, publisher=publisher, accept_poison=accept_poison)
    if consumer == "behaviour":
        return behaviour_runner(settings, publisher=publisher, accept_poison=accept_poison)
    raise ValueError(f"{consumer!r} is no consumer of item state")


def embeddings_runner(
    settings: Settings,
    *,
    store: ItemStore,
    publisher: Publisher,
    index: VectorIndex,
    collection: str,
    encoder: Encoder,
    recipe: TextRecipe,
    accept_poison: int = 0,
) -> Runner[Hint]:
    """The embeddings consumer of one collection, ready to run; its threads have started."""
    handler = EmbeddingsHandler(
        store=store,
        index=index,
        collection=collection,
        encoder=encoder,
        recipe=recipe,
        publisher=publisher,
        topics=settings.named_topics(),
        settings=settings.embeddings,
        behaviour=ShopperVectors(store=open_behaviour(settings), settings=settings.shopper_vectors),
    )
    return Runner(
        reader=GroupReader(
            settings.kafka,
            group=embeddings_group(settings, collection),
            client_id=client_id(settings, "embeddings"),
        ),
        handler=handler,
        dead_letters=DeadLetters(publisher=publisher),
        settings=settings.loop,
        accept_poison=accept_poison,
    )


def reconciler(
    settings: Settings,
    *,
    store: ItemStore,
    publisher: Publisher,
    index: VectorIndex,
    collection: str,
    recipe: TextRecipe,
) -> Reconciler:
    """Compares item state with a collection."""
    return Reconciler(
        store=store,
        index=index,
        collection=collection,
        recipe=recipe,
        publisher=publisher,
        topics=settings.named_topics(),
    )
