"""One run of training: a release's weights, tables of examples and a recipe become new weights.

Reads   a release's folder; the run's own checkpoints, after a kill
Writes  the run's folder: checkpoints/ while it runs, weights/ when it is done, logs of the tracker
Never   looks at the new weights' quality beyond validation: model/gate.py judges them

The loop is sentence-transformers' own trainer (transformers and accelerate below it), so accumulation,
clipping, schedules, mixed precision, checkpoints and `accelerate launch` are theirs. Ours are the masked
loss, the pull towards the parent's weights (model/trainer.py), and validation by full ranking.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.evaluation import RetrievalSet, hits_at, ndcg_at, ranks_of
from model.losses import HeadLoss, MaskedContrastiveLoss, Weighted, cached
from model.pairs import NegativeMask, PairTable
from model.precision import chosen_device, fast_half
from model.recipe import HEADS, MASKED_CONTRASTIVE, InvalidRecipe, Recipe, Task
from model.trainable import interpolate, open_model, save_weights
from model.trainer import trainer_class
from schemas.releases import EncoderConfig

log = logging.getLogger(__name__)

Columns = Mapping[str, Sequence[Any]]
#: The table of anchor items and where the parent had them.
ANCHORS = "anchors"
#: The figure that early stopping and the choice of the best checkpoint go by.
BEST_BY = "ndcg_at_10"


@dataclass(frozen=True, slots=True)
class Examples:
    """What a run learns from: pairs, further tables by name (columns of texts, then `label`), validation."""

    pairs: PairTable | None
    tables: Mapping[str, Columns] = field(default_factory=dict)
    validation: RetrievalSet | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run. `curves` are the trainer's log entries, oldest first."""

    weights: Path
    steps: int
    seconds: float
    resumed_at: int
    precision: str
    curves: Sequence[Mapping[str, float]]
    best: float | None


def train(
    *,
    folder: Path,
    config: EncoderConfig,
    examples: Examples,
    recipe: Recipe,
    run: Path,
    device: str = "auto",
    callbacks: Sequence[Any] = (),
) -> Trained:
    """Train the release in `folder`; a run that was cut off goes on from its last whole checkpoint.

    `callbacks` are the library trainer's own. Raises InvalidRecipe, UnusableModel.
    """
    from datasets import Dataset, DatasetDict, disable_progress_bars
    from transformers import EarlyStoppingCallback, PrinterCallback, set_seed
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bars()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    started = time.monotonic()
    where = chosen_device(device)
    precision = _precision(recipe, where)
    set_seed(recipe.seed)
    model = open_model(folder, config, recipe, where)
    parent = {
        name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad
    }
    tasks = [*recipe.tasks]
    if recipe.distil and ANCHORS in examples.tables and all(task.data != ANCHORS for task in tasks):
        tasks.append(Task(data=ANCHORS, loss="EmbedDistillLoss", weight=recipe.distil))
    data = {task.data: Dataset.from_dict(dict(_columns(task, examples, recipe))) for task in tasks}
    losses = {task.data: _loss(task, examples, recipe, model) for task in tasks}
    steps_total = _steps([len(table) for table in data.values()], recipe)
    checkpoints = run / "checkpoints"
    resumed_at = _keep_whole(checkpoints)
    evaluator = _evaluator(examples.validation) if examples.validation is not None else None
    # The library's callback takes its folder from here alone, when it is made.
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run / "tensorboard")
    trainer = trainer_class()(
        model=model,
        args=_arguments(recipe, run, where, precision, steps_total, evaluates=evaluator is not None),
        train_dataset=DatasetDict(data),
        loss=losses,
        evaluator=evaluator,
        callbacks=[*callbacks, *([EarlyStoppingCallback(recipe.patience)] if evaluator is not None else [])],
    )
    trainer.pull = (recipe.l2_sp, parent)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=bool(resumed_at) or None)
    if recipe.interpolate < 1 and recipe.method in ("full", "top"):
        interpolate(parent, model, recipe.interpolate)
    weights = save_weights(model, run / "weights")
    shutil.rmtree(checkpoints, ignore_errors=True)
    curves = [
        {name: float(value) for name, value in entry.items() if isinstance(value, int | float)}
        for entry in trainer.state.log_history
    ]
    log.info(
        "training_ended method=%s steps=%d seconds=%.0f precision=%s resumed_at=%d",
        recipe.method,
        trainer.state.global_step,
        time.monotonic() - started,
        precision,
        resumed_at,
    )
    return Trained(
        weights=weights,
        steps=trainer.state.global_step,
        seconds=time.monotonic() - started,
        resumed_at=resumed_at,
        precision=precision,
        curves=curves,
        best=trainer.state.best_metric,
    )


def _columns(task: Task, examples: Examples, recipe: Recipe) -> Columns:
    """The task's table: columns of texts in the order the loss wants them, then the label."""
    if task.data != "pairs":
        if task.data not in examples.tables:
            known = ", ".join(["pairs", *examples.tables])
            raise InvalidRecipe(f"there are no examples {task.data!r} for a task of the recipe: {known}")
        return examples.tables[task.data]
    table = examples.pairs
    if table is None or not len(table):
        raise InvalidRecipe("the recipe trains on pairs, and there are none")
    columns: dict[str, Sequence[Any]] = {
        "anchor": [table.texts[row] for row in table.anchors],
        "positive": [table.texts[row] for row in table.positives],
    }
    if table.negatives is not None:
        for column in range(min(recipe.hard_negatives, table.negatives.shape[1])):
            columns[f"negative_{column + 1}"] = [table.texts[row] for row in table.negatives[:, column]]
    if task.loss == MASKED_CONTRASTIVE:
        columns["label"] = list(range(len(table)))
    return columns


