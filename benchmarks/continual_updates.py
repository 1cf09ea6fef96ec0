"""Chains of updates, as `simstream train` makes them: each one's parent is the release before it.

Reads   purchases by period (benchmarks/continual_data.py); the base model
Writes  one file per finished update under the work folder, releases meanwhile
Never   trains in a way of its own: examples, run, training and publishing are the product's; and never goes
        on with updates that were made with other settings

A killed run goes on where it was: finished updates are files, the unfinished one has its own checkpoints.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from adapters.archive import EVENTS
from adapters.releases import ReleaseSettings, ReleaseStore
from benchmarks.continual_data import World
from benchmarks.transfer import Chain
from model.candidate import finish, new_run, open_run
from model.evaluation import Floats
from model.examples import prepare
from model.learning_settings import GateSettings, PairSettings
from model.recipe import Recipe
from model.release import first_release, load_release, release_recipe
from model.settings import ModelSettings
from schemas.events import Frozen

#: Each way to learn: what it changes in the recipe. Every one trains on as many pairs per update.
VARIANTS: Mapping[str, Mapping[str, float]] = {
    "incremental": {},
    # There is nothing old to hold: every period so far is in the data.
    "joint": {"replay": 0.0, "distil": 0.0},
    "without replay": {"replay": 0.0},
    "without distillation": {"distil": 0.0},
    "without both": {"replay": 0.0, "distil": 0.0},
}
#: The first update has no past yet, and is the same for all of them.
FIRST = "first"


class Plan(Frozen):
    """What makes the figures of a work folder comparable: all of it is written there."""

    pairs: int = Field(ge=2)
    baskets: int
    queries: int
    periods: int
    recipe: Recipe
    settings: PairSettings


class Update(NamedTuple):
    """A finished update: the release it left, hits per period, how long it took, what the gate said."""

    release: str
    hits: list[Floats]
    seconds: float
    passed: bool
    counts: Mapping[str, int]


class Chainer:
    """Makes the chains of one work folder."""

    def __init__(self, out: Path, plan: Plan, settings: ModelSettings) -> None:
        out.mkdir(parents=True, exist_ok=True)
        kept, told = out / "plan.json", plan.model_dump_json(indent=1, exclude_defaults=True)
        if kept.exists() and kept.read_text() != told:
            raise ValueError(f"{out} holds updates with other settings ({kept}): choose another folder")
        kept.write_text(told)
        self._out = out
        self._plan = plan
        self._settings = settings
        self._store = ReleaseStore(ReleaseSettings(url=str(out / "releases")))
        self.made = 0

    def hits(self, world: World, release: str, *, exchanged: bool = False) -> list[Floats]:
        """Hits of a release on every period; `exchanged` gives each item another one's vector."""
        loaded = load_release(self._store, release, self._settings)
        try:
            texts = [loaded.recipe.content(item.product) for item in world.catalogue.values()]
            vectors = loaded.encoder.encode_array(texts)
        finally:
            loaded.encoder.close()
        if exchanged:
            vectors = np.random.default_rng(1).permutation(vectors)
        return [period.test.hits(vectors) for period in world.periods]

    def base(self, world: World, sequence: str) -> Update:
        """Before the first update."""
        path = self._out / sequence / "base.npz"
        found = _read(path)
        manifest = first_release(self._settings, self._store, created_at=datetime.now(UTC))
        if found is None:
            found = Update(manifest.release_id, self.hits(world, manifest.release_id), 0.0, True, {})
            _write(path, found)
        return found

    def chain(self, world: World, sequence: str, seed: int, variant: str) -> Chain:
        """Row 0 is the base model; what is not there yet is made."""
        before = self.base(world, sequence)
        rows = [before.hits]
        for number in range(1, len(world.periods) + 1):
            before = self.update(world, sequence, seed, variant if number > 1 else FIRST, number, before)
            rows.append(before.hits)
        return rows

    def update(
        self, world: World, sequence: str, seed: int, variant: str, number: int, parent: Update
    ) -> Update:
        """One update, if it is not finished; its parent's release goes, unless others start from it."""
        folder = self._out / sequence / f"seed-{seed}" / variant.replace(" ", "-")
        path = folder / f"update-{number}.npz"
        found = _read(path)
        if found is not None:
            return found
        started = time.monotonic()
        recipe = self._plan.recipe.model_copy(update={"seed": seed, **VARIANTS.get(variant, {})})
        events = [period.events for period in world.periods[:number]]
        joint = variant == "joint"
        prepared = prepare(
            recent=pa.concat_tables(events) if joint else events[-1],
            past=EVENTS.empty_table() if joint else pa.concat_tables([EVENTS.empty_table(), *events[:-1]]),
            catalogue=world.catalogue,
            recipe=release_recipe(self._store, parent.release),
            settings=self._plan.settings.model_copy(update={"max_pairs": self._plan.pairs}),
            replay=recipe.replay,
            seed=seed,
        )
        runs, now = folder / "runs", datetime.now(UTC)
        runs.mkdir(parents=True, exist_ok=True)
        run = open_run(runs, parent=parent.release, recipe=recipe) or new_run(
            runs, parent=parent.release, recipe=recipe, prepared=prepared, created_at=now
        )
        outcome = finish(run, store=self._store, settings=self._settings, gate=GateSettings(), created_at=now)
        if outcome.manifest is None:
            raise RuntimeError(f"{path}: the candidate was broken: {outcome.verdict.reasons}")
        release = outcome.manifest.release_id
        found = Update(
            release,
            self.hits(world, release),
            time.monotonic() - started,
            outcome.verdict.passed,
            {**prepared.counts, "pairs": len(prepared.pairs)},
        )
        _write(path, found)
        self.made += 1
        shutil.rmtree(runs)
        if number > 2:
            self._drop(parent.release)
        if number == len(world.periods):
            self._drop(release)
        line = " ".join(f"{hits.mean():.4f}" for hits in found.hits)
        print(
            f"{sequence}, seed {seed}, {variant}, update {number}: {line}; {found.seconds:.0f} s", flush=True
        )
        return found

    def _drop(self, release: str) -> None:
        shutil.rmtree(self._out / "releases" / release, ignore_errors=True)


def updates_of(out: Path) -> list[Update]:
    """Every finished update of a work folder."""
    found = [_read(path) for path in sorted(out.glob("*/seed-*/*/update-*.npz"))]
    return [one for one in found if one is not None]


def _write(path: Path, update: Update) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"release": update.release, "seconds": update.seconds, "passed": update.passed}
    words: dict[str, Any] = {"told": np.array(json.dumps(told | {"counts": dict(update.counts)}))}
    words |= {f"hits.{place}": hits for place, hits in enumerate(update.hits)}
    aside = path.with_name(f".{path.name}")
    np.savez_compressed(aside, **words)
    aside.replace(path)


def _read(path: Path) -> Update | None:
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        told = json.loads(str(arrays["told"]))
        hits: Sequence[Floats] = [arrays[f"hits.{place}"] for place in range(len(arrays.files) - 1)]
    return Update(told["release"], list(hits), told["seconds"], told["passed"], told["counts"])
