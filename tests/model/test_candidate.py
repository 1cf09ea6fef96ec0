"""model/candidate.py: a run ends as a candidate with its verdict, from wherever it was killed."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from adapters.releases import ReleaseStore
from model import candidate as module
from model.candidate import REPORT, Outcome, finish, new_run, open_run
from model.learning_settings import GateSettings
from model.recipe import Task
from model.release import load_release
from model.run_files import load_prepared, save_prepared
from model.run_folders import (
    NoExamples,
    drop_examples,
    erasures_known,
    forget_examples,
    has_examples,
    settle,
)
from model.schedule import Reference
from model.settings import ModelSettings
from schemas.errors import Halt
from tests.support.learning import NOW, QUICK, little_examples, tiny_release

pytestmark = pytest.mark.usefixtures("one_thread")

GATE = GateSettings(least_queries=20, samples=200, most_slice_loss=0.5, most_loss=0.3)


def started(tmp_path: Path, **changes: Any) -> tuple[Path, ReleaseStore, ModelSettings]:
    store, parent, settings = tiny_release(tmp_path)
    runs = tmp_path / "runs"
    runs.mkdir()
    run = new_run(
        runs,
        parent=parent,
        recipe=QUICK.model_copy(update=changes),
        prepared=little_examples(),
        created_at=NOW,
    )
    return run, store, settings


def ended(run: Path, store: ReleaseStore, settings: ModelSettings) -> Outcome:
    return finish(run, store=store, settings=settings, gate=GATE, created_at=NOW)


def test_a_run_ends_as_a_release_with_recipe_figures_and_verdict(tmp_path: Path) -> None:
    run, store, settings = started(tmp_path, distil=0.1, hard_negatives=1, tracking=("tensorboard",))
    outcome = ended(run, store, settings)
    assert outcome.verdict.passed, outcome.verdict.reasons
    assert outcome.manifest is not None
    manifest = store.manifest(outcome.manifest.release_id)
    parent = store.manifest(manifest.parent or "")
    assert manifest.training is not None
    assert manifest.training.recipe["hard_negatives"] == 1
    assert manifest.training.steps > 0
    assert manifest.training.curves
    assert list((run / "tensorboard").glob("events.*"))
    assert manifest.text == parent.text
    assert manifest.encoder == parent.encoder
    assert set(manifest.files) == {*parent.files, REPORT}
    page = (store.fetch(manifest.release_id) / REPORT).read_text()
    assert page == (run / REPORT).read_text()
    assert "The gate lets it pass" in page
    assert "hard_negatives" in page
    assert manifest.verdict is not None
    (brand,) = manifest.verdict.exposure
    assert (brand.kind, brand.lists) == ("brand", 64)
    assert [one.group for one in brand.groups] == ["lamp", "shoe", "drill", "battery"]
    assert sum(one.share * one.after for one in brand.groups) == pytest.approx(1.0, abs=1e-3)
    assert "By brand" in page
    assert manifest.figures["new window, after"] > manifest.figures["new window, before"]
    release = load_release(store, manifest.release_id, settings)
    try:
        assert np.isfinite(release.encoder.encode_array(["red lamp"])).all()
    finally:
        release.encoder.close()


def test_a_student_of_one_layer_and_shorter_vectors_passes_the_same_gate(tmp_path: Path) -> None:
    run, store, settings = started(tmp_path, distil=0.1, layers=(1,), matryoshka=(32, 16), dimension=16)
    outcome = ended(run, store, settings)
    assert outcome.verdict.passed, outcome.verdict.reasons
    assert outcome.manifest is not None
    manifest = store.manifest(outcome.manifest.release_id)
    assert (manifest.dimension, manifest.encoder.dimension) == (16, 16)
    release = load_release(store, manifest.release_id, settings)
    try:
        assert release.encoder.encode_array(["red lamp"]).shape == (1, 16)
    finally:
        release.encoder.close()
    parent = store.fetch(manifest.parent or "")
    sizes = [
        (folder / "model.safetensors").stat().st_size for folder in (parent, store.fetch(manifest.release_id))
    ]
    assert sizes[1] < sizes[0]


def test_a_run_that_an_earlier_version_began_goes_on(tmp_path: Path) -> None:
    run, _, _ = started(tmp_path)
    told = json.loads((run / "run.json").read_bytes())
    for name in ("adversarial", "augment", "soup"):
        del told["recipe"][name]
    (run / "run.json").write_text(json.dumps(told))
    assert open_run(run.parent, parent=told["parent"], recipe=QUICK) == run
    other = QUICK.model_copy(update={"adversarial": 0.5})
    assert open_run(run.parent, parent=told["parent"], recipe=other) is None


def test_examples_are_the_same_when_a_run_is_opened_again(tmp_path: Path) -> None:
    run, _, _ = started(tmp_path)
    before, after = little_examples(), load_prepared(run)
    assert list(after.pairs.texts) == list(before.pairs.texts)
    for name in ("anchors", "positives", "weights", "groups"):
        np.testing.assert_array_equal(getattr(after.pairs, name), getattr(before.pairs, name))
    assert list(after.pairs.related) == list(before.pairs.related)
    assert [one.name for one in after.sets] == ["new window", "old"]
    assert after.validation is not None
    np.testing.assert_array_equal(after.sets[0].slices["first half"], before.sets[0].slices["first half"])
    assert after.tables == before.tables


def test_negatives_that_were_mined_before_are_those_that_are_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, parent, settings = tiny_release(tmp_path)
    examples = little_examples()
    negatives = np.full((len(examples.pairs), 1), 5, dtype=np.int64)
    pairs = dataclasses.replace(examples.pairs, negatives=negatives)
    recipe = QUICK.model_copy(update={"hard_negatives": 1, "epochs": 1})
    runs = tmp_path / "runs"
    runs.mkdir()
    run = new_run(runs, parent=parent, recipe=recipe, prepared=examples._replace(pairs=pairs), created_at=NOW)
    kept = load_prepared(run).pairs.negatives
    assert kept is not None
    np.testing.assert_array_equal(kept, negatives)

    def never(*_: Any, **__: Any) -> Any:
        pytest.fail("mined again with the parent's vectors")

    monkeypatch.setattr(module, "with_hard_negatives", never)
    assert ended(run, store, settings).manifest is not None


def test_labelled_pairs_and_ratings_are_tasks_of_a_recipe(tmp_path: Path) -> None:
    store, parent, settings = tiny_release(tmp_path)
    examples = little_examples()
    texts = list(examples.pairs.texts)
    tables: dict[str, dict[str, list[Any]]] = {
        "labelled": {"a": texts[:16], "b": texts[16:32], "label": [0.0, 1.0] * 8},
        "ratings": {"text": texts[:16], "label": [0.8] * 16},
    }
    tasks = (
        Task(data="pairs"),
        Task(data="labelled", loss="CosineSimilarityLoss"),
        Task(data="ratings", loss="number_head", weight=0.1),
    )
    runs = tmp_path / "runs"
    runs.mkdir()
    run = new_run(
        runs,
        parent=parent,
        recipe=QUICK.model_copy(update={"tasks": tasks, "epochs": 1}),
        prepared=examples._replace(tables=tables),
        created_at=NOW,
    )
    manifest = ended(run, store, settings).manifest
    assert manifest is not None
    assert manifest.training is not None
    assert manifest.training.steps >= 48 // 8 + 2 + 2


def test_the_examples_of_a_run_that_has_ended_are_gone_and_its_report_is_not(tmp_path: Path) -> None:
    run, store, settings = started(tmp_path, epochs=1)
    assert has_examples(run)
    assert ended(run, store, settings).manifest is not None
    left = {path.name for path in run.iterdir()}
    assert {"run.json", "result.json", REPORT} <= left
    assert not {"examples.json", "examples.npz", "weights", "candidate"} & left


def begun(runs: Path, at: datetime = NOW, *, given: str = "these", parent: str = "live") -> Path:
    """A run that nobody has trained yet."""
    return new_run(
        runs,
        parent=parent,
        recipe=QUICK,
        prepared=little_examples(),
        created_at=at,
        given=given,
        reference=Reference(at=at, ends={}, until_ms=0, cells={}, texts=[]),
    )


def test_a_run_is_gone_on_with_where_it_was_given_the_same_and_not_long_ago(tmp_path: Path) -> None:
    run = begun(tmp_path)
    asked: dict[str, Any] = {"parent": "live", "recipe": QUICK}
    assert open_run(tmp_path, given="these", since=NOW, **asked) == run
    assert open_run(tmp_path, given="others", since=NOW, **asked) is None
    assert open_run(tmp_path, given="these", since=NOW + timedelta(seconds=1), **asked) is None
    assert open_run(tmp_path, **asked) == run
    assert Reference.model_validate_json((run / "reference.json").read_bytes()).at == NOW
    told = json.loads((run / "run.json").read_bytes())
    del told["given"]  # as an earlier version wrote it
    (run / "run.json").write_text(json.dumps(told))
    assert open_run(tmp_path, given="these", **asked) is None
    assert open_run(tmp_path, **asked) == run
    assert drop_examples(run)
    assert open_run(tmp_path, **asked) is None


def test_what_may_not_be_gone_on_with_is_settled_and_the_rest_is_left(tmp_path: Path) -> None:
    stays, old, forgotten = (begun(tmp_path, NOW - timedelta(days=days)) for days in (1, 9, 2))
    over = begun(tmp_path, NOW - timedelta(days=3))
    (over / "result.json").write_text('{"release_id": "r"}')  # of an earlier version, or killed just then
    half = begun(tmp_path, NOW - timedelta(days=4)).rename(tmp_path / ".half")
    search = tmp_path / "searches" / "20261125-000000-aaaaaa" / "replay-0.3"
    search.mkdir(parents=True)
    save_prepared(little_examples(), search)
    for run in (stays, old):
        (run / "checkpoints").mkdir()
    drop_examples(forgotten)
    (tmp_path / "decisions.jsonl").write_text("{}")
    for _ in range(2):
        settle(tmp_path, since=NOW - timedelta(days=7))
    assert has_examples(stays)
    assert (stays / "checkpoints").is_dir()
    assert has_examples(search)
    assert not half.exists()
    assert {path.name for path in old.iterdir()} == {"run.json", "result.json"}
    assert {path.name for path in forgotten.iterdir()} == {"run.json", "result.json"}
    assert "before 2026-11-18" in json.loads((old / "result.json").read_bytes())["abandoned"]
    assert json.loads((over / "result.json").read_bytes()) == {"release_id": "r"}
    assert not has_examples(over)


def test_once_for_each_erasure_the_examples_of_runs_and_searches_go(tmp_path: Path) -> None:
    assert forget_examples(tmp_path / "none", {0: 1}) == 0
    run = begun(tmp_path)
    search = tmp_path / "searches" / "20261125-000000-aaaaaa" / "replay-0.3"
    search.mkdir(parents=True)
    save_prepared(little_examples(), search)
    assert forget_examples(tmp_path, {}) == 0
    assert erasures_known(tmp_path) == ""
    assert forget_examples(tmp_path, {0: 1, 1: 4}) == 2
    assert not list(tmp_path.rglob("examples.*"))
    with pytest.raises(NoExamples, match="somebody was forgotten"):
        load_prepared(run)
    later = begun(tmp_path, NOW + timedelta(days=1))
    assert forget_examples(tmp_path, {1: 4, 0: 1}) == 0
    assert has_examples(later)
    assert forget_examples(tmp_path, {0: 2, 1: 4}) == 1


@pytest.mark.parametrize(("asked", "trained"), [(3, False), (1_000, True)])
def test_what_another_trainer_has_taken_over_is_trained_no_further_and_published_nowhere(
    tmp_path: Path, asked: int, trained: bool
) -> None:
    run, store, settings = started(tmp_path, epochs=1)
    count = 0

    def still_ours() -> None:
        nonlocal count
        count += 1
        # At the end of a step, or else when all is there that would be published.
        if count == asked or (trained and (run / "candidate").is_dir()):
            raise Halt("another trainer has taken over")

    with pytest.raises(Halt, match="taken over"):
        finish(run, store=store, settings=settings, gate=GATE, created_at=NOW, still_ours=still_ours)
    assert (run / "training.json").exists() is trained
    assert len(store.list()) == 1
    assert not (run / "result.json").exists()


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize(
    "killed_in", ["_assembled", "refuse_broken", "judge", "render", "entry_of", "_ended"]
)
def test_a_run_killed_later_than_training_does_not_train_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    run, store, settings = started(tmp_path)
    with monkeypatch.context() as patch:

        def killed(*_: Any, **__: Any) -> Any:
            raise Killed

        patch.setattr(module, killed_in, killed)
        with pytest.raises(Killed):
            ended(run, store, settings)
    parent = store.manifest(run_parent(run)).release_id
    assert open_run(run.parent, parent=parent, recipe=QUICK) == run
    assert open_run(run.parent, parent=parent, recipe=QUICK.model_copy(update={"epochs": 9})) is None

    from model import training

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", killed)
        outcome = ended(run, store, settings)
    assert outcome.manifest is not None
    assert len(store.list()) == 2
    assert open_run(run.parent, parent=parent, recipe=QUICK) is None


def run_parent(run: Path) -> str:
    import json

    return str(json.loads((run / "run.json").read_bytes())["parent"])


def verdicts() -> dict[str, float]:
    """What the metric of the gate says, by result."""
    name = "simstream_gate_verdicts_total"
    found = {one: REGISTRY.get_sample_value(name, {"result": one}) for one in ("passed", "refused", "broken")}
    return {result: value for result, value in found.items() if value is not None}


def test_weights_that_are_not_finite_are_published_nowhere(tmp_path: Path) -> None:
    run, store, settings = started(tmp_path, learning_rate=1e30, max_grad_norm=1e30, warmup=0.0, epochs=1)
    before = verdicts()
    outcome = ended(run, store, settings)
    assert verdicts() == {**before, "broken": before["broken"] + 1}
    assert outcome.manifest is None
    assert not outcome.verdict.passed
    assert any("not finite" in reason for reason in outcome.verdict.reasons)
    assert "is not finite" in (run / REPORT).read_text()
    assert len(store.list()) == 1


def test_what_learned_nothing_good_is_published_and_does_not_pass(tmp_path: Path) -> None:
    store, parent, settings = tiny_release(tmp_path)
    runs = tmp_path / "runs"
    runs.mkdir()
    shuffled = little_examples()
    generator = np.random.default_rng(0)
    shuffled.pairs.positives[:] = generator.permutation(len(shuffled.pairs.texts))[: len(shuffled.pairs)]
    shuffled = shuffled._replace(validation=None)
    run = new_run(
        runs,
        parent=parent,
        recipe=QUICK.model_copy(update={"mask": False}),
        prepared=shuffled,
        created_at=NOW,
    )
    before = verdicts()
    outcome = ended(run, store, settings)
    assert outcome.manifest is not None
    assert not outcome.verdict.passed
    assert outcome.verdict.reasons
    assert verdicts() == {**before, "refused": before["refused"] + 1}


def test_a_second_run_starts_from_a_release_with_a_report_and_writes_its_own(tmp_path: Path) -> None:
    run, store, settings = started(tmp_path)
    first = ended(run, store, settings).manifest
    assert first is not None
    again = new_run(
        run.parent,
        parent=first.release_id,
        recipe=QUICK,
        prepared=little_examples(),
        created_at=NOW.replace(year=2027),
    )
    second = ended(again, store, settings).manifest
    assert second is not None
    assert second.parent == first.release_id
    assert second.files[REPORT] != first.files[REPORT]
    assert again.name in (store.fetch(second.release_id) / REPORT).read_text()
