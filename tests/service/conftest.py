"""One shop for the tests that only read it, and a fresh one for those that write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from adapters.index_edge import EdgeIndex
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from app.local import LocalRedis
from tests.service.shop import Shop


def _shop(folder: Path, redis_server: LocalRedis, namespace: str) -> Iterator[Shop]:
    client = connect(RedisSettings(url=redis_server.url))
    index = EdgeIndex(folder)
    try:
        yield Shop(index=index, store=ItemStore(client=client, namespace=namespace))
    finally:
        index.close()
        client.close()


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, redis_server: LocalRedis) -> Iterator[Shop]:
    """The shop of tests/service/shop.py; not to be written."""
    yield from _shop(tmp_path_factory.mktemp("index"), redis_server, "service-tests.")


@pytest.fixture
def fresh_shop(tmp_path: Path, redis_server: LocalRedis, namespace: str) -> Iterator[Shop]:
    """The same shop, for one test alone."""
    yield from _shop(tmp_path / "index", redis_server, namespace)


@pytest.fixture(scope="session")
def client(shop: Shop) -> Iterator[TestClient]:
    """An HTTP client of the shop's service; an unexpected exception is a 500, as over a socket."""
    with TestClient(shop.app(), raise_server_exceptions=False) as client:
        yield client
