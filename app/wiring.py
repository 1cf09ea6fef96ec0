"""Everything is opened here, from settings: stores, index, releases. app/runners.py makes consumers of it.

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
from typing import TYPE_CHECKING, TypeVar

from adapters.behaviour_reader import RedisBehaviourReader
from adapters.index import open_index
from adapters.index_port import LIVE_ALIAS, VectorIndex, collection_name, release_of
from adapters.kafka import Publisher
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.redis_behaviour import BehaviourStore
from adapters.redis_client import connect
from adapters.redis_erased import ErasedItems
from adapters.redis_items import ItemStore
from adapters.redis_nodes import RedisNodes
from adapters.redis_opinions import OpinionStore
from adapters.redis_readers import ErasureReaders
from adapters.redis_relations import RelationStore
from adapters.redis_reports import ReportStore
from adapters.redis_reviews import ReviewStore
from adapters.redis_rollouts import RolloutBoard
from adapters.releases import ReleaseStore
from adapters.state_generation import Generations
from app.images import image_dimension
from app.live_state import LiveState, State
from app.settings import Settings
from schemas.errors import Halt, Transient
from schemas.vectors import CollectionSpec, TextRecipe, item_vectors
from service.releases import ReleaseNotLoaded
from service.sink import EventSink

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


def open_generations(settings: Settings) -> Generations:
    """Which state is the live one."""
    return Generations(nodes=RedisNodes(connect(settings.redis)), namespace=settings.namespace)


def live_generation(settings: Settings) -> int:
    """The generation that a process works on from its start to its end; waits while Redis is away."""
    return patiently("redis", lambda: open_generations(settings).live())


def open_store(settings: Settings, generation: int | None = None) -> ItemStore:
    """Item state in Redis: that of a generation, or of the one that is live now."""
    return ItemStore(
        client=connect(settings.redis),
        namespace=settings.namespace,
        generation=live_generation(settings) if generation is None else generation,
        behaviour_mark=settings.shopper_vectors.mark,
        opinions=settings.opinions.consume,
    )


def open_reviews(settings: Settings, generation: int) -> ReviewStore:
    """Reviews of items, in Redis."""
    return ReviewStore(
        client=connect(settings.redis),
        namespace=settings.namespace,
        generation=generation,
        max_texts=settings.reviews.max_texts,
    )


def open_behaviour(settings: Settings, generation: int | None = None) -> BehaviourStore:
    """What shoppers did, in Redis: that of a generation, or of the one that is live now."""
    return BehaviourStore(
        nodes=RedisNodes(connect(settings.redis)),
        namespace=settings.namespace,
        generation=live_generation(settings) if generation is None else generation,
        sketch_members=settings.behaviour.sketch.members,
        enough_share=settings.behaviour.enough_share,
    )


def live_state(settings: Settings) -> LiveState:
    """Items, and what shoppers did, for the service."""

    def opened(generation: int) -> State:
        return State(
            items=open_store(settings, generation),
            behaviour=RedisBehaviourReader(
                store=open_behaviour(settings, generation), hash_key=settings.behaviour.sketch.key
            ),
        )

    return LiveState(live=open_generations(settings).live, opened=opened)


def open_relations(settings: Settings) -> RelationStore:
    """What is bought and looked at together, in Redis."""
    return RelationStore(nodes=RedisNodes(connect(settings.redis)), namespace=settings.namespace)


def open_opinions(settings: Settings) -> OpinionStore:
    """What reviewers say about items, in Redis."""
    return OpinionStore(nodes=RedisNodes(connect(settings.redis)), namespace=settings.namespace)


def open_readers(settings: Settings) -> ErasureReaders:
    """Who reads user.erasures."""
    return ErasureReaders(nodes=RedisNodes(connect(settings.redis)), namespace=settings.namespace)


def open_erased(settings: Settings, name: str) -> ErasedItems:
    """Which items the erasure of this name is about."""
    return ErasedItems(nodes=RedisNodes(connect(settings.redis)), name=name, namespace=settings.namespace)


def open_reports(settings: Settings) -> ReportStore:
    """What people have reported, in Redis."""
    return ReportStore(nodes=RedisNodes(connect(settings.redis)), namespace=settings.namespace)


def open_publisher(settings: Settings, role: str) -> Publisher:
    """A producer under the name of its role."""
    return Publisher(settings.kafka, client_id=client_id(settings, role))


def open_sink(settings: Settings) -> EventSink:
    """Where posted events go. Its publisher gives up on a record when nobody waits for it any more."""
    service, kafka = settings.service, settings.kafka
    seconds = min(service.publish_seconds, kafka.delivery_timeout_seconds)
    impatient = kafka.model_copy(update={"delivery_timeout_seconds": seconds})
    return EventSink(
        opened=lambda: Publisher(impatient, client_id=client_id(settings, "api")),
        ack_seconds=seconds,
        most_records=service.publish_pending_records,
        most_bytes=service.publish_pending_bytes,
    )


def open_board(settings: Settings) -> RolloutBoard:
    """Records of the rollout of releases, and the leases."""
    return RolloutBoard(client=connect(settings.redis), namespace=settings.namespace)


def alias_of(settings: Settings) -> str:
    """The alias of the live collection."""
    return settings.namespace + LIVE_ALIAS


class LoadedReleases:
    """The releases that this process can encode with; implements service.releases.Releases.

    One whose encoder has died is not loaded: asked to, `load` starts another. Thread-safe; whoever holds the
    old one is told by its encoder.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaded: dict[str, LoadedRelease[EncoderProcess]] = {}
        self._lock = threading.Lock()

    def loaded(self, release_id: str) -> LoadedRelease[EncoderProcess]:
        """The release by name. Raises ReleaseNotLoaded; never loads anything itself."""
        found = self._loaded.get(release_id)
        if found is None or not found.encoder.alive:
            raise ReleaseNotLoaded(release_id)
        return found

    def load(self, release_id: str) -> LoadedRelease[EncoderProcess]:
        """Load a release, once, verified against its manifest."""
        from model.release import start_release

        with self._lock:
            found = self._loaded.get(release_id)
            if found is not None and not found.encoder.alive:
                log.error("encoder_died release=%s: it is loaded again", release_id)
                del self._loaded[release_id]
                found.encoder.close()
                found = None
            if found is None:
                store = ReleaseStore(self._settings.releases)
                found = self._loaded[release_id] = start_release(store, release_id, self._settings.model)
            return found

    def ids(self) -> set[str]:
        """Which releases are loaded here."""
        return {name for name, release in list(self._loaded.items()) if release.encoder.alive}

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


def collection_spec(settings: Settings, dimension: int) -> CollectionSpec:
    """What a collection holds that is made now, for texts whose vectors have this length."""
    return item_vectors(dimension, image_dimension(settings))


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
    index.ensure_collection(collection, collection_spec(settings, manifest.dimension))
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
        index.ensure_collection(collection, collection_spec(settings, dimension))
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
