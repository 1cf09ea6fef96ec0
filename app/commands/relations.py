"""`simstream relations`: what is bought and looked at together, mined at once; what the last run was.

Reads   what app/relations.py reads
Writes  what app/relations.py writes
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.discovery import stack_settings
from app.observability import configure_logging
from app.settings import load_settings
from app.wiring import open_relations
from schemas.relations import Run

relations = typer.Typer(
    no_args_is_help=True, help="What is bought or looked at together (docs/relations.md)."
)

DataDir = Annotated[Path, typer.Option(help="The data folder of `simstream up --embedded`.")]


@relations.command("mine")
def mine(data_dir: DataDir = Path("var")) -> None:
    """Bring the archive of user events up to now, mine it, and make that what the service answers with."""
    from app.relations import mine_once

    settings = stack_settings(load_settings(), data_dir)
    configure_logging(settings.log)
    print(_told(mine_once(settings)))


@relations.command("show")
def show(data_dir: DataDir = Path("var")) -> None:
    """Say which run the service answers with."""
    run = open_relations(stack_settings(load_settings(), data_dir)).live()
    print("no run yet: `simstream relations mine` makes one" if run is None else _told(run))


def _told(run: Run) -> str:
    return (
        f"run {run.run}: {run.pairs} pairs beyond chance among {run.items} items,"
        f" from {run.baskets} baskets and {run.visits} visits"
    )


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(relations, name="relations")
