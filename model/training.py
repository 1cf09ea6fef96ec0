"""One run of training: a release's weights, tables of examples and a recipe become new weights.

Reads   a release's folder; the run's own checkpoints, after a kill
Writes  the run's folder: checkpoints/ while it runs, weights/ when it is done, logs of the tracker
Never   looks at the new weights' quality beyond validation: model/gate.py judges them

The loop is sentence-transformers' own trainer (transformers and accelerate below it), so accumulation,
clipping, schedules, mixed precision, checkpoints and batches over several processes
(model/training_together.py) are theirs. Ours are the masked
loss, the pull towards the parent's weights (model/trainer.py), and validation by full ranking.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model import ranks
from model.evaluation import RetrievalSet, hits_at, ndcg_at, ranks_of
from model.precision import chosen_device, fast_half, without_plans
from model.pretraining import Reading, pretrained
from model.recipe import InvalidRecipe, Recipe, Task
from model.soup import mean_of_weights
from model.tasks import ANCHORS, Examples, columns_of, loss_of
from model.trainable import interpolate, open_model, save_weights
from model.trainer import trainer_class
from schemas.releases import EncoderConfig

log = logging.getLogger(__name__)

#: The figure that early stopping and the choice of the best checkpoint go by.
BEST_BY = "ndcg_at_10"


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
    where = chosen_device(device)
    without_plans(where)
    start = folder
    if recipe.pretrain != "none":
        texts = examples.unlabelled or (examples.pairs.texts if examples.pairs is not None else ())
        start = pretrained(Reading(folder, config, list(dict.fromkeys(texts)), recipe, run, where))
    given = _Given(folder, start, config, examples, where, callbacks)
    if recipe.soup == 1:
        return _one_run(given, recipe, run)
    each = []
    for number in range(recipe.soup):
        single = recipe.model_copy(update={"soup": 1, "seed": recipe.seed + number})
        each.append(_kept(given, single, run / f"soup-{number}"))
    if ranks.first():
        mean_of_weights([one.weights for one in each], run / "weights")
        for one in each:
            shutil.rmtree(one.weights.parent)
    ranks.wait_for_all()
    return replace(
        each[0],
        weights=run / "weights",
        steps=sum(one.steps for one in each),
        seconds=sum(one.seconds for one in each),
        resumed_at=max(one.resumed_at for one in each),
        best=None,
    )


class _Given(NamedTuple):
    """What runs of one training share; `folder` is the parent, `start` its weights or pretrained ones."""

    folder: Path
    start: Path
    config: EncoderConfig
    examples: Examples
    where: torch.device
    callbacks: Sequence[Any]


def _kept(given: _Given, recipe: Recipe, run: Path) -> Trained:
    """One run of several, unless it ended before the run was cut off."""
    told = run / "trained.json"
    if told.is_file():
        found = json.loads(told.read_bytes())
        return Trained(**(found | {"weights": Path(found["weights"])}))
    one = _one_run(given, recipe, run)
    if ranks.first():
        aside = told.with_suffix(".tmp")
        aside.write_text(json.dumps(asdict(one), default=str))
        aside.replace(told)
    ranks.wait_for_all()
    return one


def _one_run(given: _Given, recipe: Recipe, run: Path) -> Trained:
    """To a folder of weights, or on from the run's last whole checkpoint."""
    from datasets import Dataset, DatasetDict, disable_progress_bars
    from transformers import EarlyStoppingCallback, PrinterCallback, set_seed
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bars()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    started = time.monotonic()
    folder, start, config, examples, where, callbacks = given
    precision = _precision(recipe, where)
    set_seed(recipe.seed)
    model = open_model(start, config, recipe, where)
    origin = model if start == folder else open_model(folder, config, recipe, where)
    parent = {
        name: weight.detach().clone() for name, weight in origin.named_parameters() if weight.requires_grad
    }
    del origin
    tasks = [*recipe.tasks]
    if recipe.distil and ANCHORS in examples.tables and all(task.data != ANCHORS for task in tasks):
        tasks.append(Task(data=ANCHORS, loss="EmbedDistillLoss", weight=recipe.distil))
    data = {
        task.data: Dataset.from_dict(
            dict(columns_of(task, examples, recipe, lambda texts: _unit(model, texts)))
        )
        for task in tasks
    }
    losses = {task.data: loss_of(task, examples, recipe, model) for task in tasks}
    if ranks.processes() > 1:
        _refuse_apart(model, losses)
    steps_total = steps_of([len(table) for table in data.values()], recipe)
    checkpoints = _checkpoints(run)
    if ranks.first():
        _keep_whole(checkpoints)
    ranks.wait_for_all()
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
    trainer.uphill = recipe.adversarial
    if recipe.average:
        trainer.average_over(first=steps_total - math.ceil(recipe.average * steps_total) + 1)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=bool(resumed_at) or None)
    if trainer.average is not None:
        _take_average(trainer, model, evaluator)
    if recipe.interpolate < 1 and recipe.method in ("full", "top"):
        interpolate(parent, model, recipe.interpolate)
    # Nobody reads a checkpoint any more.
    ranks.wait_for_all()
    if ranks.first():
        save_weights(model, run / "weights")
        for path in run.glob("checkpoints*"):
            shutil.rmtree(path, ignore_errors=True)
    ranks.wait_for_all()
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
        weights=run / "weights",
        steps=trainer.state.global_step,
        seconds=time.monotonic() - started,
        resumed_at=resumed_at,
        precision=precision,
        curves=curves,
        best=trainer.state.best_metric,
    )


