"""When to train again: after an interval, on enough that is new, or when shop or shoppers have moved on.

Reads   rows of the archive, the catalogue, vectors of the live release: handed in
Writes  nothing
Never   asks the clock, or measures drift where the cheaper reasons have decided already

Drift is measured against what the last run saw (`Reference`): the catalogue's shares, the texts that shoppers
looked at, encoded by the release that is live now, and how often that release finds the next item: since, and
in the last run's new window. What it was trained on is no measure: it finds that more often than what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from math import isfinite
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import AwareDatetime

from model.drift import (
    catalogue_cells,
    change_of_mean,
    embedding_stability,
    population_stability,
    weighted_sample,
)
from model.evaluation import Interval, hits_at, ranks_of
from model.learning_settings import PairSettings, ScheduleSettings
from model.sessions import Item, Session, new_window_from, sessions_of, share_of, steps_of
from model.text import ProductText
from schemas.events import Frozen

Encode = Callable[[Sequence[str]], NDArray[np.float32]]

#: Texts that stand for what shoppers look at; steps on either side; items that are ranked.
_TEXTS, _STEPS, _ITEMS = 500, 1_000, 1_000
#: Fewer steps on either side show no change of a hit rate.
_LEAST_STEPS = 100
#: It is looked at every few minutes, and a fall by chance is to be rare in a week of that.
_CONFIDENCE = 0.995


class Reference(Frozen):
    """What the last run saw: `ends` by partition of the archive, events up to `until_ms`, and the shop.

    Sessions from `untrained_ms` on were its new window; None where the run was one of an earlier version.
    """

    at: AwareDatetime
    ends: dict[str, int]
    until_ms: int
    untrained_ms: int | None = None
    cells: dict[str, dict[str, int]]
    texts: list[str]


class Drift(NamedTuple):
    """How far things have moved. `hits` is the change of hit@10, None where there are too few steps."""

    catalogue: float
    embedding: float
    hits: Interval | None


class Decision(Frozen):
    """Whether to train now, and why, in a sentence; `figures` are what it was decided by."""

    at: AwareDatetime
    train: bool
    reason: str
    figures: dict[str, float] = {}


def reference_of(
    table: pa.Table,
    catalogue: Mapping[str, Item],
    recipe: ProductText,
    *,
    ends: Mapping[str, int],
    at: datetime,
    settings: PairSettings,
) -> Reference:
    """What a run that starts now sees; `table` is the archive's window."""
    times = table["at_ms"].to_numpy()
    cut_ms = new_window_from(_sessions(table, catalogue, settings), settings.window_share)
    return Reference(
        at=at,
        ends=dict(ends),
        until_ms=int(times.max()) if len(times) else 0,
        untrained_ms=int(cut_ms) if isfinite(cut_ms) else None,
        cells=catalogue_cells(item.product for item in catalogue.values()),
        texts=_looked_at(table, catalogue, recipe),
    )


def decide(
    *,
    now: datetime,
    reference: Reference | None,
    new_events: int,
    settings: ScheduleSettings,
    measure: Callable[[], Drift],
) -> Decision:
    """`new_events` are those since the reference, or all there are before the first run."""
    figures = {"new events": float(new_events)}

    def answer(train: bool, reason: str) -> Decision:
        return Decision(at=now, train=train, reason=reason, figures=figures)

    if new_events < settings.least_events:
        return answer(False, f"{new_events} new events are too few: {settings.least_events} are needed")
    if reference is None:
        return answer(True, f"nothing was trained yet, and there are {new_events} events")
    since = now - reference.at
    hours = since.total_seconds() / 3600
    figures["hours since the last run"] = round(hours, 3)
    if since < timedelta(hours=settings.least_hours):
        return answer(
            False, f"the last run was {hours:.1f} h ago: {settings.least_hours:g} h lie between two"
        )
    if settings.interval_hours is not None and since >= timedelta(hours=settings.interval_hours):
        return answer(True, f"the interval: the last run was {hours:.1f} h ago")
    if settings.new_events is not None and new_events >= settings.new_events:
        return answer(True, f"enough that is new: {new_events} events")
    drift = measure()
    figures["catalogue stability"] = round(drift.catalogue, 4)
    figures["embedding stability"] = round(drift.embedding, 4)
    if drift.catalogue > settings.catalogue_drift:
        return answer(True, f"the catalogue has changed: stability index {drift.catalogue:.3f}")
    if drift.embedding > settings.embedding_drift:
        return answer(True, f"what shoppers look at has changed: stability index {drift.embedding:.3f}")
    if drift.hits is not None:
        figures["change of hit@10"] = round(drift.hits.value, 4)
        # Surely lower, and by enough to matter.
        if drift.hits.high < 0 and drift.hits.value < -settings.hit_rate_fall:
            return answer(
                True,
                f"the newest steps are found less often: hit@10 changed by {drift.hits.value:+.4f} "
                f"[{drift.hits.low:+.4f}, {drift.hits.high:+.4f}]",
            )
    return answer(False, "nothing has changed enough")


