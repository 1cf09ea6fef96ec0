"""model/tuning.py and model/search_space.py: what is searched, what is kept, what goes on after a kill."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import BaseStorage, InMemoryStorage

from model.examples import Prepared
from model.recipe import Recipe, Task, read_recipe
from model.run_files import load_prepared
from model.run_folders import forget_examples
from model.search_space import SPACE, Choice, Range, in_toml, read_space, replays
from model.tuning import Found, TrialRuns, Watch, kept_in, search, search_folder, write_table
from tests.support.learning import NOW, QUICK, little_examples, tiny_release

BASE = Recipe(replay=0.3)


# --- the space ---------------------------------------------------------------------------------------


def test_every_field_of_the_space_is_one_of_a_recipe_and_nothing_that_protects_is_switched_off() -> None:
    assert set(SPACE) <= set(Recipe.model_fields)
    for name in ("distil", "replay", "interpolate"):
        dimension = SPACE[name]
        least = dimension.low if isinstance(dimension, Range) else min(map(float, dimension.values))
        assert least > 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("space.toml", "learning_rate = [1e-5, 1e-4]\nbatch_pairs = [64, 32]\nscale = 20\n"),
        ("space.json", '{"learning_rate": [1e-5, 1e-4], "batch_pairs": [64, 32], "scale": 20.0}'),
    ],
)
def test_a_file_narrows_the_space(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    found = read_space(tmp_path / name)
    assert found["learning_rate"] == Range(1e-5, 1e-4, log=True)
    assert found["batch_pairs"] == Choice((32, 64))
    assert found["scale"] == Choice((20.0,))
    assert {
        name: one for name, one in found.items() if name not in ("learning_rate", "batch_pairs", "scale")
    } == {name: one for name, one in SPACE.items() if name not in ("learning_rate", "batch_pairs", "scale")}
    assert read_space(None) == SPACE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rate = [1e-9, 1e-4]", "does not lie within 5e-06 to 0.002"),
        ("learning_rate = [1e-4, 1e-5]", "does not lie within"),
        ("learning_rate = 'high'", "expected a number"),
        ("batch_pairs = [7]", "expected some of"),
        ("batch_pairs = []", "expected some of"),
        ("seed = 3", "seed: not searched"),
        ("scale =", "cannot be searched"),
    ],
)
def test_what_does_not_narrow_it_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_space(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_space(tmp_path / "absent.toml")


def test_a_recipe_survives_its_file_and_what_toml_cannot_say_is_refused(tmp_path: Path) -> None:
    recipe = Recipe(
        method="LORA",
        peft={"r": 16, "target_modules": ["query", "key"]},
        learning_rate=1.5e-5,
        matryoshka=(32, 16),
        symmetric=False,
        tasks=(
            Task(data="pairs"),
            Task(data="labelled", loss="CosineSimilarityLoss", options={"x": "\u00e9\n"}),
        ),
    )
    path = tmp_path / "recipe.toml"
    path.write_text(in_toml(recipe))
    assert read_recipe(path) == recipe
    assert tomllib.loads(in_toml(Recipe())) == {}
    with pytest.raises(ValueError, match="max_tokens is null"):
        in_toml(Recipe(max_tokens=None))


# --- the search --------------------------------------------------------------------------------------

SMALL = {"learning_rate": SPACE["learning_rate"], "batch_pairs": Choice((16, 64))}


def of_batch(recipe: Recipe, number: int, watch: Watch) -> float:
    """Batches of 16 are best; the default is 64."""
    watch(1, 16 / recipe.batch_pairs / 2)
    return 16 / recipe.batch_pairs


def searched(
    storage: BaseStorage | None = None,
    rate: Callable[[Recipe, int, Watch], float] = of_batch,
    trials: int = 6,
    seconds: float | None = None,
) -> tuple[Found, list[str]]:
    said: list[str] = []
    found = search(
        storage or InMemoryStorage(),
        recipe=BASE,
        space=SMALL,
        rate=rate,
        trials=trials,
        seconds=seconds,
        say=said.append,
    )
    return found, said


def test_the_best_trial_is_kept_and_the_recipe_as_it_is_comes_first(tmp_path: Path) -> None:
    found, said = searched()
    assert found.before == 0.25
    assert found.rating == 1.0
    assert found.recipe.batch_pairs == 16
    assert found.recipe.model_copy(update={"batch_pairs": 64, "learning_rate": BASE.learning_rate}) == BASE
    assert [trial.state for trial in found.trials] == ["as it is", *["complete"] * 5]
    assert said[0].startswith("trial 0, as it is: ndcg@10 0.2500")
    assert len(said) == 6
    write_table(found.trials, tmp_path / "trials.csv", SMALL)
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert rows[0]["batch_pairs"] == ""
    assert {row["batch_pairs"] for row in rows[1:]} == {"16", "64"}


def test_where_nothing_is_better_the_recipe_stays_as_it_is() -> None:
    found, _ = searched(None, lambda recipe, number, watch: 1.0 if recipe == BASE else 0.5)
    assert found.recipe == BASE
    assert found.rating == found.before == 1.0


def test_a_search_goes_on_and_draws_other_recipes_than_it_has_tried() -> None:
    storage, calls = InMemoryStorage(), list[int]()
    first, _ = searched(storage, trials=4)

    def counted(recipe: Recipe, number: int, watch: Watch) -> float:
        calls.append(number)
        return of_batch(recipe, number, watch)

    second, _ = searched(storage, counted, trials=7)
    assert calls == [4, 5, 6]
    assert second.trials[:4] == first.trials
    assert len({trial.changes.get("learning_rate") for trial in second.trials}) == 7
    assert searched(storage, counted, trials=7)[0].trials == second.trials
    assert len(calls) == 3


class Killed(BaseException):
    """Stands for a kill: the library writes down nothing of it."""


def test_trials_survive_a_kill_in_their_file_and_the_one_cut_off_is_tried_again(tmp_path: Path) -> None:
    asked: list[Recipe] = []
    deadly = {0, 3}

    def killed(recipe: Recipe, number: int, watch: Watch) -> float:
        asked.append(recipe)
        if number in deadly:
            deadly.remove(number)
            raise Killed
        return 16 / recipe.batch_pairs

    for _ in range(2):
        with pytest.raises(Killed):
            searched(kept_in(tmp_path / "trials.sqlite"), killed)
    found, said = searched(kept_in(tmp_path / "trials.sqlite"), killed)
    assert asked[0] == asked[1] == BASE
    assert asked[3] == asked[4] != BASE
    assert [trial.state for trial in found.trials] == ["as it is", *["complete"] * 5]
    assert len(said) == 4


def test_a_trial_that_does_worse_than_the_others_is_ended_early() -> None:
    ended: list[int] = []

    def worse_and_worse(recipe: Recipe, number: int, watch: Watch) -> float:
        for evaluation in (1, 2, 3):
            watch(evaluation, 1 - number / 100)
        ended.append(number)
        return 1 - number / 100

    found, said = searched(None, worse_and_worse, trials=8)
    assert ended == [0, 1, 2, 3]
    assert [trial.state for trial in found.trials[4:]] == ["pruned"] * 4
    assert found.trials[4].rating == 0.96
    assert "trial 4, pruned: ndcg@10 0.9600" in said[4]


def test_when_the_time_is_over_no_further_trial_begins() -> None:
    storage = InMemoryStorage()
    with pytest.raises(ValueError, match="no trial has ended yet"):
        searched(storage, seconds=0)
    searched(storage, trials=1)
    found, said = searched(storage, trials=9, seconds=0)
    assert (len(found.trials), said) == (1, [])


# --- its folder and its trials -----------------------------------------------------------------------


def test_a_search_keeps_its_examples_and_none_that_the_gate_judges_by(tmp_path: Path) -> None:
    made: list[int] = []

    def prepare() -> Mapping[float, Prepared]:
        made.append(1)
        return dict.fromkeys(replays(SMALL, BASE), little_examples())

    def folder(**changes: Any) -> tuple[Path, bool]:
        given: dict[str, Any] = {"parent": "live", "recipe": BASE, "space": SMALL, **changes}
        return search_folder(tmp_path, prepare=prepare, created_at=NOW, **given)

    first, new = folder()
    assert new
    kept = load_prepared(first / "replay-0.3")
    assert kept.sets == []
    assert kept.validation is not None
    assert len(kept.pairs) == len(little_examples().pairs)
    assert folder() == (first, False)
    assert len(made) == 1
    for other in ({"parent": "another"}, {"space": SPACE}, {"recipe": BASE.model_copy(update={"seed": 9})}):
        assert folder(**other)[1]
    # Another one of the same: the newest is gone on with.
    again, new = search_folder(
        tmp_path,
        parent="live",
        recipe=BASE,
        space=SMALL,
        prepare=prepare,
        created_at=NOW.replace(year=2027),
        anew=True,
    )
    assert new
    assert folder() == (again, False)


def test_a_search_whose_examples_have_gone_is_not_gone_on_with(tmp_path: Path) -> None:
    training, made = tmp_path / "training", 0

    def prepare() -> Mapping[float, Prepared]:
        nonlocal made
        made += 1
        if made == 1:  # somebody is forgotten while the first ones are made
            forget_examples(training, {0: 1})
        return {0.3: little_examples()}

    def folder(at: datetime = NOW) -> tuple[Path, bool]:
        return search_folder(
            training / "searches", parent="live", recipe=BASE, space={}, prepare=prepare, created_at=at
        )

    (training / "searches").mkdir(parents=True)
    first, new = folder()
    assert (made, new) == (2, True)
    assert folder() == (first, False)
    assert forget_examples(training, {0: 2}) == 1
    second, new = folder(NOW.replace(year=2027))
    assert new
    assert second != first


def test_what_is_prepared_covers_every_share_of_old_pairs() -> None:
    assert replays(SPACE, Recipe(replay=0.0)) == [0.0, 0.15, 0.3, 0.5]
    assert replays(SMALL, BASE) == [0.3]


@pytest.mark.usefixtures("one_thread")
def test_a_trial_trains_is_rated_by_the_weights_it_would_publish_and_leaves_nothing(tmp_path: Path) -> None:
    store, parent, settings = tiny_release(tmp_path)
    recipe = QUICK.model_copy(update={"distil": 0.1, "interpolate": 1.0})
    folder, _ = search_folder(
        tmp_path / "searches",
        parent=parent,
        recipe=recipe,
        space={},
        prepare=lambda: {recipe.replay: little_examples()},
        created_at=NOW,
    )
    runs = TrialRuns(
        folder, parent=store.manifest(parent), parent_folder=store.fetch(parent), settings=settings
    )
    told: list[tuple[int, float]] = []
    try:
        trained = runs(recipe, 0, lambda evaluation, value: told.append((evaluation, value)))
        # Nearly none of the way is where the parent is, whatever the validation saw meanwhile.
        stayed = runs(
            recipe.model_copy(update={"interpolate": 1e-6, "epochs": 1}), 1, lambda evaluation, value: None
        )
        broken = runs(
            recipe.model_copy(
                update={"learning_rate": 1e30, "max_grad_norm": 1e30, "warmup": 0.0, "epochs": 1}
            ),
            2,
            lambda evaluation, value: None,
        )
    finally:
        runs.close()
    assert [evaluation for evaluation, _ in told] == [1, 2]
    assert trained == pytest.approx(max(value for _, value in told), abs=0.05)
    assert stayed < trained - 0.1
    assert broken == 0.0
    assert list((folder / "trials").iterdir()) == []
    assert len(store.list()) == 1
