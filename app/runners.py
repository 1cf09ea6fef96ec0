"""Consumers put together from settings, ready to run: of item state and of a collection; the reconciler.

Reads   settings; who asked to be forgotten
Writes  which of these readers have read erasures up to where
Never   imports torch: an encoder is handed in
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from adapters.index_port import VectorIndex
from adapters.kafka import Publisher
from adapters.kafka_log import Tail, read_to_end
from adapters.kafka_reader import GroupReader
from adapters.redis_items import ItemStore
from adapters.state_generation import group_suffix
from app.images import open_pictures, picture_mark
from app.settings import Settings
from app.wiring import (
    client_id,
    live_generation,
    open_behaviour,
    open_generations,
    open_readers,
    open_reviews,
    open_store,
    patiently,
)
from consumers.behaviour import BehaviourHandler
from consumers.dead_letters import DeadLetters
from consumers.embeddings import EmbeddingsHandler
from consumers.erasures import Erasures
from consumers.handler import Handler
from consumers.products import ProductsHandler
from consumers.reconcile import Reconciler
from consumers.reviews import ReviewsHandler
from consumers.runner import Runner
from consumers.shopper_vectors import ShopperVectors
from consumers.work import Hint
from schemas.errors import Transient
from schemas.vectors import Encoder, TextRecipe


def state_group(settings: Settings, consumer: str, generation: int) -> str:
    """The group that writes one generation of the state: products, reviews or behaviour."""
    return f"{settings.namespace}simstream-{consumer}{group_suffix(generation)}"


def embeddings_group(settings: Settings, collection: str) -> str:
    """The consumer group that fills a collection: one each."""
    return f"{settings.namespace}simstream-embeddings-{collection.removeprefix(settings.namespace)}"


def products_handler(settings: Settings, generation: int, *, publisher: Publisher) -> ProductsHandler:
    """What the products consumer does."""
    return ProductsHandler(
        store=open_store(settings, generation), publisher=publisher, topics=settings.named_topics()
    )


def known_erasures(settings: Settings) -> Erasures:
    """Who asked to be forgotten up to now."""
    erasures = Erasures(key=settings.erasures.secret)
    topic = settings.named_topics().erasures.name
    erasures.take(patiently("kafka", lambda: list(read_to_end(settings.kafka, topic))))
    return erasures


def read_erasures(settings: Settings, consumer: str) -> Erasures:
    """`known_erasures`; it goes on reading, and says so under the name of its consumer."""
    erasures = known_erasures(settings)
    # Nothing is in hand yet that could be older.
    erasures.acknowledge(erasures.reached)
    readers, reader = open_readers(settings), client_id(settings, consumer)
    patiently("redis", lambda: readers.report(reader, erasures.reached))
    # From the beginning once more: the topic is compacted and small, and nothing between the two is missed.
    tail = Tail(settings.kafka.unhurried(), settings.named_topics().erasures.name)

    def release() -> None:
        tail.close()
        with suppress(Transient):
            readers.leave(reader)

    erasures.follow(tail.poll, release=release, report=lambda reached: readers.report(reader, reached))
    return erasures


def reviews_handler(settings: Settings, generation: int, *, publisher: Publisher) -> ReviewsHandler:
    """What the reviews consumer does; it has read who asked to be forgotten."""
    return ReviewsHandler(
        store=open_reviews(settings, generation),
        publisher=publisher,
        topics=settings.named_topics(),
        settings=settings.reviews,
        hash_key=settings.behaviour.sketch.key,
        erasures=read_erasures(settings, "reviews"),
    )


def behaviour_handler(settings: Settings, generation: int, *, publisher: Publisher) -> BehaviourHandler:
    """What the behaviour consumer does; its announcing thread has started."""
    return BehaviourHandler(
        store=open_behaviour(settings, generation),
        erasures=read_erasures(settings, "behaviour"),
        publisher=publisher,
        topics=settings.named_topics(),
        settings=settings.behaviour,
    )


_HANDLERS: Mapping[str, Callable[..., Handler[Any]]] = {
    "products": products_handler,
    "reviews": reviews_handler,
    "behaviour": behaviour_handler,
}
STATE_CONSUMERS = tuple(_HANDLERS)


def state_runner(
    consumer: str,
    settings: Settings,
    *,
    publisher: Publisher,
    generation: int | None = None,
    dead_letters: DeadLetters | None = None,
    accept_poison: int = 0,
) -> Runner[Any]:
    """A consumer that needs the broker and Redis alone: products, reviews or behaviour, ready to run.

    It writes the live state and stops when another generation takes over; or the `generation` it is given.
    """
    if consumer not in _HANDLERS:
        raise ValueError(f"{consumer!r} is no consumer of item state")
    written = live_generation(settings) if generation is None else generation
    loop = settings.loop
    if consumer == "behaviour":
        # An event is small work: large batches find more events of one item together.
        batch = settings.behaviour.batch_records
        room = max(loop.in_flight_records, 4 * batch)
        loop = loop.model_copy(update={"batch_records": batch, "in_flight_records": room})
    handler = _HANDLERS[consumer](settings, written, publisher=publisher)
    return Runner(
        reader=GroupReader(
            # Prices are waited for; reviews and what shoppers do are seen after a debounce at best.
            settings.kafka if consumer == "products" else settings.kafka.unhurried(),
            group=state_group(settings, consumer, written),
            client_id=client_id(settings, consumer),
        ),
        handler=handler,
        dead_letters=dead_letters or DeadLetters(publisher=publisher),
        settings=loop,
        accept_poison=accept_poison,
        standing=_standing(settings, written) if generation is None else lambda: None,
        erasures=handler.erasures if isinstance(handler, ReviewsHandler | BehaviourHandler) else None,
    )


def _standing(settings: Settings, generation: int) -> Callable[[], None]:
    """Raises Halt when another generation has taken over."""
    generations = open_generations(settings)
    return lambda: generations.standing(generation)


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
    stays: bool = False,
) -> Runner[Hint]:
    """The embeddings consumer of one collection, ready to run; its threads have started.

    It stops when another generation of the state takes over from that of `store`, unless it `stays`.
    """
    handler = EmbeddingsHandler(
        store=store,
        index=index,
        collection=collection,
        encoder=encoder,
        recipe=recipe,
        publisher=publisher,
        topics=settings.named_topics(),
        settings=settings.embeddings,
        behaviour=shopper_vectors(settings, store.generation),
        pictures=open_pictures(settings, index=index, collection=collection, publisher=publisher),
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
        standing=_standing(settings, store.generation) if not stays else lambda: None,
    )


def shopper_vectors(settings: Settings, generation: int) -> ShopperVectors:
    """Makes the behaviour vectors of items."""
    return ShopperVectors(store=open_behaviour(settings, generation), settings=settings.shopper_vectors)


def reconciler(
    settings: Settings,
    *,
    store: ItemStore,
    publisher: Publisher,
    index: VectorIndex,
    collection: str,
    recipe: TextRecipe,
    weigh: bool = False,
) -> Reconciler:
    """Compares item state with a collection; the weights of shoppers too if told to `weigh`."""
    return Reconciler(
        store=store,
        index=index,
        collection=collection,
        recipe=recipe,
        publisher=publisher,
        topics=settings.named_topics(),
        weigh=shopper_vectors(settings, store.generation).walk if weigh else None,
        picture_mark=picture_mark(settings, index, collection),
    )
