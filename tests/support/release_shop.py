"""A shop whose releases change, for the tests of rollouts: its stores, and what it publishes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.index_port import VectorIndex
from adapters.kafka import Publisher
from adapters.redis_items import ItemStore
from adapters.redis_rollouts import RolloutBoard
from app.settings import Settings
from app.wiring import alias_of
from consumers.release_requests import ask_for, wait_until
from schemas.events import ProductUpserted
from schemas.rollouts import Rollout
from schemas.vectors import CONTENT

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass
class ReleaseShop:
    """Stores and broker of a shop whose releases change, and ways to publish, ask and look."""

    settings: Settings
    index: VectorIndex
    store: ItemStore
    publisher: Publisher
    board: RolloutBoard

    def publish(self, number: int, revision: int, title: str | None = None) -> None:
        """An event of item `number`."""
        event = ProductUpserted(
            product_id=f"p{number}",
            revision=revision,
            occurred_at=NOW,
            title=title or f"a lamp of sort {number}",
            # Another one each time: an event that changes nothing writes nothing.
            price=f"{revision}.00",
        )
        topic = self.settings.named_topics().products.name
        self.publisher.send(topic, key=event.product_id, value=event.model_dump_json().encode())

    def shows(self, collection: str, number: int, revision: int) -> bool:
        """Whether a collection shows that revision of the item, or a later one."""
        point = self.index.fetch(collection, [f"p{number}"], vectors=False).get(f"p{number}")
        return point is not None and int(point.payload["revision"]) >= revision

    def ask(self, release_id: str, **more: Any) -> Rollout:
        """As `simstream releases promote`."""
        standing = self.index.collections()
        return ask_for(self.board, release_id, alias=alias_of(self.settings), standing=standing, **more)

    def follow(self, asked: Rollout) -> Rollout:
        """Wait for the end of a rollout; its last record."""
        return wait_until(
            self.board, asked.collection, say=lambda one: None, pause_seconds=0.05, timeout_seconds=240.0
        )

    def live(self) -> str:
        """The collection behind the alias."""
        found = self.index.resolve(alias_of(self.settings))
        assert found is not None
        return found

    def vectors(self, collection: str, items: int) -> dict[str, NDArray[np.float64]]:
        """The content vectors of the first so many items."""
        points = self.index.fetch(collection, [f"p{number}" for number in range(items)], vectors=(CONTENT,))
        return {one: np.array(point.vectors[CONTENT]) for one, point in points.items()}


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


@contextmanager
def thread(run: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    """A part of the stack on a thread, stopped at the end."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001  raised again at the end
            failures.append(error)

    working = threading.Thread(target=work, daemon=True)
    working.start()
    try:
        yield
    finally:
        stop()
        working.join(60.0)
        assert not failures, failures
