"""A drawn catalogue of any size: points as `embeddings` writes them, and what others keep in Redis.

Products are those of the synthetic shop, `POOL` of them again and again with another number in the title, so
that words are as frequent as there. Vectors lie around `CENTRES` drawn directions, as in
benchmarks/query_large.py around encoded texts: nothing is encoded. Every third item has four reviews, every
second `SHOPPERS` shoppers. There is a shopper to every fourth item, with `EVENTS` events, every tenth of them
a purchase.

Reads, writes  nothing; `fill_redis` the store that it is given
Never          encodes a text: drawn vectors have sizes and times to measure, and no meaning
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

import numpy as np
from numpy.typing import NDArray

from adapters.behaviour_work import ItemWork, ShopperWork
from adapters.redis_behaviour import BehaviourStore
from adapters.redis_client import Client
from adapters.redis_items import ItemStore, LogPosition, ProductWrite
from adapters.redis_nodes import RedisNodes
from adapters.redis_reviews import ReviewStore, ReviewWrite
from model.text import ProductText
from producers.shop import Shop
from schemas.events import ProductUpserted
from schemas.items import ItemState, live_payload
from schemas.vectors import BEHAVIOUR, CONTENT, LEXICAL, REVIEWS, Point, SparseVector, Vector

SEED = 31
POOL, CENTRES = 20_000, 5_000
#: As in benchmarks/query_catalogue.py: neighbours of one centre have a cosine of about 0.86.
NOISE = 0.4
REVIEWED_EVERY, REVIEWS_EACH = 3, 4
TOUCHED_EVERY, SHOPPERS = 2, 40
ITEMS_A_SHOPPER, EVENTS = 4, 20
#: As by default (consumers/behaviour.py).
RECENT_KEPT, BOUGHT_KEPT = 50, 200
NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
_REDIS_BATCH = 500


@dataclass(frozen=True, slots=True)
class Drawn:
    """`count` items with `dimensions` numbers a dense vector; the pool of products is made once."""

    count: int
    dimensions: int
    pool: Sequence[ProductUpserted]

    @staticmethod
    def of(count: int, dimensions: int) -> Drawn:
        """A catalogue."""
        shop = Shop(SEED, products=min(count, POOL), shoppers=50)
        return Drawn(count, dimensions, list(shop.products())[:POOL])

    def product(self, number: int) -> ProductUpserted:
        """The item of this number."""
        like = self.pool[number % len(self.pool)]
        return like.model_copy(
            update={"product_id": f"item-{number}", "title": f"{like.title} {number}", "revision": 1}
        )

    def batches(self, size: int) -> Iterator[list[Point]]:
        """Whole points, `size` at a time."""
        text, draw = ProductText(), np.random.default_rng(SEED)
        centres = _unit(draw.standard_normal((CENTRES, self.dimensions), dtype=np.float32))
        for start in range(0, self.count, size):
            numbers = np.arange(start, min(start + size, self.count))
            content, reviews = (self._around(centres, numbers, draw) for _ in range(2))
            shoppers = draw.integers(0, self._shoppers, size=(len(numbers), SHOPPERS))
            yield [
                self._point(number, text, content[row], reviews[row], shoppers[row])
                for row, number in enumerate(numbers.tolist())
            ]

    @property
    def _shoppers(self) -> int:
        return max(SHOPPERS, self.count // ITEMS_A_SHOPPER)

    def _around(
        self, centres: NDArray[np.float32], numbers: NDArray[np.int64], draw: np.random.Generator
    ) -> NDArray[np.float32]:
        noise = _unit(draw.standard_normal((len(numbers), self.dimensions), dtype=np.float32))
        return _unit(centres[numbers % len(centres)] + NOISE * noise)

    def _point(
        self,
        number: int,
        text: ProductText,
        content: NDArray[np.float32],
        reviews: NDArray[np.float32],
        shoppers: NDArray[np.int64],
    ) -> Point:
        product = self.product(number)
        vectors: dict[str, Vector] = {CONTENT: content.tolist(), LEXICAL: text.lexical(product)}
        if number % REVIEWED_EVERY == 0:
            vectors[REVIEWS] = reviews.tolist()
        if number % TOUCHED_EVERY == 0:
            # An odd factor: another index for each shopper, all over the 32 bits that a hash would fill.
            kept = np.unique(shoppers * 2_654_435_761 % 2**32)
            vectors[BEHAVIOUR] = SparseVector(tuple(kept.tolist()), (0.1,) * len(kept))
        payload = live_payload(
            ItemState(product.product_id, 1, NOW, product),
            fingerprints={name: f"{number:016x}" for name in vectors},
            updated_at={name: NOW.isoformat() for name in vectors},
            shoppers=SHOPPERS if BEHAVIOUR in vectors else 0,
        )
        return Point(product.product_id, vectors, payload)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    made: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made


# --- Redis ------------------------------------------------------------------------------------------


def fill_redis(drawn: Drawn, client: Client) -> dict[str, int]:
    """Write the state of all items; bytes that Redis says each part takes."""
    taken, before = {}, _used(client)
    for name, fill in _PARTS.items():
        fill(drawn, client)
        after = _used(client)
        taken[name], before = after - before, after
    return taken


def _used(client: Client) -> int:
    return int(client.info("memory")["used_memory_dataset"])


def _spans(count: int, every: int = 1) -> Iterator[range]:
    for start in range(0, count, _REDIS_BATCH * every):
        yield range(start, min(count, start + _REDIS_BATCH * every), every)


def _documents(drawn: Drawn, client: Client) -> None:
    store = ItemStore(client=client, namespace="")
    for numbers in _spans(drawn.count):
        store.apply(
            [
                ProductWrite(
                    product_id=product.product_id,
                    position=LogPosition("dHlwaWNhbCB0b3BpYyBpZA", number % 12, number, 1_795_000_000_000),
                    revision=1_795_000_000_000_000 + number,
                    body_hash=f"{number:016x}",
                    document=product.model_dump_json(exclude_none=True).encode(),
                    occurred_at=NOW.isoformat(),
                    text_hash=f"{number:016x}",
                )
                for number in numbers
                for product in [drawn.product(number)]
            ]
        )


def _reviews(drawn: Drawn, client: Client) -> None:
    store, shop = ReviewStore(client=client), Shop(SEED, products=500, shoppers=500)
    pool = [review for review in shop.reviews() if review.text][:2_000]
    for numbers in _spans(drawn.count, REVIEWED_EVERY):
        store.apply(
            [
                ReviewWrite(
                    product_id=f"item-{number}",
                    review_id=f"r-{number}-{place}",
                    revision=1_795_000_000_000_000 + number,
                    timestamp_ms=1_795_000_000_000,
                    body_hash=number.to_bytes(8, "big"),
                    at=1_795_000_000_000_000,
                    rating=said.rating,
                    votes=place,
                    text=f"{said.title}\n{said.text}",
                    rank=place,
                    shopper=(number * REVIEWS_EACH + place).to_bytes(8, "big"),
                )
                for number in numbers
                for place in range(REVIEWS_EACH)
                for said in [pool[(number + place * 7) % len(pool)]]
            ]
        )


def _sketches(drawn: Drawn, client: Client) -> None:
    store, draw = BehaviourStore(nodes=RedisNodes(client)), Random(SEED)
    seconds = int(NOW.timestamp())
    for numbers in _spans(drawn.count, TOUCHED_EVERY):
        works = []
        for number in numbers:
            members = [
                part for _ in range(SHOPPERS) for part in (str(draw.randrange(2**32)), draw.randrange(2**40))
            ]
            events = [
                (number % 12, number * SHOPPERS + place, seconds + 997 * place, 8 + 16, place % 64 * 16 + 1)
                for place in range(SHOPPERS)
            ]
            works.append(ItemWork(f"item-{number}", members, events))
        store.apply_items("dHlwaWNhbCB0b3BpYyBpZA", works, epoch=None)


def _shoppers(drawn: Drawn, client: Client) -> None:
    store, draw, now = BehaviourStore(nodes=RedisNodes(client)), Random(SEED), int(NOW.timestamp() * 1000)
    for numbers in _spans(drawn.count, ITEMS_A_SHOPPER):
        works = []
        for number in numbers:
            work = ShopperWork(draw.randbytes(8), f"dHlwaWNhbCB0b3BpYyBpZA:{number % 12}", 0)
            for place in range(EVENTS):
                item, at = f"item-{draw.randrange(drawn.count)}", now + 997_000 * place
                work.entries.append(draw.randbytes(8) + (number * EVENTS + place).to_bytes(6, "big"))
                work.recent += (at * 8 + 1, item)
                work.touched.append(draw.randrange(32) * 16 + 1)
                if place % 10 == 0:
                    work.bought += (at, item)
            works.append(work)
        store.apply_shoppers(works, epoch=None, recent_kept=RECENT_KEPT, bought_kept=BOUGHT_KEPT)


_PARTS = {"documents": _documents, "reviews": _reviews, "sketches": _sketches, "shoppers": _shoppers}
