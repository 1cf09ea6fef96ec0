"""A small shop for the service: real item state, a real index, the real text recipe, a fake encoder.

Its reviews and shoppers are few and written down here, so that a test can count them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI

from adapters.index_port import LIVE_ALIAS, VectorIndex, collection_name
from adapters.redis_items import ItemStore, LogPosition, ProductWrite
from model.text import ProductText
from schemas.behaviour import BehaviourReader
from schemas.events import Product, ProductUpserted
from schemas.items import ItemState, context_fingerprint, live_payload, tombstone_payload
from schemas.opinions import OpinionReader
from schemas.relations import RelationReader
from schemas.releases import EncoderConfig, FileEntry, Manifest
from schemas.reports import ReportBox
from schemas.vectors import (
    BEHAVIOUR,
    CONTENT,
    LEXICAL,
    REVIEWS,
    Point,
    SparseVector,
    TextRecipe,
    Vector,
    item_vectors,
)
from service.access import Keyring
from service.api import create_app
from service.catalogue import Catalogue, Target
from service.prices import PriceSettings
from service.query import QueryEngine
from service.releases import LoadedRelease, ReleaseNotLoaded
from service.rulebook import RuleBook
from service.rules import NO_RULES, CompiledRules
from service.settings import ServiceSettings
from service.sink import EventSink
from service.watching import Watched
from tests.support.boxes import NothingMined, OpenBox
from tests.support.fake_encoder import FakeEncoder

NOTHING_MINED, OPEN_BOX = NothingMined(), OpenBox()
NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
RELEASE = "r1"
COLLECTION = collection_name(RELEASE)


def product(product_id: str, title: str, **fields: Any) -> ProductUpserted:
    """An event, as the shop would publish it."""
    return ProductUpserted.model_validate(
        {"product_id": product_id, "occurred_at": NOW, "revision": 7, "title": title, **fields}
    )


def _shoe(product_id: str, title: str, price: str, **fields: Any) -> ProductUpserted:
    shared: dict[str, Any] = {"category": ["Sport", "Shoes"], "currency": "EUR", "in_stock": True}
    return product(product_id, title, price=price, **{**shared, **fields})


#: Shoes of four brands with variants, coffee machines, Chinese shoes, odd ids.
PRODUCTS: Sequence[ProductUpserted] = (
    _shoe("s1", "Norda 001 trail running shoe black", "100", brand="Norda", group_id="norda-001"),
    _shoe("s2", "Norda 001 trail running shoe white", "100", brand="Norda", group_id="norda-001"),
    _shoe("s3", "Norda 002 trail running shoe green", "120", brand="Norda", group_id="norda-002"),
    _shoe("s4", "Norda 002 trail running shoe (black)", "120", brand="Norda", group_id="norda-002"),
    _shoe("s5", "Salomon Speedcross trail running shoe black", "80", brand="Salomon", in_stock=False),
    _shoe(
        "s6", "Salomon Sense trail running shoe blue", "210", brand="SALOMON", attributes={"Colour": "Blue"}
    ),
    _shoe("s7", "Hoka Speedgoat trail running shoe black", "150", brand="Hoka", currency="USD"),
    _shoe(
        "s8",
        "Altra Lone Peak trail running shoe",
        "130",
        brand="Altra",
        attributes={"colour": ["red", "blue"]},
    ),
    product("c1", "Espresso machine steel", category=["Home", "Kitchen"], brand="Gaggia", in_stock=True),
    product("c2", "Espresso grinder steel", category=["Home", "Kitchen"], brand="Gaggia", in_stock=True),
    product("z1", "越野跑鞋 男款 黑色", brand="Li"),
    product("z2", "越野跑鞋 女款 白色", brand="Li"),
    product("odd/ü<b>&/similar", "Leather boot with laces", price="60"),
)

#: Digests of reviews; the others have none.
REVIEW_TEXTS: Mapping[str, str] = {
    "s1": "great grip in mud, runs small",
    "s3": "great grip in mud, very light",
    "s5": "good grip, wears out fast",
    "c1": "makes great coffee, a bit loud",
}
#: Who touched which items. The coffee machine shares most with the shoe s1; nobody touched the others.
SHOPPERS: Mapping[str, frozenset[int]] = {
    "s1": frozenset(range(10)),
    "s3": frozenset(range(5, 15)),
    "s5": frozenset({0, 1}),
    "s7": frozenset(range(20, 30)),
    "c1": frozenset(range(8)),
    "c2": frozenset({0}),
}
SHRINKAGE = 2.0


def shoppers_vector(shoppers: Iterable[int]) -> SparseVector:
    """The vector `behaviour` of an item that these touched, every one of weight 1 and none evicted."""
    members = sorted(shoppers)
    value = 1 / math.sqrt(len(members) + SHRINKAGE)
    return SparseVector(tuple(members), (value,) * len(members))


@dataclass
class StaticRelease:
    """Implements service.releases.LoadedRelease."""

    encoder: FakeEncoder
    recipe: TextRecipe
    manifest: Manifest


@dataclass
class StaticReleases:
    """Implements service.releases.Releases."""

    known: dict[str, StaticRelease] = field(default_factory=dict)

    def loaded(self, release_id: str) -> LoadedRelease:
        """The release by name. Raises ReleaseNotLoaded."""
        if release_id not in self.known:
            raise ReleaseNotLoaded(release_id)
        return self.known[release_id]


def manifest(release_id: str, dimension: int) -> Manifest:
    """A manifest for a fake encoder."""
    return Manifest(
        release_id=release_id,
        created_at=NOW,
        base_model="fake",
        dimension=dimension,
        encoder=EncoderConfig(pooling="mean", max_length=256),
        files={"model.safetensors": FileEntry(sha256="0" * 64, size_bytes=0)},
    )


class Shop:
    """Everything the service is handed, filled with `products`."""

    def __init__(
        self, *, index: VectorIndex, store: ItemStore, products: Iterable[ProductUpserted] = PRODUCTS
    ) -> None:
        self.index = index
        self.store = store
        self.encoder = FakeEncoder()
        self.recipe = ProductText()
        self.releases = StaticReleases(
            {RELEASE: StaticRelease(self.encoder, self.recipe, manifest(RELEASE, self.encoder.dimension))}
        )
        index.ensure_collection(COLLECTION, item_vectors(self.encoder.dimension))
        index.set_alias(LIVE_ALIAS, COLLECTION)
        self.ticket = 0
        self.publish(list(products))

    def publish(self, products: Sequence[ProductUpserted]) -> None:
        """Item state and points of products, as the consumers would leave them."""
        self.write_state(products)
        self.upsert([self.point(event) for event in products])

    def write_state(self, products: Sequence[ProductUpserted], *, deleted: bool = False) -> None:
        """Item state alone: an item that waits for its vectors, or one that was deleted."""
        self.store.apply(
            [
                ProductWrite(
                    product_id=event.product_id,
                    position=LogPosition("t", 0, number, 1),
                    revision=event.order,
                    body_hash=str(number),
                    document=None if deleted else event.model_dump_json(exclude_none=True).encode(),
                    occurred_at=event.occurred_at.isoformat(),
                )
                for number, event in enumerate(products)
            ]
        )

    def upsert(self, points: Sequence[Point], collection: str = COLLECTION) -> None:
        """Points as they are."""
        self.ticket += 1
        self.index.upsert(collection, points, ticket=self.ticket)

    def say(self, product_id: str, opinions: Sequence[str]) -> None:
        """What reviewers come to about a product, in its point."""
        standing = self.index.fetch(COLLECTION, [product_id], vectors=True)[product_id]
        self.upsert([Point(product_id, standing.vectors, {**standing.payload, "opinions": list(opinions)})])

    def point(
        self,
        event: ProductUpserted,
        *,
        vectors: dict[str, Vector] | None = None,
        shoppers: int | None = None,
        updated_at: datetime = NOW,
    ) -> Point:
        """The point of a product, with the vectors given or all that this module knows of."""
        touched_by = SHOPPERS.get(event.product_id, frozenset())
        if vectors is None:
            vectors = {CONTENT: self.encode(event), LEXICAL: self.recipe.lexical(event)}
            if event.product_id in REVIEW_TEXTS:
                vectors[REVIEWS] = self.encoder.encode([REVIEW_TEXTS[event.product_id]])[0]
            if touched_by:
                vectors[BEHAVIOUR] = shoppers_vector(touched_by)
        state = ItemState(event.product_id, event.order, event.occurred_at, event)
        text = self.recipe.fingerprint(event)
        payload = live_payload(
            state,
            fingerprints={**dict.fromkeys(vectors, text), "context": context_fingerprint(event)},
            updated_at=dict.fromkeys((*vectors, "context"), updated_at.isoformat()),
            shoppers=len(touched_by) if shoppers is None else shoppers,
        )
        return Point(event.product_id, vectors, payload)

    def encode(self, event: Product) -> list[float]:
        """The content vector of a product."""
        return self.encoder.encode([self.recipe.content(event)])[0]

    def tombstone(self, product_id: str) -> Point:
        """The point of a deleted product."""
        return Point(product_id, {}, tombstone_payload(product_id, revision=8, deleted_at=NOW))

    def target(self) -> Target:
        """The live collection."""
        return Target(COLLECTION, RELEASE)

    def engine(
        self,
        settings: ServiceSettings | None = None,
        *,
        releases: StaticReleases | None = None,
        alias: str = LIVE_ALIAS,
        clock: Callable[[], datetime] = lambda: NOW,
        rules: CompiledRules = NO_RULES,
        relations: RelationReader | None = None,
        relations_away: Callable[[], bool] = lambda: False,
    ) -> QueryEngine:
        """The query engine over this shop."""
        loaded = self.releases if releases is None else releases
        catalogue = Catalogue(index=self.index, store=self.store, releases=loaded, alias=alias)
        return QueryEngine(
            catalogue=catalogue,
            settings=settings or ServiceSettings(),
            clock=clock,
            rules=lambda: rules,
            relations=relations,
            relations_away=relations_away,
        )

    def app(
        self,
        settings: ServiceSettings | None = None,
        *,
        index: VectorIndex | None = None,
        store: ItemStore | None = None,
        releases: StaticReleases | None = None,
        behaviour: BehaviourReader | None = None,
        keyring: Keyring | None = None,
        sink: EventSink | None = None,
        rules: RuleBook | None = None,
        prices: PriceSettings | None = None,
        relations: RelationReader | None = NOTHING_MINED,
        opinions: OpinionReader | None = None,
        reports: ReportBox | None = OPEN_BOX,
        watched: Watched | None = None,
        notes: Callable[[], Mapping[str, str | None]] = dict,
    ) -> FastAPI:
        """The HTTP application over this shop, or with one of its collaborators replaced."""
        return create_app(
            index=self.index if index is None else index,
            store=self.store if store is None else store,
            releases=self.releases if releases is None else releases,
            settings=settings or ServiceSettings(),
            behaviour=behaviour,
            keyring=keyring,
            sink=sink,
            rules=rules,
            prices=prices,
            relations=relations,
            opinions=opinions,
            reports=reports,
            watched=watched,
            notes=notes,
        )
