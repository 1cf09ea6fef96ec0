"""An item whose price gets out of line, or back into it, is announced on insights.prices.

Reads   items.changed, items.changed.bulk; what is said of an item's price, from whoever is handed in
Writes  insights.prices; which items were last said to be outliers, in Redis
Never   judges a price itself; announces twice what stands, however often a hint comes

A hint says: look again. What is found is compared with what was last announced, and only a difference is
announced: 1. judge, 2. a mark that something is being told, 3. publish, 4. the broker's acknowledgement,
5. the mark of what was told, 6. judge once more, for whoever was slow must not have the last word, 7. settle.
After a crash in between nobody knows what was told, so what is true then is announced, whatever it is; the
topic is compacted by item: its last record is what stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from pydantic import Field

from adapters.kafka import Publisher, Record
from adapters.metrics import PRICE_INSIGHTS_TOTAL
from adapters.redis_insights import PriceMarks
from consumers.announcing import COMMIT_DELAY_SECONDS, Acknowledgements
from consumers.hints import by_item, read_hint
from consumers.progress import Delivery
from schemas.errors import Transient
from schemas.events import Frozen, ItemChanged, PriceInsight
from schemas.topics import Topics
from schemas.vectors import BEHAVIOUR, REVIEWS

#: A hint that names nothing else moves no price and no text.
_NO_MATTER = frozenset({BEHAVIOUR, REVIEWS})
#: As often as this in a row, what was announced is looked at again at once.
_LOOKS = 5
_PAUSE_SECONDS = 0.05


class InsightSettings(Frozen):
    """Whether `simstream up` looks for prices out of line, and how long it waits for a point."""

    #: A query for every change of an item; off by default.
    prices: bool = False
    #: A hint may come before the point is written; then it is waited for, and after this the loop backs off.
    wait_seconds: float = Field(default=2.0, gt=0)


class PriceJudge(Protocol):
    """Says what is true of an item's price. Raises Transient when a store is away."""

    def judged(self, product_id: str, *, now: datetime) -> PriceInsight | None:
        """None while the index does not show the item's newest state yet."""
        ...


class PriceInsightsHandler:
    """Follows changes of items and announces prices that get out of line or back."""

    name = "insights"
    commit_delay_seconds = COMMIT_DELAY_SECONDS
    in_order = False

    def __init__(
        self,
        *,
        judge: PriceJudge,
        marks: PriceMarks,
        publisher: Publisher,
        topics: Topics,
        settings: InsightSettings,
        ack_timeout_seconds: float = 30.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._judge = judge
        self._marks = marks
        self._publisher = publisher
        self._topic = topics.insights_prices.name
        self._settings = settings
        self._ack_timeout_seconds = ack_timeout_seconds
        self._now = now
        self._monotonic = monotonic
        self._sleep = sleep
        self.topics: Sequence[str] = (topics.changed.name, topics.changed_bulk.name)

    def decode(self, record: Record) -> ItemChanged:
        """Parse a hint. Raises PoisonMessage naming the field and what was expected."""
        return read_hint(record)

    def handle(self, deliveries: Sequence[Delivery[ItemChanged]]) -> None:
        """Look at each item once, announce what differs, settle. Raises Transient with the rest unsettled."""
        changed = by_item(deliveries, no_matter=_NO_MATTER)
        known = self._marks.known(list(changed))
        until = self._monotonic() + self._settings.wait_seconds
        for product_id, parts in changed.items():
            self._look(product_id, known=known[product_id], until=until)
            for delivery in parts:
                delivery.settle()

    def _look(self, product_id: str, *, known: bool | None, until: float) -> None:
        for _ in range(_LOOKS):
            found = self._judged(product_id, until)
            if found.outlier == known:
                return
            self._marks.telling(product_id)
            self._announce(found)
            self._marks.mark(product_id, outlier=found.outlier)
            known = found.outlier
        # It moves faster than it can be told; its next hint is on its way already.

    def _judged(self, product_id: str, until: float) -> PriceInsight:
        while (found := self._judge.judged(product_id, now=self._now())) is None:
            if self._monotonic() >= until:
                raise Transient(f"the index does not show the newest state of {product_id!r} yet")
            self._sleep(_PAUSE_SECONDS)
        return found

    def _announce(self, found: PriceInsight) -> None:
        acknowledged = Acknowledgements(1)
        self._publisher.send(
            self._topic,
            key=found.product_id,
            value=found.model_dump_json(exclude_none=True).encode(),
            on_ack=acknowledged.count,
        )
        acknowledged.require(self._ack_timeout_seconds, "a price insight")
        PRICE_INSIGHTS_TOTAL.labels("outlier" if found.outlier else "usual").inc()

    def store_epoch(self) -> str | None:
        """Redis' run id: when it changes, marks younger than the commit may be gone."""
        return self._marks.run_id()

    def adopt(self, epoch: str | None) -> None:
        """Marks are compared with what is true: whichever incarnation takes them."""

    def fatal(self) -> BaseException | None:
        """This handler has no thread of its own that could die."""
        return None

    def close(self) -> None:
        """Nothing to release: collaborators belong to whoever made them."""
