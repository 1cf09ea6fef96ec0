"""Sets that a release is judged by: steps of sessions, ranked among many items, sliced by what is wanted.

Reads, writes  nothing: sessions and products in memory
Never          decides which sessions may be judged by: model/examples.py keeps them apart
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from model.evaluation import RetrievalSet
from model.example_texts import Texts
from model.exposure import ExposureSet, groups_of
from model.learning_settings import ExposureSettings, PairSettings
from model.sessions import Item, Session, steps_of
from model.transfer import PERIOD

#: The newest periods that are judged apart, the steps one must have, and the queries asked of it.
_PERIODS, _PERIOD_STEPS, _PERIOD_QUERIES = 12, 50, 500


def retrieval_set(
    name: str,
    steps: Sequence[tuple[str, str]],
    table: Texts,
    catalogue: Mapping[str, Item],
    often: Counter[str],
    settings: PairSettings,
    generator: np.random.Generator,
    *,
    most: int | None = None,
    others: Sequence[str] | None = None,
) -> RetrievalSet:
    """At most so many steps, ranked among their own items and others, with slices by what is wanted.

    Where the `others` are given they fill up, in their order, and there are no slices.
    """
    limit = min(most or settings.max_queries, len(steps))
    chosen = [steps[row] for row in sorted(generator.choice(len(steps), limit, replace=False))]
    items = list(dict.fromkeys(item for step in chosen for item in step))
    if others is None:
        rest = sorted(set(catalogue) - set(items))
        generator.shuffle(rest)
    else:
        own = set(items)
        rest = [item for item in others if item not in own]
    items += rest[: max(0, settings.candidates - len(items))]
    rows = {item: row for row, item in enumerate(items)}
    targets = [target for _, target in chosen]
    slices = _slices(targets, items, catalogue, often) if others is None else {}
    return RetrievalSet(
        name=name,
        texts=[table.texts[table.item(item)] for item in items],
        queries=np.array([rows[query] for query, _ in chosen], dtype=np.int64),
        targets=np.array([rows[target] for target in targets], dtype=np.int64),
        slices=slices,
    )


def sets_by_period(
    sessions: Sequence[Session],
    period_ms: int,
    table: Texts,
    catalogue: Mapping[str, Item],
    often: Counter[str],
    settings: PairSettings,
    generator: np.random.Generator,
) -> list[RetrievalSet]:
    """A set for each of the newest periods with enough steps, all ranked among much the same items."""
    found: dict[int, list[tuple[str, str]]] = {}
    for session in sessions:
        found.setdefault(session.starts_ms // period_ms * period_ms, []).extend(steps_of([session]))
    starts = [start for start, steps in sorted(found.items()) if len(steps) >= _PERIOD_STEPS][-_PERIODS:]
    others = sorted(catalogue)
    generator.shuffle(others)
    return [
        retrieval_set(
            f"{PERIOD}{datetime.fromtimestamp(start / 1000, UTC).date()}",
            found[start],
            table,
            catalogue,
            often,
            settings,
            generator,
            most=_PERIOD_QUERIES,
            others=others,
        )
        for start in starts
    ]


def exposure_set(
    sets: Sequence[RetrievalSet],
    table: Texts,
    catalogue: Mapping[str, Item],
    settings: PairSettings,
    exposure: ExposureSettings,
    generator: np.random.Generator,
) -> ExposureSet:
    """Items that the sets have in any case, at most `candidates`, so that no text is encoded for it.

    The neighbours of at most `max_queries` of them are looked at.
    """
    judged = {text for one in sets for text in one.texts}
    items = [item for item in sorted(catalogue) if table.texts[table.item(item)] in judged]
    if len(items) > settings.candidates:
        kept = generator.choice(len(items), settings.candidates, replace=False)
        items = [items[row] for row in sorted(kept)]
    asked = generator.choice(len(items), min(settings.max_queries, len(items)), replace=False)
    families: dict[str, int] = {}
    products = [catalogue[item].product for item in items]
    return ExposureSet(
        texts=[table.texts[table.item(item)] for item in items],
        queries=np.sort(asked).astype(np.int64),
        groups=groups_of(products, exposure),
        families=np.array(
            [
                -1 if one.group_id is None else families.setdefault(one.group_id, len(families))
                for one in products
            ],
            dtype=np.int64,
        ),
    )


def _slices(
    targets: Sequence[str], items: Sequence[str], catalogue: Mapping[str, Item], often: Counter[str]
) -> dict[str, NDArray[np.bool_]]:
    counts = np.array([often[target] for target in targets])
    popular = np.quantile([often[item] for item in items], 0.9)
    slices: dict[str, NDArray[np.bool_]] = {
        "cold": counts == 0,
        "warm": counts > 0,
        "popular": counts > popular,
        "long tail": (counts > 0) & (counts <= popular),
    }
    categories = [(catalogue[target].product.category or [""])[0] for target in targets]
    languages = [catalogue[target].product.language or "" for target in targets]
    for kind, values in (("category", categories), ("language", languages)):
        for value, _ in Counter(values).most_common(8):
            if value:
                slices[f"{kind} {value}"] = np.array([one == value for one in values])
    return slices
