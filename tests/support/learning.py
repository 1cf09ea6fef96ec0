"""A little world to learn: words that go together, which a random model knows nothing about."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from adapters.releases import ReleaseSettings, ReleaseStore
from model.evaluation import RetrievalSet
from model.examples import Prepared
from model.exposure import ExposureSet, Grouping
from model.pairs import PairTable
from model.recipe import Recipe
from model.release import first_release
from model.settings import ModelSettings
from tests.support.tiny_model import write_tiny_model

NOW = datetime(2026, 11, 25, tzinfo=UTC)
COLOURS = ("red", "blue", "steel", "running")
THINGS = ("lamp", "shoe", "drill", "battery")
#: Trains in a second or two and overfits, which is what tests want to see.
QUICK = Recipe(
    seed=3,
    epochs=4,
    batch_pairs=8,
    learning_rate=5e-3,
    distil=0,
    replay=0,
    evaluations=2,
    dropout=0.0,
    tracking=(),
)


def little_pairs(count: int = 48, *, seed: int = 0) -> PairTable:
    """Texts of one colour belong together, whatever the thing; so 4 groups of texts."""
    generator = np.random.default_rng(seed)
    texts = [f"{colour} {thing} {number}" for colour in COLOURS for thing in THINGS for number in range(4)]
    colour_of = np.repeat(np.arange(len(COLOURS)), len(THINGS) * 4)
    anchors, positives = [], []
    for _ in range(count):
        members = np.flatnonzero(colour_of == generator.integers(len(COLOURS)))
        one, other = generator.choice(members, 2, replace=False)
        anchors.append(one)
        positives.append(other)
    return PairTable(
        texts=texts,
        groups=np.arange(len(texts), dtype=np.int64),
        anchors=np.array(anchors, dtype=np.int64),
        positives=np.array(positives, dtype=np.int64),
        weights=np.ones(count, dtype=np.float32),
        related=[
            (int(one), int(other))
            for colour in range(len(COLOURS))
            for one in np.flatnonzero(colour_of == colour)
            for other in np.flatnonzero(colour_of == colour)
            if one < other
        ],
    )


def little_set(name: str, table: PairTable, count: int = 40, *, seed: int = 1) -> RetrievalSet:
    """Queries whose target is another text of the same colour."""
    generator = np.random.default_rng(seed)
    related = [table.related[row] for row in generator.choice(len(table.related), count, replace=False)]
    return RetrievalSet(
        name=name,
        texts=table.texts,
        queries=np.array([one for one, _ in related], dtype=np.int64),
        targets=np.array([other for _, other in related], dtype=np.int64),
        slices={"first half": np.arange(count) < count // 2},
    )


def little_examples() -> Prepared:
    """What a run needs."""
    table = little_pairs()
    return Prepared(
        pairs=table,
        validation=little_set("validation", table, 20, seed=2),
        sets=[little_set("new window", table), little_set("old", table, seed=4)],
        exposure=ExposureSet(
            texts=table.texts,
            queries=np.arange(len(table.texts), dtype=np.int64),
            groups={"brand": Grouping(THINGS, np.arange(len(table.texts)) // 4 % len(THINGS))},
            families=np.full(len(table.texts), -1, dtype=np.int64),
        ),
        anchors=list(table.texts),
        counts={"items": len(table.texts)},
        tables={
            "categories": {
                "text": list(table.texts),
                "label": np.repeat(np.arange(4), len(table.texts) // 4).tolist(),
            }
        },
    )


def tiny_release(folder: Path) -> tuple[ReleaseStore, str, ModelSettings]:
    """A releases folder with the first release of a tiny random model."""
    settings = ModelSettings(name=str(write_tiny_model(folder / "tiny")), device="cpu", dtype="fp32")
    store = ReleaseStore(ReleaseSettings(url=str(folder / "releases")))
    return store, first_release(settings, store, created_at=NOW).release_id, settings
