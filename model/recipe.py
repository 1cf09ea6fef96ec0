"""How a release is trained: one frozen recipe, read from a TOML or JSON file, printed, and kept with its run.

Reads   a recipe file
Writes  nothing
Never   imports torch, nor ignores a name it does not know: a misspelt setting is refused

What simstream measured has a field of its own here. Everything else that the libraries offer is reached by
the library's own name: a loss of sentence-transformers in `Task.loss`, a method of peft in `method`, an
argument of the trainer in `arguments`. Those are passed through as they are.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from schemas.events import Frozen
from schemas.parsing import explain

#: Ways of training whose result is weights of the model's own shape, so that a release can be made of it.
OWN_METHODS = ("full", "top")
#: The only loss of ours: sentence-transformers' in-batch losses know nothing of false negatives.
MASKED_CONTRASTIVE = "masked_contrastive"
#: A linear head over one text's vector, thrown away after training.
HEADS = ("category_head", "number_head")


class InvalidRecipe(ValueError):
    """A recipe that cannot be followed; the message names the field and what was expected."""


class Strict(Frozen):
    """Part of a recipe: an unknown field is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(Strict):
    """What is learned from one table of examples.

    `data` names the table; `loss` is `masked_contrastive`, `category_head`, `number_head`, or the name of a
    loss in sentence_transformers.losses; `options` go to it as they are; `weight` multiplies it.
    """

    data: str
    loss: str = MASKED_CONTRASTIVE
    options: dict[str, Any] = {}
    weight: float = Field(default=1.0, gt=0)


class Augment(Strict):
    """What is done to the texts of pairs before they are trained on, once a run; the title always stays.

    `token_dropout` is the share of words that are left out, `field_dropout` of the parts between separators
    behind the first, `synonyms` of the words that another of the catalogue's own takes the place of.
    """

    token_dropout: float = Field(default=0.0, ge=0, le=0.5)
    field_dropout: float = Field(default=0.0, ge=0, le=0.9)
    synonyms: float = Field(default=0.0, ge=0, le=0.5)
    separator: str = Field(default=". ", min_length=1)

    def __bool__(self) -> bool:
        return bool(self.token_dropout or self.field_dropout or self.synonyms)


class Recipe(Strict):
    """Everything that decides what a run does with its data.

    `method` is `full`, `top` (the upper `top_layers` alone), or a method of peft by its library name ("LORA",
    "ADALORA", "IA3", ...) with `peft` as its options. `epochs` passes over `batch_pairs` at a time, times
    `accumulation`; `mini_batch` caches gradients, so that a large batch needs little memory. `matryoshka`
    lists shorter vectors that should do as well. `max_tokens` cuts texts in training alone.

    A smaller release: `layers` are those of the parent's that stay (the first is 0); all anchors teach them
    where the parent had them. `dimension` is how many numbers of a vector are kept, one of `matryoshka`.

    Off by default, each measured once (docs/learning.md): `pretrain` first reads texts without pairs, for
    `pretrain_epochs`; `adversarial` adds the gradient at word embeddings that are moved so far uphill (FGM,
    Miyato et al. 2017, eq. 5); `augment` varies texts; `average` is the share of the last steps whose weights
    are averaged (Izmailov et al. 2018, SWA); `soup` trains so many times, from one seed to the next, and
    averages what comes of it (Wortsman et al. 2022, model soups).

    Against forgetting: `distil` weighs the task that holds anchor items where the parent had them, `replay`
    is the share of old pairs, `l2_sp` pulls weights towards the parent's, and `interpolate` is how far to go
    from the parent's weights to the trained ones (1 is all the way).
    """

    seed: int = 1
    method: str = "full"
    peft: dict[str, Any] = {}
    top_layers: int = Field(default=2, ge=1)
    tasks: tuple[Task, ...] = (Task(data="pairs"),)

    scale: float = Field(default=20.0, gt=0)
    symmetric: bool = True
    mask: bool = True
    popularity: float = Field(default=0.0, ge=0, le=2)
    hard_negatives: int = Field(default=0, ge=0, le=16)
    mini_batch: int | None = Field(default=None, ge=1)
    matryoshka: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    dimension: int | None = Field(default=None, ge=1)

    pretrain: Literal["none", "mlm", "tsdae", "simcse"] = "none"
    pretrain_epochs: float = Field(default=1.0, gt=0)
    adversarial: float = Field(default=0.0, ge=0, le=10)
    augment: Augment = Augment()
    average: float = Field(default=0.0, ge=0, le=1)
    soup: int = Field(default=1, ge=1, le=10)

    distil: float = Field(default=0.5, ge=0)
    replay: float = Field(default=0.3, ge=0, lt=1)
    l2_sp: float = Field(default=0.0, ge=0)
    interpolate: float = Field(default=1.0, gt=0, le=1)

    epochs: float = Field(default=1.0, gt=0)
    batch_pairs: int = Field(default=64, ge=2)
    accumulation: int = Field(default=1, ge=1)
    optimiser: str = "adamw_torch"
    learning_rate: float = Field(default=2e-5, gt=0)
    schedule: str = "linear"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    max_tokens: int | None = Field(default=64, ge=4)
    gradient_checkpointing: bool = False

    evaluations: int = Field(default=4, ge=1)
    patience: int = Field(default=2, ge=1)
    tracking: tuple[str, ...] = ("tensorboard",)
    arguments: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if not self.tasks:
            raise ValueError("expected at least one task")
        names = [task.data for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError("expected each table once: two tasks name the same data")
        if self.peft and self.method in OWN_METHODS:
            raise ValueError(f"options of peft are set, and the method {self.method!r} is none of peft's")
        if self.adversarial and self.method != "full":
            raise ValueError(
                f"adversarial moves word embeddings, and the method {self.method!r} does not train them"
            )
        if list(self.layers) != sorted(set(self.layers)) or any(layer < 0 for layer in self.layers):
            raise ValueError("expected layers in ascending order, each once, the first being 0")
        if self.dimension is not None and self.dimension not in self.matryoshka:
            raise ValueError(
                f"dimension {self.dimension} is none of matryoshka, and a vector that was not trained to be "
                "cut loses by it: name it there too"
            )
        return self


def read_recipe(path: Path | None) -> Recipe:
    """The recipe in a TOML or JSON file; the default one without. Raises InvalidRecipe."""
    if path is None:
        return Recipe()
    try:
        text = path.read_text()
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return Recipe.model_validate(found)
    except OSError as error:
        raise InvalidRecipe(f"the recipe {path} cannot be read: {error.strerror}") from error
    except (ValueError, tomllib.TOMLDecodeError) as error:
        reason = explain(error) if isinstance(error, ValidationError) else str(error)
        raise InvalidRecipe(f"the recipe {path} cannot be followed: {reason}") from None
