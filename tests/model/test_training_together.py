"""model/training_together.py: several processes train one run as one would, and none of them stays behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from model import ranks, training
from model.candidate import finish
from model.recipe import InvalidRecipe, Recipe, Task
from model.release import load_release
from model.tasks import Examples
from model.training import Trained, train
from model.training_together import train_together
from schemas.errors import Halt
from schemas.releases import EncoderConfig
from tests.model.test_candidate import GATE, started
from tests.support.learning import NOW, QUICK, little_examples, tiny_release

pytestmark = pytest.mark.usefixtures("one_thread")


def release(tmp_path: Path) -> tuple[Path, EncoderConfig]:
    store, parent, _ = tiny_release(tmp_path)
    return store.fetch(parent), store.manifest(parent).encoder


def given(tmp_path: Path, recipe: Recipe, run: str) -> dict[str, Any]:
    folder, config = release(tmp_path)
    prepared = little_examples()
    examples = Examples(pairs=prepared.pairs, tables=prepared.tables, validation=prepared.validation)
    (tmp_path / run).mkdir(exist_ok=True)
    return {
        "folder": folder,
        "config": config,
        "examples": examples,
        "recipe": recipe,
        "run": tmp_path / run,
        "device": "cpu",
    }


def processes() -> list[psutil.Process]:
    """Those that train, the first first."""
    found = [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "model.training_together" in child.cmdline()
    ]
    return sorted(found, key=lambda child: int(child.environ()["RANK"]))


def until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What it comes to, once that is something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_two_processes_learn_what_one_does_from_twice_as_many_batches_a_step(tmp_path: Path) -> None:
    """Gradients are averaged over the processes, as one process averages them over accumulated batches."""
    recipe = QUICK.model_copy(update={"epochs": 2, "soup": 2, "learning_rate": 1e-3})
    both = train_together(processes=2, **given(tmp_path, recipe, "both"))
    alone = train(**given(tmp_path, recipe.model_copy(update={"accumulation": 2}), "alone"))
    assert both.steps == alone.steps == 12
    ours, theirs = (load_file(one.weights / "model.safetensors") for one in (both, alone))
    start = load_file(release(tmp_path)[0] / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=2e-5, rtol=1e-3)
    assert any(float((weight - start[name]).abs().max()) > 1e-3 for name, weight in ours.items())
    assert processes() == []


def test_a_run_of_two_processes_ends_as_one_candidate(tmp_path: Path) -> None:
    run, store, settings = started(tmp_path, distil=0.1, hard_negatives=1)
    outcome = finish(run, store=store, settings=settings, gate=GATE, created_at=NOW, processes=2)
    assert outcome.manifest is not None
    assert outcome.verdict.passed, outcome.verdict.reasons
    assert outcome.manifest.training is not None
    assert outcome.manifest.training.curves
    assert len(store.list()) == 2
    load_release(store, outcome.manifest.release_id, settings).encoder.close()


@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_process_dies_all_end(tmp_path: Path, rank: int) -> None:
    ends: list[BaseException | Trained] = []

    def begin() -> None:
        try:
            ends.append(train_together(processes=2, **given(tmp_path, QUICK, "run")))
        except Halt as error:
            ends.append(error)

    thread = threading.Thread(target=begin)
    thread.start()
    until(lambda: len(processes()) == 2)
    processes()[rank].kill()
    thread.join(60.0)
    (failed,) = ends
    assert isinstance(failed, Halt)
    assert f"process {rank} of 2 ended with code -9" in str(failed)
    assert processes() == []


def test_a_trainer_that_is_killed_leaves_nobody_behind_and_the_run_goes_on_later(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.model.test_training_together import given, QUICK\n"
        "from model.training_together import train_together\n"
        "if __name__ == '__main__':\n"
        "    recipe = QUICK.model_copy(update={'epochs': 3_000, 'evaluations': 900})\n"
        "    train_together(processes=2, **given(Path(sys.argv[1]), recipe, 'run'))\n"
    )
    checkpoints = tmp_path / "run" / "checkpoints-2"
    trainer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        until(lambda: any(checkpoints.glob("checkpoint-*/trainer_state.json")))
        them = [child for child in psutil.Process(trainer.pid).children() if "-m" in child.cmdline()]
    finally:
        trainer.kill()
        trainer.wait()
    assert len(them) == 2
    until(lambda: not any(child.is_running() for child in them), 30.0)
    found = train_together(processes=2, **given(tmp_path, QUICK, "run"))
    assert found.resumed_at > 0
    assert not checkpoints.exists()


def test_too_few_pairs_for_a_batch_each_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "processes", lambda: 2)
    assert training.steps_of([48, 20], QUICK) == 4 * (6 + 2) // 2
    for lengths, said in ([15], "tables of 15"), ([48, 7], "tables of 48, 7 rows"):
        with pytest.raises(InvalidRecipe, match=f"2 processes need a batch of 8 each.*{said}"):
            training.steps_of(lengths, QUICK)


def test_a_loss_with_weights_of_its_own_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process would learn them for itself."""
    monkeypatch.setattr(ranks, "processes", lambda: 2)
    task = Task(
        data="pairs",
        loss="SoftmaxLoss",
        options={"sentence_embedding_dimension": 32, "num_labels": 2},
    )
    with pytest.raises(InvalidRecipe, match="the loss of 'pairs' has weights of its own"):
        train(**given(tmp_path, QUICK.model_copy(update={"tasks": (task,)}), "run"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pretrain": "mlm"}, "`pretrain`"),
        ({"mini_batch": 4}, "`mini_batch`"),
        ({"tasks": (Task(data="categories", loss="category_head"),)}, "'category_head'"),
        (
            {
                "tasks": (
                    Task(
                        data="pairs",
                        loss="MultipleNegativesRankingLoss",
                        options={"gather_across_devices": True},
                    ),
                )
            },
            "gather_across_devices",
        ),
    ],
)
def test_what_one_process_has_to_do_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    recipe = QUICK.model_copy(update=change)
    with pytest.raises(InvalidRecipe, match="by one process only") as caught:
        train_together(processes=2, **given(tmp_path, recipe, "run"))
    assert said in str(caught.value)
    assert "SIMSTREAM_TRAINING__PROCESSES is 2" in str(caught.value)
    assert processes() == []


def test_several_processes_are_not_given_one_gpu(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipe, match=r"'cuda:1' is one GPU.*CUDA_VISIBLE_DEVICES"):
        train_together(processes=2, **(given(tmp_path, QUICK, "run") | {"device": "cuda:1"}))
