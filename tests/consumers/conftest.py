"""Item state on a real Redis and an index on disk, both empty, for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.index_edge import EdgeIndex
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from app.local import LocalRedis
from schemas.vectors import item_vectors
from tests.consumers.state import State
from tests.support.fake_encoder import FakeEncoder

COLLECTION = "items__test__1"


@pytest.fixture
def state(redis_server: LocalRedis, namespace: str) -> Iterator[State]:
    """What the products consumer has written: nothing yet."""
    with connect(RedisSettings(url=redis_server.url)) as client:
        yield State(client, ItemStore(client=client, namespace=namespace))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[EdgeIndex]:
    """An index with one empty collection."""
    opened = EdgeIndex(tmp_path / "index")
    opened.ensure_collection(COLLECTION, item_vectors(FakeEncoder().dimension))
    yield opened
    opened.close()
