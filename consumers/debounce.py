"""Announces items whose behaviour has moved, each at most once per delay.

Reads   marks in Redis
Writes  publishes ItemChanged; removes a mark when the broker has acknowledged its hint
Never   forgets a mark: what it took and did not finish is announced again, by whoever looks next
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from pydantic import Field

from adapters.kafka import Acknowledge, Publisher
from adapters.metrics import DEBOUNCED_ITEMS, TRANSIENT_ERRORS_TOTAL
from adapters.redis_behaviour import MARK_SETS, BehaviourStore
from consumers.announcing import Acknowledgements
from schemas.errors import Transient
from schemas.events import Frozen, ItemChanged
from schemas.vectors import BEHAVIOUR

log = logging.getLogger(__name__)

#: How often the items that wait are counted.
_COUNT_SECONDS = 5.0


class DebounceSettings(Frozen):
    """When an item whose sketch moved is written anew: enough after the delay, anything after the maximum.

    A hot item is written once per delay, however many events it gets.
    """

    delay_seconds: float = Field(default=5.0, gt=0)
    max_delay_seconds: float = Field(default=120.0, gt=0)
    interval_seconds: float = Field(default=0.25, gt=0)
    #: More than the index can write would only wait elsewhere; what waits here is marked once, however often
    #: it moves.
    items_per_second: int = Field(default=1_000, ge=1)
    #: A hint that the broker has not acknowledged for so long is published again.
    abandoned_seconds: float = Field(default=30.0, gt=0)


class Debounce:
    """A thread that announces what is due."""

    def __init__(
        self,
        *,
        store: BehaviourStore,
        publisher: Publisher,
        topic: str,
        settings: DebounceSettings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._topic = topic
        self._settings = settings
        self._now = now
        self._closed = threading.Event()
        #: What ended the thread, if something did.
        self.fatal: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="behaviour-debounce", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; marks stay."""
        self._closed.set()
        self._thread.join(30.0)

    def _run(self) -> None:
        next_count = time.monotonic()
        try:
            while not self._closed.wait(self._settings.interval_seconds):
                try:
                    self.announce()
                    if time.monotonic() >= next_count:
                        DEBOUNCED_ITEMS.set(self._store.waiting())
                        next_count = time.monotonic() + _COUNT_SECONDS
                except Transient as error:
                    log.warning("consumer_waits consumer=%s reason=%s", "behaviour-debounce", error)
                    TRANSIENT_ERRORS_TOTAL.labels(stage="behaviour-debounce").inc()
                    self._closed.wait(1.0)
        except BaseException as error:  # noqa: BLE001  handed to the runner, which raises it
            self.fatal = error

    def announce(self) -> int:
        """Announce what is due now; how many items. Raises Transient when Redis or the broker is away."""
        settings = self._settings
        now = self._now()
        taken_ms = int(now.timestamp() * 1000)
        items = self._store.take_due(
            taken_ms,
            limit=max(1, round(settings.items_per_second * settings.interval_seconds / MARK_SETS)),
            abandoned_ms=int(settings.abandoned_seconds * 1000),
        )
        if not items:
            return 0
        acknowledged: list[str] = []
        acknowledgements = Acknowledgements(len(items))

        def on_ack(product_id: str) -> Acknowledge:
            def told(error: Exception | None) -> None:
                if error is None:
                    acknowledged.append(product_id)
                acknowledgements.count(error)

            return told

        hints = [
            (
                product_id,
                ItemChanged(product_id=product_id, dimensions=[BEHAVIOUR], occurred_at=now, consumed_at=now)
                .model_dump_json()
                .encode(),
                on_ack(product_id),
            )
            for product_id in items
        ]
        self._publisher.send_batch(self._topic, hints)
        acknowledgements.wait(settings.abandoned_seconds)
        done = list(acknowledged)
        if done:
            self._store.announced(done, taken_ms=taken_ms)
        if len(done) < len(items):
            missing, reason = len(items) - len(done), acknowledgements.failure or "no answer in time"
            raise Transient(f"the broker did not acknowledge {missing} announcements: {reason}")
        return len(items)
