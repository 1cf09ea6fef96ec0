"""Figures of the stores as metrics: Redis' memory, points of the live collection, states of releases.

Reads   Redis, the index, records of the rollout
Writes  gauges
Never   disturbs anybody: a store that is away is asked again later, and what was read last stays

Runs where releases are worked on: in `simstream up` and in every `simstream consume embeddings`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from adapters.index_port import VectorIndex
from adapters.metrics import (
    INDEX_POINTS,
    REDIS_MAX_MEMORY_BYTES,
    REDIS_MEMORY_BYTES,
    RELEASE_STATE,
    STORES_LOOKED_AT_SECONDS,
)
from adapters.redis_client import connect
from adapters.redis_nodes import RedisNodes
from app.settings import Settings
from app.wiring import alias_of, open_board
from schemas.errors import Halt, Transient

log = logging.getLogger(__name__)

EVERY_SECONDS = 15.0


class StoreFigures:
    """Looks at the stores. One thread."""

    def __init__(self, settings: Settings, *, index: VectorIndex) -> None:
        self._alias = alias_of(settings)
        self._index = index
        self._nodes = RedisNodes(connect(settings.redis))
        self._board = open_board(settings)

    def look(self) -> None:
        """Read everything once. Raises Transient, Halt."""
        for node in self._nodes.vitals():
            REDIS_MEMORY_BYTES.labels(node=node.name).set(node.used_bytes)
            REDIS_MAX_MEMORY_BYTES.labels(node=node.name).set(node.allowed_bytes)
        live = self._index.resolve(self._alias)
        points = None if live is None else self._index.count(live)
        releases = self._board.all()
        # Only now, so that no reader sees them empty for longer than this takes.
        INDEX_POINTS.clear()
        if live is not None and points is not None:
            INDEX_POINTS.labels(collection=live).set(points)
        RELEASE_STATE.clear()
        for one in releases:
            if not one.pruned:
                RELEASE_STATE.labels(one.release_id, one.collection, one.state.value).set(1)
        STORES_LOOKED_AT_SECONDS.set(time.time())

    def run(self, stopped: threading.Event) -> None:
        """Look every so often until stopped."""
        while not stopped.is_set():
            try:
                self.look()
            except (Transient, Halt, ValueError) as error:
                # ValueError: the collection was dropped between the two questions.
                log.warning("stores_not_looked_at reason=%s", error)
            stopped.wait(EVERY_SECONDS)


@contextmanager
def looking(settings: Settings, *, index: VectorIndex) -> Iterator[None]:
    """`StoreFigures` on a thread of its own, until the end of the block."""
    stopped = threading.Event()
    thread = threading.Thread(
        target=StoreFigures(settings, index=index).run, args=(stopped,), name="store-figures", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(30.0)
