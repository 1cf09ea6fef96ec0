"""Tasks of a recipe as what the trainer takes: a table of columns, and a loss.

Reads   examples and the recipe, in memory
Writes  nothing
Never   guesses at a table or a loss that it does not know: both are refused by name
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.augmentation import augmented, synonyms_of
from model.evaluation import RetrievalSet
from model.losses import HeadLoss, MaskedContrastiveLoss, Weighted, cached
from model.pairs import NegativeMask, PairTable
from model.recipe import HEADS, MASKED_CONTRASTIVE, InvalidRecipe, Recipe, Task

Columns = Mapping[str, Sequence[Any]]
#: The table of anchor items and where the parent had them.
ANCHORS = "anchors"


@dataclass(frozen=True, slots=True)
class Examples:
    """What a run learns from: pairs, further tables by name (columns of texts, then `label`), validation.

    `unlabelled` are texts that a recipe with `pretrain` reads first; without any it reads those of the pairs.
    """

    pairs: PairTable | None
    tables: Mapping[str, Columns] = field(default_factory=dict)
    validation: RetrievalSet | None = None
    unlabelled: Sequence[str] = ()


def columns_of(
    task: Task,
    examples: Examples,
    recipe: Recipe,
    encode: Callable[[Sequence[str]], NDArray[np.float32]],
) -> Columns:
    """The task's table: columns of texts in the order the loss wants them, then the label.

    `encode` makes unit vectors with the weights that training starts from. Raises InvalidRecipe.
    """
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
    if recipe.augment:
        synonyms = synonyms_of(table.texts, encode) if recipe.augment.synonyms else {}
        random = Random(recipe.seed)
        columns = {
            name: augmented(texts, recipe.augment, synonyms=synonyms, random=random)
            for name, texts in columns.items()
        }
    if table.negatives is not None:
        for column in range(min(recipe.hard_negatives, table.negatives.shape[1])):
            columns[f"negative_{column + 1}"] = [table.texts[row] for row in table.negatives[:, column]]
    if task.loss == MASKED_CONTRASTIVE:
        columns["label"] = list(range(len(table)))
    return columns


def loss_of(task: Task, examples: Examples, recipe: Recipe, model: Any) -> torch.nn.Module:
    """The task's loss on this model. Raises InvalidRecipe."""
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
    # Anchors say where whole vectors are to be.
    if recipe.matryoshka and task.loss not in HEADS and task.data != ANCHORS:
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
