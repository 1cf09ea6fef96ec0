"""model/training.py: a tiny random model learns, resumes after a kill, and ends as plain weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.encoder import TextEncoder
from model.evaluation import hits_at, ranks_of
from model.recipe import InvalidRecipe, Recipe, Task
from model.training import Examples, train
from schemas.releases import EncoderConfig
from tests.support.learning import QUICK, little_examples, little_pairs, little_set, tiny_release

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(
    tmp_path: Path, recipe: Recipe, *, run: str = "run", **tables: Any
) -> tuple[Path, Path, EncoderConfig]:
    store, release, _ = tiny_release(tmp_path)
    config = store.manifest(release).encoder
    found = train(
        folder=store.fetch(release),
        config=config,
        examples=Examples(
            pairs=little_pairs(), tables=tables, validation=little_set("validation", little_pairs(), 20)
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
