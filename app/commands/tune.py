"""`simstream tune`: which recipe does best on what shoppers did last.

Reads   what app/tuning.py reads; a recipe to start from, a file that narrows the space
Writes  a recipe file, and a table of the trials beside it
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.discovery import stack_settings
from app.observability import configure_logging
from app.settings import load_settings

if TYPE_CHECKING:
    from model.recipe import Recipe


def tune(
    out: Annotated[Path, typer.Option(help="The recipe that was found: .toml or .json.")],
    trials: Annotated[int, typer.Option(min=1, help="So many altogether, those of earlier calls too.")] = 20,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="No further trial begins after so long.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Where to start, and the fields that are not searched.")
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="TOML or JSON that narrows what is searched (docs/learning.md).")
    ] = None,
    golden: Annotated[
        Path | None, typer.Option(help="Pairs that `train` judges by: none is learned from.")
    ] = None,
    labelled: Annotated[Path | None, typer.Option(help="Pairs to learn from, as for `train`.")] = None,
    parent: Annotated[str | None, typer.Option(help="The release to start from; the live one.")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Begin another search, on today's events.")] = False,
    data_dir: Annotated[Path, typer.Option(help="The data folder of `simstream up --embedded`.")] = Path(
        "var"
    ),
) -> None:
    """Search for a recipe that `simstream train --recipe` follows; publish nothing.

    Each trial trains the live release and is rated by ndcg@10 of the validation queries; one that does worse
    than half of the others at the same point is ended early. The same command goes on where it was stopped.
    """
    from app.learning_inputs import path_of
    from app.tuning import tune as found_by
    from model.recipe import read_recipe
    from model.search_space import read_space
    from model.tuning import in_words, write_table

    settings = stack_settings(load_settings(), data_dir)
    configure_logging(settings.log)
    files = {"recipe": recipe, "golden": golden, "labelled": labelled}
    chosen = {name: str(path) for name, path in files.items() if path is not None}
    settings = settings.model_copy(update={"training": settings.training.model_copy(update=chosen)})
    start, searched = read_recipe(path_of(settings.training.recipe)), read_space(space)

    # Whether the file can be written is known before hours of search.
    _in_file(start, out)
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no folder {out.parent}")
    found = found_by(
        settings,
        data_dir,
        recipe=start,
        space=searched,
        trials=trials,
        seconds=seconds,
        say=_say,
        anew=anew,
        parent=parent,
    )
    out.write_text(_in_file(found.recipe, out))
    table = out.with_suffix(".trials.csv")
    write_table(found.trials, table, searched)
    for trial in sorted(found.trials, key=lambda trial: -(trial.rating or 0.0)):
        print(in_words(trial))
    print(f"ndcg@10 of the validation queries {found.before:.4f} -> {found.rating:.4f}; {out}, {table}")


def _in_file(recipe: Recipe, out: Path) -> str:
    """The recipe as `out` is to hold it."""
    from model.search_space import in_toml

    if out.suffix == ".json":
        return json.dumps(recipe.model_dump(mode="json", exclude_defaults=True), indent=1) + "\n"
    return in_toml(recipe)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(tune)
