"""A data set in an index as the product fills it, asked by the product's own engine; texts encoded once.

Points come out of consumers/assembly.py, vectors of shoppers out of consumers/shopper_vectors.py, digests out
of consumers/review_digest.py; queries go to service/query.py and service/recommend.py. Kafka, Redis and HTTP
are left out: benchmarks/beauty.py and benchmarks/matching.py go that whole way.

Reads   the base model
Writes  vectors of texts, under var/ by release, so that a second run encodes nothing; an index that goes away
Never   keeps a text
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from adapters.index_edge import EdgeIndex
from adapters.index_port import LIVE_ALIAS, collection_name
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from benchmarks.query_catalogue import open_store
from benchmarks.remembered import RememberedEncoder
from benchmarks.sketching import Interactions, sketches_of
from consumers.assembly import Encoded, Shoppers, assemble
from consumers.interest import SketchSettings
from consumers.shopper_vectors import VectorSettings
from model.encoder import TextEncoder
from model.release import LoadedRelease, load_release
from model.settings import ModelSettings
from schemas.api import Answer, QueryOptions, Seed, SimilarRequest
from schemas.behaviour import Interaction, ItemFigures, Trending, Window
from schemas.events import ProductUpserted, UserEventType
from schemas.items import BehaviourState, ItemState, ReviewState
from schemas.releases import Manifest
from schemas.vectors import TextRecipe, item_vectors
from service.catalogue import Catalogue
from service.parameters import RecommendationOptions
from service.query import QueryEngine
from service.recommend import Recommender
from service.settings import ServiceSettings
from service.timing import Timings

BATCH = 256
#: Where the embedded stack builds a graph when it starts.
GRAPH_POINTS = 5_000
NOW = datetime(2026, 11, 25, tzinfo=UTC)


@dataclass(frozen=True)
class Remembering:
    """A release whose encoder remembers. Implements service.releases.LoadedRelease and Releases."""

    release_id: str
    encoder: RememberedEncoder
    recipe: TextRecipe
    manifest: Manifest

    def loaded(self, release_id: str) -> Remembering:
        """The one there is."""
        return self


@contextmanager
def remembering(folder: Path) -> Iterator[Remembering]:
    """The base model's release, its vectors kept under `folder`."""
    release: LoadedRelease[TextEncoder] = load_release(*open_store(folder), ModelSettings())
    encoder = RememberedEncoder(release.encoder, folder / f"{release.release_id}.npz")
    try:
        yield Remembering(release.release_id, encoder, release.recipe, release.manifest)
    finally:
        encoder.keep()
        release.encoder.close()


@dataclass(frozen=True)
class Contents:
    """What an index is filled with. `histories` are shoppers' items, the oldest first."""

    products: Sequence[ProductUpserted]
    digests: Mapping[str, str] = field(default_factory=dict)
    interactions: Interactions | None = None
    histories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kind: UserEventType = "purchase"


@dataclass(frozen=True)
class Asked:
    """An index that is filled, and how to ask it."""

    engine: QueryEngine
    recommender: Recommender
    catalogue: Catalogue

    def similar(self, seeds: Sequence[Seed], options: QueryOptions) -> Answer:
        """Neighbours of seeds."""
        fields = options.model_dump(exclude_unset=True)
        return self.engine.similar(SimilarRequest(seeds=list(seeds), **fields), Timings())

    def recommended(self, user: str, options: RecommendationOptions) -> Answer:
        """What a shopper may like."""
        return self.recommender.recommended(user, options, Timings())


