"""Item state as the products consumer leaves it, for tests of those that read it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

from adapters.redis_client import Client
from adapters.redis_items import ItemStore, LogPosition, ProductWrite
from adapters.redis_reviews import SUMMARY
from schemas.events import ProductUpserted

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)


class State:
    """Writes product events into a store; what it wrote last is the newest."""

    def __init__(self, client: Client, store: ItemStore) -> None:
        self.client = client
        self.store = store
        self._offsets = count()

    def put(self, product_id: str = "p1", revision: int = 1, **fields: Any) -> ProductUpserted:
        """A product as it is from now on; answers its event."""
        (event,) = self.put_all([product_id], revision, **fields)
        return event

    def put_all(self, product_ids: Sequence[str], revision: int = 1, **fields: Any) -> list[ProductUpserted]:
        """The same for many, in one call."""
        events = [
            ProductUpserted(
                product_id=product_id,
                revision=revision,
                occurred_at=NOW,
                **{"title": f"Red lamp {product_id}", "price": "10.00", "currency": "EUR", **fields},
            )
            for product_id in product_ids
        ]
        self._apply(
            [
                self._write(event.product_id, revision, event.model_dump_json(exclude_none=True).encode())
                for event in events
            ]
        )
        return events

    def digest(self, product_id: str, text: str) -> None:
        """What an item's reviews say, as the reviews consumer leaves it."""
        key = self.store.key(product_id).removesuffix("product") + SUMMARY
        self.client.hset(key, "digest", text)

    def delete(self, *product_ids: str, revision: int = 9) -> None:
        """Products that have left the catalogue."""
        self._apply([self._write(product_id, revision, None) for product_id in product_ids])

    def _write(self, product_id: str, revision: int, document: bytes | None) -> ProductWrite:
        position = LogPosition("topic-id", 0, next(self._offsets), 1_000)
        return ProductWrite(
            product_id, position, revision, document=document, occurred_at=NOW.isoformat(), text_hash="t"
        )

    def _apply(self, writes: Sequence[ProductWrite]) -> None:
        assert all(answer.outcome == "newer" for answer in self.store.apply(writes))
