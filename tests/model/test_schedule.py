"""model/schedule.py: each reason to train, and each reason to wait. Time is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from adapters.archive import EVENTS
from model.evaluation import Interval
from model.learning_settings import PairSettings, ScheduleSettings
from model.schedule import Decision, Drift, Reference, decide, measure_drift, reference_of
from model.sessions import Item
from model.text import ProductText
from schemas.events import Product

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SETTINGS = ScheduleSettings(
    interval_hours=24, new_events=1_000, least_hours=2, least_events=100, hit_rate_fall=0.03
)
CALM = Drift(catalogue=0.01, embedding=0.02, hits=Interval(0.0, -0.02, 0.02))


def reference(hours_ago: float) -> Reference:
    return Reference(at=NOW - timedelta(hours=hours_ago), ends={}, until_ms=0, cells={}, texts=[])


def decided(
    hours_ago: float | None,
    new_events: int,
    drift: Drift | None = None,
    settings: ScheduleSettings = SETTINGS,
) -> Decision:
    def measured() -> Drift:
        if drift is None:
            pytest.fail("drift was measured where a cheaper reason decides")
        return drift

    return decide(
        now=NOW,
        reference=None if hours_ago is None else reference(hours_ago),
        new_events=new_events,
        settings=settings,
        measure=measured,
    )


@pytest.mark.parametrize(
    ("hours_ago", "new_events", "drift", "trains", "reason"),
    [
        (None, 500, None, True, "nothing was trained yet"),
        (None, 99, None, False, "too few"),
        (100, 99, None, False, "too few"),
        (1.9, 5_000, None, False, "lie between two"),
        (24, 100, None, True, "the interval"),
        (3, 1_000, None, True, "enough that is new"),
        (3, 999, CALM, False, "nothing has changed"),
        (3, 999, CALM._replace(catalogue=0.26), True, "the catalogue has changed"),
        (3, 999, CALM._replace(embedding=0.26), True, "shoppers look at"),
        (3, 999, CALM._replace(hits=Interval(-0.05, -0.08, -0.02)), True, "found less often"),
        (3, 999, CALM._replace(hits=Interval(-0.05, -0.12, 0.02)), False, "nothing has changed"),
        (3, 999, CALM._replace(hits=Interval(-0.02, -0.025, -0.015)), False, "nothing has changed"),
        (3, 999, CALM._replace(hits=None), False, "nothing has changed"),
    ],
)
def test_each_reason(
    hours_ago: float | None, new_events: int, drift: Drift | None, trains: bool, reason: str
) -> None:
    found = decided(hours_ago, new_events, drift)
    assert (found.train, found.at) == (trains, NOW)
    assert reason in found.reason
    assert found.figures["new events"] == new_events


def test_a_reason_that_is_switched_off_is_none() -> None:
    without = SETTINGS.model_copy(update={"interval_hours": None, "new_events": None})
    assert not decided(1_000, 50_000, CALM, settings=without).train


# --- drift, measured ---------------------------------------------------------------------------------

RECIPE = ProductText()
ITEMS = [f"{department}-{number}" for department in ("books", "toys") for number in range(30)]


def catalogue(more: Sequence[str] = ()) -> dict[str, Item]:
    return {
        item: Item(Product(title=item.replace("-", " "), category=[item.split("-")[0]]))
        for item in [*ITEMS, *more]
    }


def events(sessions: int, *, start_ms: int, of: Sequence[str], steps: int, seed: int) -> pa.Table:
    """Sessions of two items; the second lies so many places after the first."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for session in range(sessions):
        place = int(generator.integers(len(of)))
        for step in range(2):
            rows.append(
                {
                    "shopper": f"u{seed}-{session}",
                    "product": of[(place + step * steps) % len(of)],
                    "category": "",
                    "type": "click",
                    "at_ms": start_ms + session * 1_000 + step,
                    "topic": "t",
                    "partition": 0,
                    "offset": len(rows),
                }
            )
    return pa.Table.from_pylist(rows, schema=EVENTS)


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    """Items lie on a circle in the order of the catalogue; a new department elsewhere."""
    found = np.zeros((len(texts), 3), dtype=np.float32)
    for row, text in enumerate(texts):
        department, number = text.split(".")[0].split()
        if department == "garden":
            found[row, 2] = 1.0
        else:
            angle = 2 * np.pi * ITEMS.index(f"{department}-{number}") / len(ITEMS)
            found[row, :2] = np.cos(angle), np.sin(angle)
    return found


