"""The topics simstream reads and writes: names, keys, cleanup, retention.

Reads, writes: nothing; the admin in adapters/kafka.py creates what is declared here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

DAY_MS = 24 * 60 * 60 * 1000

#: Record header that names the lane a change travels in; `bulk` is handed on to items.changed.bulk.
LANE_HEADER = "simstream-lane"
BULK_LANE = "bulk"
DEFAULT_MAX_MESSAGE_BYTES = 1024 * 1024
#: What a dead letter may be larger than its original: the headers that say where it came from and why.
DEAD_LETTER_HEADROOM_BYTES = 64 * 1024
DEAD_LETTER_SUFFIX = ".dlq"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it should exist. `retention_ms` -1 keeps records for ever."""

    name: str
    key: str
    carries: tuple[str, ...]
    cleanup: Literal["compact", "delete"]
    retention_ms: int = -1
    delete_retention_ms: int | None = None
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    has_dead_letters: bool = False

    @property
    def dead_letters(self) -> str:
        """Name of the topic that holds this topic's dead letters."""
        return self.name + DEAD_LETTER_SUFFIX

    def config(self) -> dict[str, str]:
        """Broker configuration entries, all strings, as Kafka's admin API takes them."""
        entries = {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.max_message_bytes),
        }
        if self.delete_retention_ms is not None:
            entries["delete.retention.ms"] = str(self.delete_retention_ms)
        return entries


@dataclass(frozen=True, slots=True)
class Topics:
    """Every topic, by role. Names are settings; `Topics.named` applies a namespace prefix."""

    products: Topic
    reviews: Topic
    events: Topic
    changed: Topic
    changed_bulk: Topic
    updated: Topic
    erasures: Topic
    releases: Topic
    insights_prices: Topic
    insights_opinions: Topic

    @classmethod
    def named(
        cls,
        *,
        namespace: str = "",
        products: str = "catalog.products",
        reviews: str = "catalog.reviews",
        events: str = "user.events",
        changed: str = "items.changed",
        changed_bulk: str = "items.changed.bulk",
        updated: str = "items.updated",
        erasures: str = "user.erasures",
        releases: str = "model.releases",
        insights_prices: str = "insights.prices",
        insights_opinions: str = "insights.opinions",
    ) -> Topics:
        """Build the set with the given names, each prefixed by `namespace` (for example `shop1.`)."""
        return cls(
            products=Topic(
                name=namespace + products,
                key="product_id",
                carries=("ProductUpserted", "ProductDeleted"),
                cleanup="compact",
                delete_retention_ms=30 * DAY_MS,
                has_dead_letters=True,
            ),
            reviews=Topic(
                name=namespace + reviews,
                key="product_id",
                carries=("ReviewPosted", "ReviewRemoved"),
                cleanup="delete",
                has_dead_letters=True,
            ),
            events=Topic(
                name=namespace + events,
                key="user_id",
                carries=("UserEvent",),
                cleanup="delete",
                retention_ms=90 * DAY_MS,
                has_dead_letters=True,
            ),
            changed=Topic(
                name=namespace + changed,
                key="product_id",
                carries=("ItemChanged",),
                cleanup="delete",
                retention_ms=7 * DAY_MS,
                has_dead_letters=True,
            ),
            changed_bulk=Topic(
                name=namespace + changed_bulk,
                key="product_id",
                carries=("ItemChanged",),
                cleanup="delete",
                retention_ms=7 * DAY_MS,
                has_dead_letters=True,
            ),
            updated=Topic(
                name=namespace + updated,
                key="product_id",
                carries=("ItemUpdated",),
                cleanup="delete",
                retention_ms=1 * DAY_MS,
            ),
            erasures=Topic(
                name=namespace + erasures,
                key="keyed hash of user_id",
                carries=("UserErased",),
                cleanup="compact",
            ),
            releases=Topic(
                name=namespace + releases,
                key="release_id",
                carries=(),
                cleanup="compact",
            ),
            insights_prices=Topic(
                name=namespace + insights_prices,
                key="product_id",
                carries=("PriceInsight",),
                cleanup="compact",
            ),
            insights_opinions=Topic(
                name=namespace + insights_opinions,
                key="product_id",
                carries=("OpinionInsight",),
                cleanup="compact",
            ),
        )

    def declared(self) -> Iterator[Topic]:
        """Every topic to create, dead-letter topics included."""
        for topic in (
            self.products,
            self.reviews,
            self.events,
            self.changed,
            self.changed_bulk,
            self.updated,
            self.erasures,
            self.releases,
            self.insights_prices,
            self.insights_opinions,
        ):
            yield topic
            if topic.has_dead_letters:
                yield Topic(
                    name=topic.dead_letters,
                    key=topic.key,
                    carries=topic.carries,
                    cleanup="delete",
                    max_message_bytes=topic.max_message_bytes + DEAD_LETTER_HEADROOM_BYTES,
                )
