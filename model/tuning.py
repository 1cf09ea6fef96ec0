"""A search for a recipe: trials that train and are rated, chosen, pruned and remembered by optuna.

Reads   prepared examples; the parent's release
Writes  the study (SQLite) and one trial's run at a time, in the search's folder
Never   sees a set that the gate judges by: what it is handed has none (`search_folder`)

The first trial is the recipe as it is, so that what is found is never worse by validation. A trial is rated
by ndcg@10 of the validation queries, measured with the weights as they would be published. What is reported
meanwhile, at each evaluation, is the library's own validation during training: by that a trial is pruned.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from model.candidate import rated_by_validation
from model.examples import Prepared
from model.recipe import Recipe
from model.run_files import load_prepared, save_prepared
from model.run_folders import erasures_known, has_examples
from model.search_space import Space, Value, suggested, with_changes
from model.settings import ModelSettings
from model.vectors import ReleaseVectors
from schemas.items import digest
from schemas.releases import Manifest

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

#: Told of the number of an evaluation and what it came to; may raise to end the trial.
Watch = Callable[[int, float], None]
#: Trains by a recipe, in the trial of this number, and rates what came of it.
Rate = Callable[[Recipe, int, Watch], float]
#: Trials before the median prunes: with fewer, half of everything would be cut by chance.
_UNPRUNED = 4
_STUDY, _AS_IT_IS = "recipe", "the recipe as it is"


class Trial(NamedTuple):
    """One trial. `rating` is ndcg@10, the last one reported of a trial that was pruned."""

    number: int
    state: str
    rating: float | None
    seconds: float | None
    changes: Mapping[str, Value]


class Found(NamedTuple):
    """The best recipe, its rating and that of the recipe as it is, and every trial in its order."""

    recipe: Recipe
    rating: float
    before: float
    trials: Sequence[Trial]


def search_folder(
    searches: Path,
    *,
    parent: str,
    recipe: Recipe,
    space: Space,
    prepare: Callable[[], Mapping[float, Prepared]],
    created_at: datetime,
    anew: bool = False,
) -> tuple[Path, bool]:
    """The newest search of this parent, recipe and space, or a new one; and whether it is new.

    A search keeps its examples, one for each share of old pairs: only then are its trials comparable. One
    whose examples have gone, because somebody was forgotten, is not gone on with. The sets that the gate
    judges by are left out. It is there whole or not at all.
    """
    told = {
        "parent": parent,
        "recipe": recipe.model_dump(mode="json"),
        "space": {name: [type(one).__name__, *one] for name, one in space.items()},
    }
    told = json.loads(json.dumps(told))
    for folder in sorted(searches.glob("[!.]*"), reverse=True):
        kept = [*folder.glob("replay-*")]
        if anew or not kept or not all(map(has_examples, kept)):
            continue
        if json.loads((folder / "search.json").read_bytes()) == told:
            return folder, False
    name = f"{created_at:%Y%m%d-%H%M%S}-{digest(told)[:6]}"
    aside = searches / f".{name}"
    known, examples = erasures_known(searches.parent), prepare()
    while known != (now := erasures_known(searches.parent)):
        # Somebody was forgotten meanwhile, and these may be of before.
        known, examples = now, prepare()
    for share, prepared in examples.items():
        (aside / f"replay-{share}").mkdir(parents=True)
        save_prepared(prepared._replace(sets=()), aside / f"replay-{share}")
    (aside / "search.json").write_text(json.dumps(told, indent=1))
    return aside.rename(searches / name), True


class TrialRuns:
    """Rates recipes by training them on a search's examples; a run's folder goes away with its trial."""

    def __init__(
        self, folder: Path, *, parent: Manifest, parent_folder: Path, settings: ModelSettings
    ) -> None:
        self._folder = folder
        self._parent = parent
        self._parent_folder = parent_folder
        self._settings = settings
        self._live = ReleaseVectors(parent_folder, parent, settings)

    def __call__(self, recipe: Recipe, number: int, watch: Watch) -> float:
        prepared = load_prepared(self._folder / f"replay-{recipe.replay}")
        run = self._folder / "trials" / str(number)
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        try:
            return rated_by_validation(
                run,
                recipe=recipe,
                parent=self._parent,
                parent_folder=self._parent_folder,
                prepared=prepared,
                live=self._live,
                settings=self._settings,
                callbacks=[_telling(watch)],
            )
        finally:
            shutil.rmtree(run)

    def close(self) -> None:
        """Let go of the parent's encoder."""
        self._live.close()