class History:
    """Shoppers' histories in memory, one a minute. Implements schemas.behaviour.BehaviourReader."""

    def __init__(self, histories: Mapping[str, Sequence[str]], kind: UserEventType) -> None:
        self._histories = histories
        self._kind = kind

    def figures(self, product_ids: Sequence[str]) -> dict[str, ItemFigures]:
        """None: ranking does not ask for them."""
        return {}

    def recent(self, user_id: str, *, limit: int) -> list[Interaction]:
        """A shopper's items, each once, the newest first."""
        items = list(dict.fromkeys(reversed(self._histories.get(user_id, ()))))[:limit]
        return [Interaction(item, self._kind, NOW - timedelta(minutes=age)) for age, item in enumerate(items)]

    def bought(self, user_id: str) -> set[str]:
        """All of them, where they are purchases."""
        return set(self._histories.get(user_id, ())) if self._kind == "purchase" else set()

    def trending(self, window: Window, *, limit: int) -> list[Trending]:
        """Nothing: who has no history gets no answer."""
        return []


@contextmanager
def filled(contents: Contents, release: Remembering, settings: ServiceSettings) -> Iterator[Asked]:
    """An index with these contents."""
    with tempfile.TemporaryDirectory(prefix="simstream-bench-") as folder:
        index = EdgeIndex(Path(folder))
        collection = collection_name(release.release_id)
        index.ensure_collection(collection, item_vectors(release.manifest.dimension))
        index.set_alias(LIVE_ALIAS, collection)
        started = time.monotonic()
        states = list(_states(contents))
        for start in range(0, len(states), BATCH):
            _write(index, collection, states[start : start + BATCH], release)
        release.encoder.keep()
        if len(states) >= GRAPH_POINTS:
            index.optimize(collection)
        print(f"{len(states)} items indexed in {time.monotonic() - started:.0f} s", flush=True)
        # Item state is asked for only where an item is missing; nothing listens there.
        nobody = connect(RedisSettings(url="redis://127.0.0.1:1/0", timeout_seconds=0.5))
        history = History(contents.histories, contents.kind)
        catalogue = Catalogue(
            index=index, store=ItemStore(client=nobody), releases=release, behaviour=history
        )
        engine = QueryEngine(catalogue=catalogue, settings=settings, clock=lambda: NOW)
        recommender = Recommender(catalogue=catalogue, engine=engine, behaviour=history, settings=settings)
        yield Asked(engine, recommender, catalogue)
        index.close()
        nobody.close()


def _states(contents: Contents) -> Iterator[tuple[ItemState, Shoppers | None]]:
    shoppers: dict[str, tuple[BehaviourState, Shoppers]] = {}
    if contents.interactions is not None:
        events = contents.interactions
        # These data sets have an order and no dates: decay off.
        made = sketches_of(events, SketchSettings(half_life_days=None), contents.kind)
        for item, header, vector in zip(
            events.items, made.headers, made.vectors(VectorSettings()), strict=True
        ):
            if header.members:
                shoppers[item] = (BehaviourState("b", header.shoppers), Shoppers("b", vector))
    for product in contents.products:
        name = product.product_id
        digest = contents.digests.get(name)
        reviews = ReviewState(digest, None) if digest else None
        behaviour, vector_of = shoppers.get(name, (None, None))
        yield ItemState(name, product.order, product.occurred_at, product, reviews, behaviour), vector_of


def _write(
    index: EdgeIndex,
    collection: str,
    states: Sequence[tuple[ItemState, Shoppers | None]],
    release: Remembering,
) -> None:
    """What consumers/embeddings.py does with a batch: ask what is wanted, encode, assemble, upsert."""
    wanted = [
        one
        for state, _ in states
        for one in assemble(state.product_id, state, None, recipe=release.recipe, encoded={}, now=NOW).wanted
    ]
    vectors = release.encoder.encode([one.text for one in wanted])
    encoded = {
        one.fingerprint: Encoded(one.fingerprint, vector) for one, vector in zip(wanted, vectors, strict=True)
    }
    points = []
    for state, shoppers in states:
        made = assemble(
            state.product_id, state, None, recipe=release.recipe, encoded=encoded, now=NOW, shoppers=shoppers
        )
        assert made.point is not None
        points.append(made.point)
    index.upsert(collection, points, ticket=1)