def measure_drift(
    table: pa.Table,
    catalogue: Mapping[str, Item],
    recipe: ProductText,
    *,
    reference: Reference,
    settings: PairSettings,
    encode: Encode,
    seed: int,
) -> Drift:
    """Compare the archive's window and the catalogue with the reference; `encode` is the live release's."""
    cells = catalogue_cells(item.product for item in catalogue.values())
    newer = table.filter(pa.array(table["at_ms"].to_numpy() > reference.until_ms, pa.bool_()))
    texts = _looked_at(newer, catalogue, recipe)
    return Drift(
        catalogue=max(
            (population_stability(reference.cells[name], cells.get(name, {})) for name in reference.cells),
            default=0.0,
        ),
        embedding=embedding_stability(encode(reference.texts), encode(texts))
        if reference.texts and texts
        else 0.0,
        hits=_change_of_hits(table, catalogue, recipe, reference, settings, encode, seed),
    )


def _sessions(table: pa.Table, catalogue: Mapping[str, Item], settings: PairSettings) -> Sequence[Session]:
    gap_ms = round(settings.session_gap_minutes * 60_000)
    return sessions_of(table, catalogue, gap_ms, settings.position_bias)


def _some_steps(sessions: Sequence[Session]) -> list[tuple[str, str]]:
    """Of sessions drawn by a hash: two looks see nearly the same, and are no two chances to be wrong."""
    drawn = sorted(sessions, key=lambda session: share_of("drift " + session.name))
    return [*islice(steps_of(drawn), _STEPS)]


def _looked_at(table: pa.Table, catalogue: Mapping[str, Item], recipe: ProductText) -> list[str]:
    items = [item for item in table["product"].to_pylist() if item in catalogue]
    return [recipe.content(catalogue[item].product) for item in weighted_sample(items, most=_TEXTS, seed=1)]


def _change_of_hits(
    table: pa.Table,
    catalogue: Mapping[str, Item],
    recipe: ProductText,
    reference: Reference,
    settings: PairSettings,
    encode: Encode,
    seed: int,
) -> Interval | None:
    """hit@10 of steps since the reference less that of its new window, among the same items."""
    if reference.untrained_ms is None:
        return None
    first, last = reference.untrained_ms, reference.until_ms
    sessions = _sessions(table, catalogue, settings)
    sides = [
        _some_steps([one for one in sessions if first <= one.starts_ms <= last]),
        _some_steps([one for one in sessions if one.starts_ms > last]),
    ]
    if min(map(len, sides)) < _LEAST_STEPS:
        return None
    generator = np.random.default_rng(seed)
    items = list(dict.fromkeys(item for side in sides for step in side for item in step))
    rest = sorted(set(catalogue) - set(items))
    generator.shuffle(rest)
    items += rest[: max(0, _ITEMS - len(items))]
    place = {item: row for row, item in enumerate(items)}
    vectors = encode([recipe.content(catalogue[item].product) for item in items])
    before, after = (
        hits_at(
            ranks_of(
                vectors,
                np.array([place[one] for one, _ in side], dtype=np.int64),
                np.array([place[other] for _, other in side], dtype=np.int64),
            ),
            10,
        )
        for side in sides
    )
    return change_of_mean(before, after, seed=seed, confidence=_CONFIDENCE)