def kept_in(file: Path) -> BaseStorage:
    """Trials in a SQLite file: one that a kill left half written is rolled back. In optuna's journal a half
    line stops every later reader."""
    from optuna.storages import RDBStorage

    return RDBStorage(f"sqlite:///{file}")


def search(
    storage: BaseStorage,
    *,
    recipe: Recipe,
    space: Space,
    rate: Rate,
    trials: int,
    seconds: float | None = None,
    say: Callable[[str], None],
) -> Found:
    """Go on until there are `trials` altogether, or `seconds` are over: then no further one is begun.

    A trial that a kill cut off is tried again. What `rate` raises ends the search, which can be gone on with.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _opened(storage)
    ends = None if seconds is None else time.monotonic() + seconds

    def objective(trial: optuna.Trial) -> float:
        first = not _rated_as_it_is(study)
        changes = {} if first else suggested(space, trial)
        trial.set_user_attr(_AS_IT_IS, first)
        begun = time.monotonic()

        def watch(evaluation: int, value: float) -> None:
            trial.report(value, evaluation)
            trial.set_user_attr("seconds", round(time.monotonic() - begun, 1))
            if not first and trial.should_prune():
                raise optuna.TrialPruned

        value = rate(with_changes(recipe, changes), trial.number, watch)
        trial.set_user_attr("seconds", round(time.monotonic() - begun, 1))
        return value

    def told(study: Study, trial: FrozenTrial) -> None:
        say(in_words(_trial(trial)))

    while len(_ended(study)) < trials and (ends is None or time.monotonic() < ends):
        # One at a time: so many are left as have not ended.
        study.optimize(objective, n_trials=1, callbacks=[told])
    ended = _ended(study)
    rated = [trial for trial in ended if trial.state == optuna.trial.TrialState.COMPLETE]
    if not rated:
        raise ValueError("no trial has ended yet: more seconds are needed")
    best = max(rated, key=lambda trial: trial.value or 0.0)
    (before,) = (trial for trial in rated if trial.user_attrs[_AS_IT_IS])
    return Found(
        recipe=with_changes(recipe, best.params),
        rating=best.value or 0.0,
        before=before.value or 0.0,
        trials=[_trial(trial) for trial in ended],
    )


def _opened(storage: BaseStorage) -> Study:
    """The study; what was running when it was killed is to be tried again."""
    import optuna
    from optuna.trial import TrialState

    study = optuna.create_study(storage=storage, study_name=_STUDY, direction="maximize", load_if_exists=True)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params and not trial.user_attrs.get(_AS_IT_IS):
            study.enqueue_trial(trial.params)
    # Of one seed the draws would be those of the trials there are.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED)
    return study


def _rated_as_it_is(study: Study) -> bool:
    return any(trial.user_attrs.get(_AS_IT_IS) and trial.value is not None for trial in study.trials)


def _ended(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


def _trial(trial: FrozenTrial) -> Trial:
    state = "pruned" if trial.state.name == "PRUNED" else trial.state.name.lower()
    if trial.user_attrs.get(_AS_IT_IS):
        state = "as it is"
    reported = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
    rating = trial.value if trial.value is not None else (reported[-1] if reported else None)
    return Trial(trial.number, state, rating, trial.user_attrs.get("seconds"), dict(trial.params))


def in_words(trial: Trial) -> str:
    """One line about a trial."""
    changes = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in trial.changes.items()
    )
    rating = "none" if trial.rating is None else f"{trial.rating:.4f}"
    seconds = "" if trial.seconds is None else f" in {trial.seconds:.0f} s"
    return f"trial {trial.number}, {trial.state}: ndcg@10 {rating}{seconds}  {changes}".rstrip()


def write_table(trials: Sequence[Trial], path: Path, space: Space) -> None:
    """The trials as CSV, a field of the space a column."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["trial", "state", "ndcg_at_10", "seconds", *space])
        for trial in trials:
            known = ["" if value is None else value for value in (trial.rating, trial.seconds)]
            rows.writerow(
                [trial.number, trial.state, *known, *(trial.changes.get(name, "") for name in space)]
            )


def _telling(watch: Watch) -> Any:
    """A callback of the library's trainer that tells of each evaluation."""
    from transformers import TrainerCallback

    from model.training import BEST_BY

    class Telling(TrainerCallback):
        told = 0

        def on_evaluate(
            self, args: Any, state: Any, control: Any, metrics: Mapping[str, float] | None = None, **_: Any
        ) -> None:
            self.told += 1
            watch(self.told, float((metrics or {})[f"eval_{BEST_BY}"]))

    return Telling()
