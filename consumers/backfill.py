"""A new collection is filled: its group starts at the ends of the hints, then every item is announced.

Reads   ids of all items in Redis, on every node
Writes  commits of the collection's group, before it has members; ItemChanged on the bulk lane
Never   writes a vector: the handler of every other change does, so there is one code path and one writer

1. create the collection   2. commit the end of every partition of both lanes, read back
3. start the group          4. announce every id, throttled            5. verify until nothing is missing

The order of 2 and 4 is what loses no event: a change before the committed ends has its state in Redis, where
4 finds it; one behind them is delivered. Every step may be repeated, so a killed backfill starts again at 1.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from adapters.kafka import Publisher
from adapters.redis_items import ItemStore
from schemas.errors import Transient
from schemas.events import ItemChanged
from schemas.topics import Topics

log = logging.getLogger(__name__)

_FLUSH_SECONDS = 60.0


class BulkAnnouncer:
    """Announces every item on the bulk lane, at most so many a second."""

    def __init__(
        self,
        *,
        store: ItemStore,
        publisher: Publisher,
        topics: Topics,
        per_second: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._topic = topics.changed_bulk.name
        self._per_second = per_second
        self._now = now
        self._monotonic = monotonic
        self._sleep = sleep

    def announce_all(self, *, stopped: Callable[[], bool] = lambda: False) -> int:
        """Announce each id; how many hints that took. Returns early when `stopped`.

        An id that Redis' walk gives twice is announced twice, which costs a look; to remember them all would
        cost 100 bytes an item. The live group hears these hints as well, hence the limit. Raises Transient
        when a store or the broker is away, with some announced: repeat it.
        """
        refusals: list[Exception] = []

        def on_ack(error: Exception | None) -> None:
            if error is not None:
                refusals.append(error)

        started = self._monotonic()
        announced = 0
        for page in self._store.scan_ids(batch=500):
            ids = dict.fromkeys(page)
            announced += len(ids)
            now = self._now()
            self._publisher.send_batch(
                self._topic,
                [
                    (one, ItemChanged(product_id=one, occurred_at=now).model_dump_json().encode(), on_ack)
                    for one in ids
                ],
            )
            if stopped() or refusals:
                break
            self._sleep(max(0.0, started + announced / self._per_second - self._monotonic()))
        if self._publisher.flush(_FLUSH_SECONDS):
            raise Transient("the broker did not acknowledge every announcement in time")
        if refusals:
            raise Transient(f"the broker refused {len(refusals)} announcements: {refusals[0]}")
        log.info("backfill_announced hints=%d", announced)
        return announced
