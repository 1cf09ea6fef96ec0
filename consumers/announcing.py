"""What a consumer of item state says after a write: one hint per item, and the broker's word that it has it.

Reads   nothing
Writes  publishes ItemChanged, on the bulk lane where every change of the item asked for it
Never   settles a record before the broker has acknowledged the hint it caused
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from adapters.kafka import Acknowledge, Publisher
from adapters.metrics import FRESHNESS_SECONDS
from adapters.tracing import TRACE_HEADER, Places
from consumers.progress import Delivery
from schemas.errors import Transient
from schemas.events import ItemChanged
from schemas.topics import Topics

#: Redis with AOF everysec may lose its last seconds, so commits of what writes to it trail by more than that.
COMMIT_DELAY_SECONDS = 3.0
_UNTRACED: Mapping[str, str] = {}


class Change(Protocol):
    """What a hint needs to know of a decoded record."""

    @property
    def occurred_at(self) -> datetime:
        """When it happened."""
        ...

    @property
    def bulk(self) -> bool:
        """Whether it belongs to a large import."""
        ...


C = TypeVar("C", bound=Change)


class Announcer:
    """Announces the items of one batch. Called by one thread at a time."""

    def __init__(self, *, publisher: Publisher, topics: Topics, ack_timeout_seconds: float = 30.0) -> None:
        self._publisher = publisher
        self._topics = topics
        self._ack_timeout_seconds = ack_timeout_seconds

    def announce(
        self,
        changed: Mapping[str, Sequence[Delivery[C]]],
        dimensions: Mapping[str, Sequence[str]],
        *,
        consumed_at: datetime,
        places: Mapping[str, str] = _UNTRACED,
    ) -> None:
        """Publish one hint per product, wait for the broker, settle what it has.

        `dimensions` says what moved, by product; it is for metrics. `places` says where a product's change
        stands in its trace, if it has one. Raises Transient with the rest unsettled.
        """
        acknowledgements = Acknowledgements(len(changed))
        hints: dict[str, list[tuple[str, bytes, Acknowledge]]] = {}
        for product_id, parts in changed.items():
            changes = [delivery.event for delivery in parts]
            # A live change among bulk ones must not wait for the import.
            bulk = all(change.bulk for change in changes)
            topic = self._topics.changed_bulk if bulk else self._topics.changed
            hint = ItemChanged(
                product_id=product_id,
                dimensions=list(dimensions[product_id]),
                occurred_at=max(change.occurred_at for change in changes),
                consumed_at=consumed_at,
            )
            on_ack = _settling(parts, consumed_at, acknowledgements)
            if (place := places.get(product_id)) is not None:
                # A batch of the client has no headers.
                headers = [(TRACE_HEADER, place.encode())]
                value = hint.model_dump_json().encode()
                self._publisher.send(topic.name, key=product_id, value=value, headers=headers, on_ack=on_ack)
                continue
            hints.setdefault(topic.name, []).append((product_id, hint.model_dump_json().encode(), on_ack))
        for name, batch in hints.items():
            self._publisher.send_batch(name, batch)
        if changed and not acknowledgements.wait(self._ack_timeout_seconds):
            raise Transient("the broker did not acknowledge the announcements in time")
        if acknowledgements.failure is not None:
            raise Transient(f"the broker refused announcements: {acknowledgements.failure}")


def traced_hints(product_ids: Iterable[str], places: Places) -> Mapping[str, str]:
    """Where the hint of each product stands: at its newest traced change, for the others end there.

    `places` follows `product_ids`, and is empty while tracing is off.
    """
    found = {product_id: place for product_id, place in zip(product_ids, places, strict=False) if place}
    return found or _UNTRACED


def _settling(
    parts: Sequence[Delivery[C]], consumed_at: datetime, acknowledgements: Acknowledgements
) -> Acknowledge:
    """What the acknowledgement of one hint does."""
    happened = [delivery.event.occurred_at for delivery in parts]

    def on_ack(error: Exception | None) -> None:
        if error is None:
            for delivery in parts:
                delivery.settle()
            for occurred_at in happened:
                age = (consumed_at - occurred_at).total_seconds()
                FRESHNESS_SECONDS.labels(stage="consumed").observe(max(0.0, age))
        acknowledgements.count(error)

    return on_ack


class Acknowledgements:
    """Counts broker acknowledgements of one batch; the last one wakes the waiter."""

    def __init__(self, expected: int) -> None:
        self._missing = expected
        self._lock = threading.Lock()
        self._done = threading.Event()
        self.failure: Exception | None = None

    def count(self, error: Exception | None) -> None:
        """One acknowledgement, or one refusal, has come; called on the publisher's thread."""
        with self._lock:
            self._missing -= 1
            if error is not None:
                self.failure = error
            if self._missing <= 0:
                self._done.set()

    def wait(self, timeout_seconds: float) -> bool:
        """Whether all have come in time."""
        return self._done.wait(timeout_seconds)

    def require(self, timeout_seconds: float, what: str) -> None:
        """Wait for all of them. Raises Transient, naming `what`, where some are late or refused."""
        if not self.wait(timeout_seconds):
            raise Transient(f"the broker did not acknowledge {what} in time")
        if self.failure is not None:
            raise Transient(f"the broker refused {what}: {self.failure}")
