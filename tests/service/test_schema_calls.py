"""Calls made from the OpenAPI document over a socket: no 5xx while the stores are up, whatever is sent.

With a store down, 503 comes only from routes that need it and names it. `benchmarks/api.py` makes many more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from service.settings import ServiceSettings
from tests.service.shop import Shop, StaticReleases
from tests.service.test_api import AwayIndex
from tests.service.test_publish import Broker, sink_of
from tests.support.fake_behaviour import FakeBehaviour, visits
from tests.support.schema_calls import Tally, call_all
from tests.support.serving import serving

PER_OPERATION = 30
#: With a store down.
FEW = 16
ALWAYS = {"GET /health/live", "GET /metrics"}
PUBLISHING = {"POST /v1/events", "POST /v1/products", "POST /v1/reviews"}


def behaviour(**more: Any) -> FakeBehaviour:
    shopped = {"u000123": visits("s1", "c1")}
    return FakeBehaviour(shopped=shopped, windows={"24h": {"s1": 3.0}, "7d": {"c1": 2.0}}, **more)


def tally_of(app: FastAPI, *, down: bool, per_operation: int = FEW) -> Tally:
    """Known ids stand in the document as examples, so that calls get further than to an unknown item."""
    document = app.openapi()
    with serving(app, ServiceSettings()) as address:
        return call_all(address, document, per_operation=per_operation, may_be_missing=down)


def test_nothing_that_is_sent_makes_the_service_fail(shop: Shop) -> None:
    tally = tally_of(
        shop.app(behaviour=behaviour(), sink=sink_of(Broker())), down=False, per_operation=PER_OPERATION
    )
    assert tally.calls > 250
    assert tally.count(least=500) == 0
    # The calls got somewhere: every route has said yes, every one that takes anything has said no.
    succeeded = tally.routes(200) | tally.routes(202)
    assert {"POST /v1/search", "GET /v1/trending", "GET /v1/release", *PUBLISHING} <= succeeded
    assert {"POST /v1/similar", "POST /v1/similar/batch", "POST /v1/search", *PUBLISHING} <= tally.routes(422)


def test_without_the_index_every_ranking_names_it_and_publishing_goes_on(shop: Shop, tmp_path: Path) -> None:
    index = AwayIndex(tmp_path)
    app = shop.app(index=index, behaviour=behaviour(), sink=sink_of(Broker()))
    tally = tally_of(app, down=True)
    assert set().union(*tally.missing.values()) == {"index"}
    assert not tally.routes(503) & (ALWAYS | PUBLISHING)
    assert PUBLISHING <= tally.routes(202)
    index.close()


@pytest.fixture
def nobody() -> Iterator[ItemStore]:
    """Item state in a Redis that is not there."""
    client = connect(RedisSettings(url="redis://127.0.0.1:1/0", timeout_seconds=0.5))
    yield ItemStore(client=client)
    client.close()


def test_without_redis_texts_and_publishing_are_answered_and_the_rest_names_it(
    shop: Shop, nobody: ItemStore
) -> None:
    app = shop.app(store=nobody, behaviour=behaviour(away=True), sink=sink_of(Broker()))
    tally = tally_of(app, down=True)
    assert set().union(*tally.missing.values()) <= {"items", "behaviour"}
    assert not tally.routes(503) & (
        ALWAYS | PUBLISHING | {"POST /v1/search", "GET /v1/release", "GET /health/ready"}
    )
    assert {"POST /v1/search", "GET /v1/release", "GET /health/ready"} <= tally.routes(200)
    assert {"GET /v1/trending", "GET /v1/users/{user_id}/recommendations"} <= tally.routes(503)


def test_without_the_broker_only_publishing_names_it(shop: Shop) -> None:
    broker = Broker()
    broker.answer = TimeoutError("away")
    tally = tally_of(shop.app(behaviour=behaviour(), sink=sink_of(broker)), down=True)
    assert tally.routes(503) == PUBLISHING
    assert set().union(*tally.missing.values()) == {"broker"}


def test_without_the_encoder_only_texts_name_it(shop: Shop) -> None:
    app = shop.app(releases=StaticReleases(), behaviour=behaviour(), sink=sink_of(Broker()))
    tally = tally_of(app, down=True)
    assert set().union(*tally.missing.values()) == {"encoder"}
    assert not tally.routes(503) & (ALWAYS | PUBLISHING | {"GET /v1/trending", "GET /v1/items/{item_id}"})
    assert "POST /v1/search" in tally.routes(503)


def test_a_service_that_fails_on_something_would_be_found(shop: Shop) -> None:
    class Failing(FakeBehaviour):
        def trending(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("a bug")

    with pytest.raises(BaseException, match="Server error"):
        tally_of(shop.app(behaviour=Failing()), down=False, per_operation=4)


def test_an_answer_that_the_document_does_not_promise_would_be_found(shop: Shop) -> None:
    app = shop.app(behaviour=behaviour(), sink=sink_of(Broker()))
    del app.openapi()["paths"]["/v1/search"]["post"]["responses"]["422"]
    with pytest.raises(BaseException, match="Undocumented status code"):
        tally_of(app, down=False, per_operation=20)
