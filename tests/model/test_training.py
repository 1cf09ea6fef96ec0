"""model/training.py: a tiny random model learns, resumes after a kill, and ends as plain weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model import pretraining
from model.encoder import TextEncoder
from model.evaluation import hits_at, ranks_of
from model.recipe import Augment, InvalidRecipe, Recipe, Task
from model.tasks import Examples
from model.trainer import moved_uphill
from model.training import train
from schemas.releases import EncoderConfig
from tests.support.learning import QUICK, little_examples, little_pairs, little_set, tiny_release

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(
    tmp_path: Path, recipe: Recipe, *, run: str = "run", validated: bool = True, **tables: Any
) -> tuple[Path, Path, EncoderConfig]:
    store, release, _ = tiny_release(tmp_path)
    config = store.manifest(release).encoder
    found = train(
        folder=store.fetch(release),
        config=config,
        examples=Examples(
            pairs=little_pairs(),
            tables=tables,
            validation=little_set("validation", little_pairs(), 20) if validated else None,
        ),
        recipe=recipe,
        run=tmp_path / run,
        device="cpu",
    )
    return store.fetch(release), found.weights, config


def vectors(weights: Path, base: Path, config: EncoderConfig, settings: Any, texts: list[str]) -> Any:
    import shutil

    for name in ("tokenizer.json", "tokenizer_config.json"):
        if weights != base and (base / name).is_file():
            shutil.copyfile(base / name, weights / name)
    encoder = TextEncoder.load(weights, config, settings)
    try:
        return encoder.encode_array(texts)
    finally:
        encoder.close()


def hit_rate(found: Any) -> float:
    one = little_set("test", little_pairs(), 60, seed=9)
    return float(hits_at(ranks_of(found, one.queries, one.targets), 10).mean())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "LORA", "learning_rate": 2e-2},
        {"matryoshka": (32, 16, 8)},
        {"mini_batch": 4, "batch_pairs": 16},
        {"l2_sp": 1e-4, "interpolate": 0.9, "accumulation": 2, "batch_pairs": 4},
        {"adversarial": 0.5},
        {"augment": Augment(token_dropout=0.1, synonyms=0.1)},
        {"average": 0.3},
        {"soup": 2, "epochs": 3},
        {"layers": (0,)},
    ],
    ids=lambda changes: "-".join(changes) or "full",
)
def test_it_learns_what_belongs_together(tmp_path: Path, changes: dict[str, Any]) -> None:
    _, _, settings = tiny_release(tmp_path)
    base, weights, config = trained(tmp_path, QUICK.model_copy(update=changes))
    texts = list(little_pairs().texts)
    before, after = (vectors(folder, base, config, settings, texts) for folder in (base, weights))
    assert hit_rate(after) > hit_rate(before) + 0.15
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("changes", "tasks"),
    [
        ({"method": "top", "top_layers": 1}, None),
        ({"method": "IA3", "peft": {"target_modules": ["query", "value"], "feedforward_modules": []}}, None),
        ({"method": "ADALORA", "peft": {"target_modules": ["query"], "total_step": 24}}, None),
        ({"method": "LOHA", "peft": {"target_modules": ["query"]}}, None),
        ({}, [Task(data="pairs", loss="MultipleNegativesRankingLoss")]),
        ({}, [Task(data="scored", loss="CoSENTLoss")]),
        ({}, [Task(data="scored", loss="CosineSimilarityLoss", weight=0.5)]),
        (
            {},
            [
                Task(
                    data="classed",
                    loss="SoftmaxLoss",
                    options={"num_labels": 2, "sentence_embedding_dimension": 32},
                )
            ],
        ),
        ({}, [Task(data="pairs"), Task(data="categories", loss="category_head", weight=0.1)]),
        ({}, [Task(data="numbers", loss="number_head")]),
    ],
    ids=lambda value: str(value)[:40] if value else "-",
)
def test_what_is_passed_through_trains_and_ends_as_weights_that_the_encoder_loads(
    tmp_path: Path, changes: dict[str, Any], tasks: list[Task] | None
) -> None:
    _, _, settings = tiny_release(tmp_path)
    texts = list(little_pairs().texts)
    half = len(texts) // 2
    pair = {"one": texts[:half], "other": texts[half:]}
    recipe = QUICK.model_copy(update={"epochs": 1, **changes, **({"tasks": tuple(tasks)} if tasks else {})})
    base, weights, config = trained(
        tmp_path,
        recipe,
        scored={**pair, "label": [row % 2 * 1.0 for row in range(half)]},
        classed={**pair, "label": [row % 2 for row in range(half)]},
        categories=little_examples().tables["categories"],
        numbers={"text": texts, "label": [float(len(text)) for text in texts]},
    )
    before, after = (vectors(folder, base, config, settings, texts) for folder in (base, weights))
    assert np.isfinite(after).all()
    assert float(np.abs(after - before).max()) > 1e-6


def test_the_anchors_hold_the_vectors_where_they_were(tmp_path: Path) -> None:
    _, _, settings = tiny_release(tmp_path)
    texts = list(little_pairs().texts)
    moved = []
    for name, distil in (("free", 0.0), ("held", 5.0)):
        base = tmp_path / "releases" / tiny_release(tmp_path)[1]
        config = tiny_release(tmp_path)[0].manifest(base.name).encoder
        teacher = vectors_of_base(base, config, settings, texts)
        _, weights, _ = trained(
            tmp_path,
            QUICK.model_copy(update={"distil": distil}),
            run=name,
            anchors={"text": texts, "label": teacher.tolist()},
        )
        after = vectors(weights, base, config, settings, texts)
        moved.append(float(1 - (after * teacher).sum(axis=1).mean()))
    assert moved[1] < 0.6 * moved[0]


def vectors_of_base(base: Path, config: EncoderConfig, settings: Any, texts: list[str]) -> Any:
    encoder = TextEncoder.load(base, config, settings)
    try:
        return encoder.encode_array(texts)
    finally:
        encoder.close()


@pytest.mark.parametrize("objective", ["mlm", "tsdae", "simcse"])
def test_texts_alone_are_read_before_the_pairs(tmp_path: Path, objective: str) -> None:
    _, _, settings = tiny_release(tmp_path)
    texts = list(little_pairs().texts)[:8]
    recipe = QUICK.model_copy(
        update={"pretrain": objective, "epochs": 1, "learning_rate": 1e-3, "max_tokens": 16}
    )
    found = []
    for run, one in (("plain", recipe.model_copy(update={"pretrain": "none"})), ("read", recipe)):
        base, weights, config = trained(tmp_path, one, run=run)
        found.append(vectors(weights, base, config, settings, texts))
    assert np.isfinite(found[1]).all()
    assert float(np.abs(found[0] - found[1]).max()) > 1e-3
    assert not list((tmp_path / "read" / "pretraining").glob("weights"))


def test_what_was_read_before_a_kill_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model import training

    recipe = QUICK.model_copy(update={"pretrain": "simcse", "epochs": 1})

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    def killed_behind(reading: pretraining.Reading) -> Any:
        pretraining.pretrained(reading)
        raise Killed

    with monkeypatch.context() as patch:
        # The pretraining's own run goes through another door.
        patch.setattr(training, "pretrained", killed_behind)
        with pytest.raises(Killed):
            trained(tmp_path, recipe)
    monkeypatch.setattr(pretraining, "_by_loss", killed)
    trained(tmp_path, recipe)
    assert (tmp_path / "run" / "pretrained" / "model.safetensors").is_file()


def test_the_second_pass_sees_words_moved_uphill_and_puts_them_back() -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    (weight**2).sum().backward()  # type: ignore[no-untyped-call]
    before = weight.detach().clone()
    assert weight.grad is not None
    with moved_uphill(weight, 0.5):
        moved = weight.detach() - before
        assert float(torch.linalg.vector_norm(moved)) == pytest.approx(0.5, rel=1e-5)
        assert float((moved * weight.grad).sum()) > 0
    assert torch.equal(weight.detach(), before)


def test_moving_words_changes_what_is_learned(tmp_path: Path) -> None:
    _, _, settings = tiny_release(tmp_path)
    texts = list(little_pairs().texts)[:8]
    found = []
    for run, far in (("plain", 0.0), ("moved", 1.0)):
        base, weights, config = trained(
            tmp_path, QUICK.model_copy(update={"epochs": 1, "adversarial": far}), run=run
        )
        found.append(vectors(weights, base, config, settings, texts))
    assert float(np.abs(found[0] - found[1]).max()) > 1e-4


def test_an_average_is_between_the_weights_that_it_is_of(tmp_path: Path) -> None:
    last, average = (
        load_file(
            trained(
                tmp_path,
                QUICK.model_copy(update={"epochs": 1, "average": share}),
                run=f"run{share}",
                validated=False,  # which would keep the last weights where they are better
            )[1]
            / "model.safetensors"
        )
        for share in (0.0, 1.0)
    )
    first = load_file(tiny_release(tmp_path)[0].fetch(tiny_release(tmp_path)[1]) / "model.safetensors")
    name = next(name for name in last if name.endswith("word_embeddings.weight"))
    gone = float(torch.linalg.vector_norm(last[name] - first[name]))
    assert 0 < float(torch.linalg.vector_norm(average[name] - first[name])) < gone


def test_a_killed_soup_keeps_the_runs_that_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from model import training

    one_run = training._one_run  # noqa: SLF001
    seeds: list[int] = []

    def counted(*arguments: Any) -> Any:
        seeds.append(arguments[1].seed)
        if len(seeds) == 2:
            raise Killed
        return one_run(*arguments)

    monkeypatch.setattr(training, "_one_run", counted)
    recipe = QUICK.model_copy(update={"epochs": 1, "soup": 2})
    with pytest.raises(Killed):
        trained(tmp_path, recipe)
    _, weights, _ = trained(tmp_path, recipe)
    assert seeds == [3, 4, 4]
    assert weights == tmp_path / "run" / "weights"


def test_shorter_vectors_are_trained_beside_anchors_of_whole_ones(tmp_path: Path) -> None:
    _, _, settings = tiny_release(tmp_path)
    texts = list(little_pairs().texts)
    store, release, _ = tiny_release(tmp_path)
    config = store.manifest(release).encoder
    teacher = vectors_of_base(store.fetch(release), config, settings, texts)
    base, weights, _ = trained(
        tmp_path,
        QUICK.model_copy(update={"matryoshka": (32, 8), "distil": 0.1}),
        anchors={"text": texts, "label": teacher.tolist()},
    )
    short = config.model_copy(update={"dimension": 8})
    before, after = (vectors(folder, base, short, settings, texts) for folder in (base, weights))
    assert after.shape == (len(texts), 8)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1.0, atol=1e-5)
    assert hit_rate(after) > hit_rate(before) + 0.15


class Killed(BaseException):
    """Stands for a kill: nothing is cleaned up."""


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    whole = Trainer._save_checkpoint  # noqa: SLF001

    def killed_later(self: Any, *arguments: Any) -> None:
        whole(self, *arguments)
        if self.state.global_step >= 12:
            raise Killed

    monkeypatch.setattr(Trainer, "_save_checkpoint", killed_later)
    with pytest.raises(Killed):
        trained(tmp_path, QUICK)
    monkeypatch.undo()
    checkpoints = tmp_path / "run" / "checkpoints"
    kept = sorted(path.name for path in checkpoints.glob("checkpoint-*"))
    assert kept
    # One that the kill left half written: it has no state yet.
    (checkpoints / "checkpoint-99").mkdir()
    (checkpoints / "checkpoint-99" / "model.safetensors").write_bytes(b"half")
    store, release, _ = tiny_release(tmp_path)
    found = train(
        folder=store.fetch(release),
        config=store.manifest(release).encoder,
        examples=Examples(pairs=little_pairs(), validation=little_set("validation", little_pairs(), 20)),
        recipe=QUICK,
        run=tmp_path / "run",
        device="cpu",
    )
    assert found.resumed_at == 12
    assert found.steps == 24
    assert json.dumps(found.curves)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"method": "sideways"}, "sideways"),
        ({"method": "PREFIX_TUNING", "peft": {"num_virtual_tokens": 4}}, "cannot be merged"),
        ({"method": "LORA", "peft": {"rank": 4}}, "LORA"),
        ({"tasks": (Task(data="nothing"),)}, "nothing"),
        ({"tasks": (Task(data="pairs", loss="MagicLoss"),)}, "MagicLoss"),
        ({"arguments": {"learning_speed": 3}}, "learning_speed"),
        ({"layers": (0, 7)}, "there is no 7"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRecipe, match=named):
        trained(tmp_path, QUICK.model_copy(update=changes))


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    _, _, settings = tiny_release(tmp_path)
    texts = list(little_pairs().texts)[:8]
    found = []
    for run in ("one", "two"):
        base, weights, config = trained(tmp_path, QUICK.model_copy(update={"epochs": 1}), run=run)
        found.append(vectors(weights, base, config, settings, texts))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