def _unit(model: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = model.encode(
        list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
    )
    return found


def _take_average(trainer: Any, model: Any, evaluator: Any) -> None:
    """The averaged weights in place of the best checkpoint's, unless validation says they are worse."""
    backbone = model.transformers_model
    best = {name: tensor.detach().clone() for name, tensor in backbone.state_dict().items()}
    backbone.load_state_dict(trainer.average.module.state_dict())
    if evaluator is None:
        return
    averaged, known = evaluator(model)[BEST_BY], trainer.state.best_metric or 0.0
    if averaged < known:
        backbone.load_state_dict(best)
    log.info("weights_averaged steps=%d figure=%.4f best=%.4f", trainer.average.n_averaged, averaged, known)


def _arguments(
    recipe: Recipe, run: Path, device: torch.device, precision: str, steps: int, *, evaluates: bool
) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments

    tracking = [
        one for one in recipe.tracking if one != "tensorboard" or find_spec("tensorboard") is not None
    ]
    every = max(1, steps // recipe.evaluations)
    arguments: dict[str, Any] = {
        "output_dir": str(_checkpoints(run)),
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
        # No buffer changes while training. Sent at each forward pass, they would make processes wait for each
        # other for ever: tables differ in columns, and so in passes. Every weight that is trained is used.
        "ddp_broadcast_buffers": False,
        "ddp_find_unused_parameters": False,
    }
    try:
        return SentenceTransformerTrainingArguments(**(arguments | recipe.arguments))
    except (TypeError, ValueError) as error:
        raise InvalidRecipe(f"the trainer does not take these arguments: {error}") from error


def steps_of(lengths: Sequence[int], recipe: Recipe) -> int:
    """How many steps a process makes over tables of these lengths, all epochs together. Raises InvalidRecipe.

    Several processes leave out what is less than a batch for each of them.
    """
    together = ranks.processes()
    if together == 1:
        batches = sum(math.ceil(length / recipe.batch_pairs) for length in lengths)
    else:
        batches = sum(length // recipe.batch_pairs for length in lengths) // together
        if not batches or min(lengths) < recipe.batch_pairs:
            raise InvalidRecipe(
                f"batch_pairs: {together} processes need a batch of {recipe.batch_pairs} each, and one of "
                f"every table, and there are tables of {', '.join(map(str, lengths))} rows: set a smaller "
                "one, or SIMSTREAM_TRAINING__PROCESSES=1"
            )
    return max(1, math.ceil(math.ceil(batches / recipe.accumulation) * recipe.epochs))


def _precision(recipe: Recipe, device: torch.device) -> str:
    if recipe.precision != "auto":
        return recipe.precision
    half = fast_half(device)
    # fp16 needs a loss scaler and gains nothing where bf16 is there; on a processor it is slow.
    return half if half == "bf16" else "fp32"


def _checkpoints(run: Path) -> Path:
    """Where they lie. A step of several processes is another one: with more or fewer a run begins anew."""
    together = ranks.processes()
    return run / ("checkpoints" if together == 1 else f"checkpoints-{together}")


def _refuse_apart(model: Any, losses: Mapping[str, Any]) -> None:
    """Losses in which several processes would learn each for itself. Raises InvalidRecipe."""
    shared = {id(weight) for weight in model.parameters()}
    for table, loss in losses.items():
        own = any(weight.requires_grad and id(weight) not in shared for weight in loss.parameters())
        # Gradients are averaged of the model that the trainer finds under this name, and of nothing else.
        if own or not hasattr(loss, "model"):
            raise InvalidRecipe(
                f"the loss of {table!r} has weights of its own, or names no model: it can be trained by one "
                "process only, so set SIMSTREAM_TRAINING__PROCESSES=1"
            )


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
            vectors = _unit(model, validation.texts)
            if not np.isfinite(vectors).all():
                # The gate refuses it by name; here it is merely no improvement.
                return {BEST_BY: 0.0, "hit_at_10": 0.0}
            ranks = ranks_of(vectors.astype(np.float32), validation.queries, validation.targets)
            return {
                BEST_BY: float(ndcg_at(ranks, 10).mean()),
                "hit_at_10": float(hits_at(ranks, 10).mean()),
            }

    return FullRanking()