def drift(newer: pa.Table, shop: dict[str, Item], older: pa.Table | None = None) -> Drift:
    older = events(800, start_ms=0, of=ITEMS, steps=1, seed=1) if older is None else older
    seen = reference_of(older, catalogue(), RECIPE, ends={"t-0": 400}, at=NOW, settings=PairSettings())
    return measure_drift(
        pa.concat_tables([older, newer]),
        shop,
        RECIPE,
        reference=seen,
        settings=PairSettings(),
        encode=encode,
        seed=1,
    )


def test_more_of_the_same_is_no_drift() -> None:
    found = drift(events(200, start_ms=10**6, of=ITEMS, steps=1, seed=2), catalogue())
    assert found.catalogue == 0
    assert found.embedding < 0.25
    assert found.hits is not None
    assert found.hits.high >= 0


def test_shoppers_who_go_elsewhere_are_found_less_often() -> None:
    found = drift(events(200, start_ms=10**6, of=ITEMS, steps=25, seed=2), catalogue())
    assert found.hits is not None
    assert found.hits.value < -0.5
    assert found.hits.high < 0


def test_what_the_last_run_was_trained_on_is_no_measure_of_what_came_since() -> None:
    # The live release finds the steps that it learned from, and of those it has not seen none: as since.
    learned = events(800, start_ms=0, of=ITEMS, steps=1, seed=1)
    window = events(220, start_ms=900_000, of=ITEMS, steps=25, seed=3)
    newer = events(200, start_ms=2 * 10**6, of=ITEMS, steps=25, seed=2)
    found = drift(newer, catalogue(), pa.concat_tables([learned, window]))
    assert found.hits is not None
    assert abs(found.hits.value) < 0.1
    assert found.hits.high >= 0


def test_a_quiet_shop_that_is_looked_at_often_is_found_as_often_as_before() -> None:
    def both(count: int, *, start_ms: int, seed: int) -> pa.Table:
        """Half of the steps are found and half are not, by chance."""
        chosen = np.random.default_rng(seed).random(count) < 0.5
        near = events(count, start_ms=start_ms, of=ITEMS, steps=1, seed=seed)
        far = events(count, start_ms=start_ms, of=ITEMS, steps=25, seed=seed)
        rows = np.repeat(chosen, 2)
        return pa.concat_tables([near.filter(pa.array(rows)), far.filter(pa.array(~rows))])

    older = both(2_000, start_ms=0, seed=1)
    # With 500 steps drawn anew at each look, at 95 %, the first of them would be a fall at its second look.
    for seed in (4, 5):
        newer = both(1_500, start_ms=10**7, seed=seed)
        for look in range(500, 1_000, 50):
            until = pa.array(newer["at_ms"].to_numpy() < 10**7 + look * 1_000, pa.bool_())
            found = drift(newer.filter(until), catalogue(), older)
            assert found.hits is not None
            assert not (found.hits.high < 0 and found.hits.value < -ScheduleSettings().hit_rate_fall)


def test_a_reference_of_an_earlier_version_measures_no_hit_rate() -> None:
    assert reference(hours_ago=1).untrained_ms is None


def test_a_new_department_changes_catalogue_and_what_is_looked_at() -> None:
    garden = [f"garden-{number}" for number in range(30)]
    found = drift(events(200, start_ms=10**6, of=garden, steps=1, seed=2), catalogue(garden))
    assert found.catalogue > 0.25
    assert found.embedding > 0.25


def test_too_few_newer_steps_say_nothing_of_the_hit_rate() -> None:
    assert drift(events(20, start_ms=10**6, of=ITEMS, steps=25, seed=2), catalogue()).hits is None
