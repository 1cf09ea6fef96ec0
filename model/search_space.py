"""What a search for a recipe may change, and how far: all of it here, each with its reason.

Reads   a file that narrows it
Writes  nothing
Never   widens a bound: what lies outside was not thought of, and stands in a recipe as it is

A search goes by the newest sessions alone, and they say nothing of what is forgotten. So what protects the
old behaviour may be weakened here, and never switched off; the gate judges the rest.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from model.recipe import Recipe

if TYPE_CHECKING:
    from optuna.trial import Trial

Value = int | float | str


class Range(NamedTuple):
    """Anything from `low` to `high`; `log`: a factor counts the same everywhere."""

    low: float
    high: float
    log: bool = False

    def of(self, trial: Trial, name: str) -> Value:
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def narrowed(self, name: str, wanted: Any) -> Dimension:
        bounds = wanted if isinstance(wanted, list) else [wanted]
        if len(bounds) > 2 or not bounds or not all(type(bound) in (int, float) for bound in bounds):
            raise ValueError(f"{name}: expected a number, or the lowest and the highest, not {wanted!r}")
        low, high = float(bounds[0]), float(bounds[-1])
        if not self.low <= low <= high <= self.high:
            raise ValueError(f"{name}: {wanted!r} does not lie within {self.low:g} to {self.high:g}")
        return Choice((low,)) if low == high else Range(low, high, self.log)


class Choice(NamedTuple):
    """One of these."""

    values: tuple[Value, ...]

    def of(self, trial: Trial, name: str) -> Value:
        return cast(Value, trial.suggest_categorical(name, self.values))

    def narrowed(self, name: str, wanted: Any) -> Dimension:
        left = tuple(wanted) if isinstance(wanted, list) else (wanted,)
        if not left or not all(value in self.values for value in left):
            raise ValueError(f"{name}: expected some of {list(self.values)}, not {wanted!r}")
        return Choice(tuple(value for value in self.values if value in left))


Dimension = Range | Choice
Space = Mapping[str, Dimension]

SPACE: Space = {
    # Matters most, and its right size depends on pairs, batch and method: two orders of magnitude around the
    # default, the upper end for LoRA and the upper layers alone (the benchmark `methods`).
    "learning_rate": Range(5e-6, 2e-3, log=True),
    # With in-batch negatives a larger batch is a harder task; beyond 128 a run needs `mini_batch`.
    "batch_pairs": Choice((16, 32, 64, 128)),
    # The inverse temperature: how much of the loss is the nearest negatives'. 20 is customary.
    "scale": Range(8.0, 60.0, log=True),
    # How often a pair is seen. More than three passes over what shoppers did teach chance.
    "epochs": Choice((1.0, 2.0, 3.0)),
    # How much what everybody has is taken for no negative.
    "popularity": Choice((0.0, 0.5, 1.0)),
    # Whether the encoder's own dropout, or none: texts are short.
    "dropout": Choice((0.0, 0.1)),
    # These three protect what was known before. The weight of `distil` matters less than its being there.
    "distil": Range(0.1, 2.0, log=True),
    # A choice, for each has its own table of examples.
    "replay": Choice((0.15, 0.3, 0.5)),
    "interpolate": Range(0.4, 1.0),
}


def read_space(path: Path | None) -> Space:
    """The space, narrowed by a TOML or JSON file of its fields.

    A value fixes a field; a list is what is left of a choice, or the lowest and the highest of a range.
    Raises ValueError naming file and field.
    """
    if path is None:
        return SPACE
    try:
        text = path.read_text()
        wanted = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        if not isinstance(wanted, dict):
            raise ValueError("expected fields of the space and what is left of them")
        unknown = ", ".join(sorted(set(wanted) - set(SPACE)))
        if unknown:
            raise ValueError(f"{unknown}: not searched. What is: {', '.join(SPACE)}; else it is the recipe's")
        return {
            name: dimension.narrowed(name, wanted[name]) if name in wanted else dimension
            for name, dimension in SPACE.items()
        }
    except OSError as error:
        raise ValueError(f"the space {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"the space {path} cannot be searched: {error}") from None


def suggested(space: Space, trial: Trial) -> dict[str, Value]:
    """A value for each field."""
    return {name: dimension.of(trial, name) for name, dimension in space.items()}


def with_changes(recipe: Recipe, changes: Mapping[str, Value]) -> Recipe:
    """The recipe with these fields. Raises ValidationError where they do not fit together."""
    return Recipe.model_validate({**recipe.model_dump(), **changes})


def replays(space: Space, recipe: Recipe) -> list[float]:
    """Every share of old pairs that a trial, or the recipe as it is, may ask for."""
    dimension = space.get("replay")
    chosen = dimension.values if isinstance(dimension, Choice) else ()
    return sorted({recipe.replay, *(float(value) for value in chosen)})


def in_toml(recipe: Recipe) -> str:
    """A recipe's file: what differs from the defaults. Raises ValueError for what TOML cannot say."""
    lines, tables = [], []
    for name, value in recipe.model_dump(mode="json", exclude_defaults=True).items():
        if name == "tasks":
            for task in value:
                tables += ["", "[[tasks]]", *(f"{key} = {_toml(key, inner)}" for key, inner in task.items())]
        else:
            lines.append(f"{name} = {_toml(name, value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _toml(name: str, value: Any) -> str:
    if value is None:
        raise ValueError(f"{name} is null, which TOML cannot say: name a file that ends in .json")
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {_toml(key, one)}" for key, one in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(_toml(name, one) for one in value)}]"
    return json.dumps(value, ensure_ascii=False)
