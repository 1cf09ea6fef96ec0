"""From a record on user.events to an item's neighbours: Kafka, Redis and the index, on either broker."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from consumers.behaviour import BehaviourSettings
from consumers.debounce import DebounceSettings
from schemas.behaviour import Trending
from schemas.events import ProductUpserted, UserEvent, UserEventType
from schemas.vectors import BEHAVIOUR, DimensionQuery, SparseVector
from tests.connected.conftest import MakePipeline
from tests.support.pipeline import Pipeline

#: How long after the debounce a neighbour may take (the promise is one second; a busy machine gets five).
PROMISED_SECONDS, SLACK = 1.0, 5.0


@pytest.fixture
def pipeline(make_pipeline: MakePipeline) -> Iterator[Pipeline]:
    """Products, embeddings and behaviour running."""
    with make_pipeline() as running:
        running.start_behaviour()
        yield running


def product(product_id: str) -> ProductUpserted:
    return ProductUpserted(
        product_id=product_id, revision=1, occurred_at=datetime.now(UTC), title=f"Lamp {product_id}"
    )


def did(user_id: str, product_id: str, number: int = 0, *, kind: UserEventType = "view") -> UserEvent:
    return UserEvent(
        event_id=f"{user_id}-{product_id}-{kind}-{number}",
        type=kind,
        user_id=user_id,
        product_id=product_id,
        occurred_at=datetime.now(UTC),
    )


class Seen(NamedTuple):
    """What shop and shoppers see of one item."""

    vector: SparseVector
    neighbours: dict[str, float]
    conversion: float | None
    shoppers: int


def neighbours(
    pipeline: Pipeline, product_id: str, others: list[str]
) -> tuple[SparseVector, dict[str, float]]:
    """The item's behaviour vector, and the others' scores with it."""
    point = pipeline.point(product_id)
    assert point is not None
    vector = point.vectors[BEHAVIOUR]
    assert isinstance(vector, SparseVector)
    query = DimensionQuery(BEHAVIOUR, vector, weight=1.0)
    (scores,) = pipeline.index.scores(pipeline.collection, [query], others)
    return vector, scores


def seen(pipeline: Pipeline, product_id: str, others: list[str]) -> Seen:
    point = pipeline.point(product_id)
    assert point is not None
    figures = pipeline.reader.figures([product_id])[product_id]
    found = neighbours(pipeline, product_id, others)
    return Seen(*found, figures.conversion("1h"), point.payload["shoppers"])


def views(pipeline: Pipeline, product_id: str) -> int:
    return pipeline.reader.figures([product_id])[product_id].totals["view"]


def trending(pipeline: Pipeline) -> list[Trending]:
    return pipeline.reader.trending("1h", limit=10)


def test_a_flood_by_one_account_moves_nothing_and_a_thousand_accounts_move_as_many_shoppers(
    pipeline: Pipeline,
) -> None:
    others = ["twin", "near", "far"]
    pipeline.publish([product(one) for one in ("target", *others)])
    for number in range(40):
        shopper = f"s{number}"
        pipeline.publish([did(shopper, one) for one in ("target", "twin")])
        if number < 20:
            pipeline.publish([did(shopper, "near")])
        if number < 10:
            pipeline.publish([did(shopper, one, kind="purchase") for one in ("target", "twin")])
    pipeline.publish([did(f"f{number}", "far") for number in range(30)])
    pipeline.publish([did("bot", one) for one in ("target", "twin")])
    pipeline.wait_until_drained()
    before, trend = seen(pipeline, "target", others), trending(pipeline)
    assert before == seen(pipeline, "twin", others)
    assert before.neighbours["near"] > 0
    assert before.shoppers == 41
    assert {one.item_id for one in trend} == {"target", *others}

    pipeline.publish(did("bot", "target", number) for number in range(1, 10_000))
    pipeline.wait_until_drained(60.0)
    assert views(pipeline, "target") == views(pipeline, "twin") + 9_999 == 10_040
    assert seen(pipeline, "target", others) == before
    assert trending(pipeline) == trend

    pipeline.publish(did(f"c{number}", "target") for number in range(1_000))
    pipeline.wait_until_drained(60.0)
    after = seen(pipeline, "target", others)
    assert views(pipeline, "target") == 11_040
    # Three standard errors of the register sketch.
    assert after.shoppers == pytest.approx(1_041, rel=0.4)
    best = trending(pipeline)[0]
    assert best.item_id == "target"
    assert best.shoppers == pytest.approx(1_041, rel=0.4)
    assert before.conversion == pytest.approx(10 / 41, rel=0.4)
    assert after.conversion == pytest.approx(10 / 1_041, rel=0.6)
    # Of its shoppers 1 in 26 knows the twin, where all did; and who looks from 'near' finds the twin first.
    assert after.neighbours.get("twin", 0.0) < before.neighbours["twin"] / 3
    near = seen(pipeline, "near", ["target", "twin"]).neighbours
    assert near.get("target", 0.0) < near["twin"] / 2


def test_an_event_changes_neighbours_within_a_second_of_its_debounce(make_pipeline: MakePipeline) -> None:
    delay, pairs = 1.0, range(5)
    debounce = DebounceSettings(delay_seconds=delay, max_delay_seconds=60.0, interval_seconds=0.05)
    took = []
    with make_pipeline(behaviour=BehaviourSettings(debounce=debounce)) as pipeline:
        pipeline.start_behaviour()
        pipeline.publish([product(f"{side}{pair}") for side in "ab" for pair in pairs])
        pipeline.publish([did(f"s{pair}-{shopper}", f"a{pair}") for pair in pairs for shopper in range(3)])
        pipeline.wait_until_drained()
        for pair in pairs:
            # Nobody knows b yet; with its first shopper it becomes a neighbour of a.
            started = time.monotonic()
            pipeline.publish([did(f"s{pair}-0", f"b{pair}")])
            pipeline.shop.flush()
            while not neighbours(pipeline, f"a{pair}", [f"b{pair}"])[1].get(f"b{pair}"):
                assert time.monotonic() < started + delay + SLACK * PROMISED_SECONDS, (
                    f"b{pair} is no neighbour"
                )
                time.sleep(0.01)
            took.append(time.monotonic() - started - delay)
    print(
        f"changed neighbours {statistics.median(took):.2f} s after the debounce of {delay:.0f} s (median of "
        f"{len(took)}), {max(took):.2f} s at most"
    )
    assert min(took) > -0.01, "the debounce was not waited for"