def _loss(task: Task, examples: Examples, recipe: Recipe, model: Any) -> torch.nn.Module:
    loss: torch.nn.Module
    if task.loss == MASKED_CONTRASTIVE:
        if task.data != "pairs" or examples.pairs is None:
            raise InvalidRecipe(f"{MASKED_CONTRASTIVE} is a loss of the pairs, not of {task.data!r}")
        plain = MaskedContrastiveLoss(
            model,
            mask=NegativeMask(examples.pairs) if recipe.mask else None,
            weights=examples.pairs.weights,
            scale=recipe.scale,
            symmetric=recipe.symmetric,
            popularity=recipe.popularity,
        )
        loss = plain if recipe.mini_batch is None else cached(plain, recipe.mini_batch)
    elif task.loss in HEADS:
        labels = examples.tables[task.data]["label"]
        loss = HeadLoss(
            model,
            dimension=model.get_embedding_dimension(),
            classes=int(max(labels)) + 1 if task.loss == "category_head" else None,
        )
    else:
        loss = _library_loss(task, model)
    if recipe.matryoshka and task.loss not in HEADS:
        from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

        loss = MatryoshkaLoss(model, loss, matryoshka_dims=list(recipe.matryoshka))
    return loss if task.weight == 1 else Weighted(loss, task.weight)


def _library_loss(task: Task, model: Any) -> torch.nn.Module:
    from sentence_transformers.sentence_transformer import losses

    known = sorted(name for name in losses.__all__ if name.endswith("Loss"))
    if task.loss not in known:
        raise InvalidRecipe(f"the loss {task.loss!r} is none of {', '.join([MASKED_CONTRASTIVE, *known])}")
    try:
        loss: torch.nn.Module = getattr(losses, task.loss)(model, **task.options)
    except TypeError as error:
        raise InvalidRecipe(f"{task.loss} does not take these options: {error}") from error
    return loss


def _arguments(
    recipe: Recipe, run: Path, device: torch.device, precision: str, steps: int, *, evaluates: bool
) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments

    tracking = [
        one for one in recipe.tracking if one != "tensorboard" or find_spec("tensorboard") is not None
    ]
    every = max(1, steps // recipe.evaluations)
    arguments: dict[str, Any] = {
        "output_dir": str(run / "checkpoints"),
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": recipe.batch_pairs,
        "gradient_accumulation_steps": recipe.accumulation,
        "optim": recipe.optimiser,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": math.ceil(recipe.warmup * steps),
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": device.type == "cpu",
        "multi_dataset_batch_sampler": "proportional",
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 2,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": every if evaluates else None,
        "load_best_model_at_end": evaluates,
        "metric_for_best_model": f"eval_{BEST_BY}" if evaluates else None,
        "greater_is_better": True if evaluates else None,
        "logging_steps": max(1, min(50, steps // 20)),
        "report_to": tracking or "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": device.type == "cuda",
    }
    try:
        return SentenceTransformerTrainingArguments(**(arguments | recipe.arguments))
    except (TypeError, ValueError) as error:
        raise InvalidRecipe(f"the trainer does not take these arguments: {error}") from error


def _steps(lengths: Sequence[int], recipe: Recipe) -> int:
    batches = sum(math.ceil(length / recipe.batch_pairs) for length in lengths)
    return max(1, math.ceil(math.ceil(batches / recipe.accumulation) * recipe.epochs))


def _precision(recipe: Recipe, device: torch.device) -> str:
    if recipe.precision != "auto":
        return recipe.precision
    half = fast_half(device)
    # fp16 needs a loss scaler and gains nothing where bf16 is there; on a processor it is slow.
    return half if half == "bf16" else "fp32"


def _keep_whole(checkpoints: Path) -> int:
    """Drop checkpoints that a kill left half written; the step of the newest whole one, 0 without any.

    The trainer writes its state last.
    """
    newest = 0
    for path in checkpoints.glob("checkpoint-*"):
        step = path.name.rpartition("-")[2]
        if step.isdigit() and (path / "trainer_state.json").is_file():
            newest = max(newest, int(step))
        else:
            shutil.rmtree(path)
    return newest


def _evaluator(validation: RetrievalSet) -> Any:
    """Full ranking of the validation queries, as one of the library's evaluators."""
    from sentence_transformers.base.evaluation import BaseEvaluator

    class FullRanking(BaseEvaluator):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.primary_metric = BEST_BY

        def __call__(
            self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
        ) -> dict[str, float]:
            vectors = model.encode(
                list(validation.texts),
                batch_size=64,
                normalize_embeddings=True,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
            if not np.isfinite(vectors).all():
                # The gate refuses it by name; here it is merely no improvement.
                return {BEST_BY: 0.0, "hit_at_10": 0.0}
            ranks = ranks_of(vectors.astype(np.float32), validation.queries, validation.targets)
            return {
                BEST_BY: float(ndcg_at(ranks, 10).mean()),
                "hit_at_10": float(hits_at(ranks, 10).mean()),
            }

    return FullRanking()
