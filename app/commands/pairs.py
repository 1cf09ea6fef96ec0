"""`simstream pairs`: which pairs of products people should label next.

Reads   what app/pairs.py reads
Writes  a file of pairs without labels
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from app.discovery import stack_settings
from app.observability import configure_logging
from app.settings import load_settings

pairs = typer.Typer(no_args_is_help=True, help="Pairs of products for people to label (docs/learning.md).")

_KNOWN = {
    "labels": "by a classifier of the labelled pairs",
    "behaviour": "by a classifier of what shoppers had together against pairs by chance: no pair is labelled",
    "nothing": "from the most alike to the least: nothing is known of pairs yet",
}


@pairs.command("suggest")
def suggest(
    out: Annotated[Path, typer.Option(help="JSON Lines; it must not exist yet.")],
    count: Annotated[int, typer.Option(min=1, help="So many pairs.")] = 50,
    labelled: Annotated[
        Path | None,
        typer.Option(help="Pairs with labels, as `train` takes them: learned from, not proposed."),
    ] = None,
    golden: Annotated[
        Path | None, typer.Option(help="Pairs that releases are judged by: not proposed.")
    ] = None,
    per_item: Annotated[int, typer.Option(min=1, help="How often one product may be in the file.")] = 1,
    items: Annotated[
        int, typer.Option(min=2, help="Products that are compared; of more so many are drawn.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 1,
    parent: Annotated[str | None, typer.Option(help="The release that compares; the live one.")] = None,
    data_dir: Annotated[Path, typer.Option(help="The data folder of `simstream up --embedded`.")] = Path(
        "var"
    ),
) -> None:
    """Propose the pairs whose labels would teach most, spread over the catalogue.

    Fill in each label, 1 where the two belong together and 0 where not, and give the file to
    `simstream train --labelled`. Pairs left without a label are left out there.
    """
    from app.learning import live_release
    from app.pairs import propose, write_pairs

    settings = stack_settings(load_settings(), data_dir)
    configure_logging(settings.log)
    files = {"golden": golden, "labelled": labelled}
    chosen = {name: str(path) for name, path in files.items() if path is not None}
    settings = settings.model_copy(update={"training": settings.training.model_copy(update=chosen)})
    if out.exists():
        raise ValueError(f"{out} is there already, with labels perhaps: name another file")
    found = propose(
        settings,
        parent=parent or live_release(settings, data_dir),
        count=count,
        most_items=items,
        most_per_item=per_item,
        seed=seed,
        say=lambda sentence: print(sentence, file=sys.stderr, flush=True),
    )
    write_pairs(found.pairs, out)
    print(f"{len(found.pairs)} of {found.pool} pairs, {_KNOWN[found.basis]}: fill in the labels of {out}")


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(pairs, name="pairs")
