"""The backends of the index contract: each as something that opens an index, so that it opens again."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from adapters.index import IndexSettings
from adapters.index_edge import EdgeIndex
from adapters.index_port import VectorIndex
from adapters.index_server import ServerIndex
from schemas.vectors import CollectionSpec
from tests.support.qdrant_rest import QdrantRest

SIZE = 4
SPEC = CollectionSpec(dense={"content": SIZE}, sparse_with_idf=("lexical",), sparse=("behaviour",))
BACKENDS = ("edge", "memory", "rest", "server")


@pytest.fixture(scope="session")
def rest_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantRest]:
    """The test server, over a socket."""
    with QdrantRest(tmp_path_factory.mktemp("rest")) as server:
        yield server


def real_server_url() -> str:
    """The Qdrant server that the environment names. Skips, saying so, where it names none."""
    url = os.environ.get("SIMSTREAM_QDRANT__URL", "")
    if not url.startswith("http"):
        pytest.skip("no Qdrant server: SIMSTREAM_QDRANT__URL names no http URL")
    return url


@pytest.fixture(params=BACKENDS)
def open_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], VectorIndex]:
    """Opens an index of each kind."""
    match request.param:
        case "edge":
            return lambda: EdgeIndex(tmp_path / "index")
        case "memory":
            return lambda: ServerIndex(QdrantClient(":memory:"), local=True)
        case "rest":
            url = request.getfixturevalue("rest_server").url
        case _:
            url = real_server_url()
    return lambda: ServerIndex.connect(IndexSettings(url=url, timeout_seconds=10))


@pytest.fixture
def index(open_backend: Callable[[], VectorIndex]) -> Iterator[VectorIndex]:
    """An opened index of each kind."""
    opened = open_backend()
    yield opened
    opened.close()


@pytest.fixture
def collection(index: VectorIndex) -> Iterator[str]:
    """An empty collection: a dense vector of four numbers, a sparse one with IDF, a sparse one without."""
    name = f"items__release-{uuid.uuid4().hex[:12]}__1"
    index.ensure_collection(name, SPEC)
    yield name
    index.drop_collection(name)
