"""benchmarks/sketching.py: what it makes in bulk is what the consumer leaves in Redis, event by event."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, cast

import numpy as np
import pytest

from adapters.redis_behaviour import BehaviourStore
from adapters.redis_client import RedisSettings, connect
from adapters.redis_nodes import RedisNodes
from benchmarks.sketching import Interactions, Likeness, sketches_of
from consumers.behaviour import BehaviourHandler
from consumers.interest import SketchSettings
from consumers.shopper_vectors import ShopperVectors, VectorSettings
from schemas.events import UserEvent
from schemas.vectors import SparseVector
from tests.consumers.test_behaviour import NOW, SETTINGS, SKETCH, TOPICS, Publisher, feed
from tests.support.behaviour_oracle import Logged
from tests.support.servers import Redis


@pytest.fixture
def store(redis_server: Redis, namespace: str) -> Iterator[BehaviourStore]:
    client = connect(RedisSettings(url=redis_server.url))
    yield BehaviourStore(nodes=RedisNodes(client), namespace=namespace, sketch_members=SKETCH.members)
    client.close()


def drawn(count: int) -> Interactions:
    """Purchases of 80 shoppers and 12 items, popular and not; some are repeated later."""
    draw = Random(3)
    shopper = np.array([draw.randrange(80) for _ in range(count)])
    item = np.array([min(11, int(draw.expovariate(0.35))) for _ in range(count)])
    start = (NOW - timedelta(days=60)).timestamp()
    at = np.array([float(int(start + draw.uniform(0, 59 * 86_400))) for _ in range(count)])
    return Interactions(
        [f"u{n}" for n in range(80)], [f"i{n}" for n in range(12)], shopper, item, at, shopper
    )


def test_sketches_made_in_bulk_are_those_of_the_consumer(store: BehaviourStore) -> None:
    events = drawn(600)
    log = [
        Logged(
            0,
            number,
            int(NOW.timestamp() * 1_000),
            UserEvent(
                event_id=str(number),
                type="purchase",
                user_id=events.shoppers[shopper],
                product_id=events.items[item],
                occurred_at=datetime.fromtimestamp(second, UTC),
            ),
        )
        for number, (shopper, item, second) in enumerate(
            zip(events.shopper, events.item, events.at_seconds, strict=True)
        )
    ]
    handler = BehaviourHandler(
        topics=TOPICS, settings=SETTINGS, publisher=cast(Any, Publisher()), store=store
    )
    feed(handler, log)
    handler.close()
    made = sketches_of(events, SKETCH)
    states, sketches = store.states(events.items), store.sketches(events.items)
    overfull = 0
    for state, kept, header, ours in zip(states, sketches, made.headers, made.members, strict=True):
        assert state is not None
        theirs = state.header
        assert (header.tau, header.members, header.shoppers) == (theirs.tau, theirs.members, theirs.shoppers)
        assert list(ours) == [(member, score) for member, score in kept]
        overfull += theirs.members == SKETCH.members
    assert overfull > 3
    settings = VectorSettings(shrinkage=3.0, norm_exponent=0.6)
    theirs_vectors = ShopperVectors(store=store, settings=settings).read(events.items)
    for name, vector in zip(events.items, made.vectors(settings), strict=True):
        assert vector == theirs_vectors[name].vector


def test_nearest_are_the_largest_products_without_the_item_itself() -> None:
    draw = Random(1)
    vectors = []
    for _ in range(30):
        indices = sorted(draw.sample(range(2**31, 2**31 + 40), draw.randrange(1, 9)))
        vectors.append(SparseVector(tuple(indices), tuple(draw.uniform(0.1, 1) for _ in indices)))
    likeness = Likeness.of(vectors)
    for row, one in enumerate(vectors):
        asked = dict(zip(one.indices, one.values, strict=True))
        products = {
            other: sum(asked.get(i, 0.0) * v for i, v in zip(vector.indices, vector.values, strict=True))
            for other, vector in enumerate(vectors)
            if other != row
        }
        wanted = sorted((n for n in products if products[n] > 0), key=lambda n: -products[n])[:5]
        assert likeness.nearest(row, 5) == wanted


def test_a_larger_exponent_of_the_norm_takes_from_popular_items() -> None:
    events = drawn(600)
    made = sketches_of(events, SketchSettings(members=128))
    plain, corrected = (made.vectors(VectorSettings(norm_exponent=exponent)) for exponent in (0.5, 0.8))
    people = np.array([header.shoppers for header in made.headers])
    left = np.array([one.values[0] / other.values[0] for one, other in zip(corrected, plain, strict=True)])
    assert left[people.argmax()] < left[people.argmin()]
