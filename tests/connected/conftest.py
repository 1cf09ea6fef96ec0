"""A pipeline per test, on either broker, over an index of its own on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.index_edge import EdgeIndex
from app.local import LocalRedis
from tests.support.draining import quick_settings
from tests.support.pipeline import Pipeline
from tests.support.servers import Broker

MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def make_pipeline(
    broker: Broker, redis_server: LocalRedis, namespace: str, tmp_path: Path
) -> Iterator[MakePipeline]:
    """Makes one pipeline that is not running yet: `with make_pipeline(...) as pipeline`."""
    index = EdgeIndex(tmp_path / "index")

    def make(**more: Any) -> Pipeline:
        return Pipeline(
            kafka=quick_settings(broker),
            redis_url=redis_server.url,
            namespace=namespace,
            index=index,
            **more,
        )

    yield make
    index.close()


@pytest.fixture
def pipeline(make_pipeline: MakePipeline) -> Iterator[Pipeline]:
    """Both consumers running."""
    with make_pipeline() as running:
        yield running
