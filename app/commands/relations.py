"""`simstream relations`: what is bought and looked at together, mined at once; what the last run was.

Reads   what app/relations.py reads
Writes  what app/relations.py writes
"""

from __future__ import annotations

from pathlib import Path

import typer

from app.commands.common import DataDir, settings_at
from app.wiring import open_relations
from schemas.relations import Run

relations = typer.Typer(
    no_args_is_help=True, help="What is bought or looked at together (docs/relations.md)."
)


@relations.command("mine")
def mine(data_dir: DataDir = Path("var")) -> None:
    """Bring the archive of user events up to now, mine it, and make that what the service answers with."""
    from app.relations import mine_once

    settings = settings_at(data_dir, logged=True)
    print(_told(mine_once(settings)))


@relations.command("show")
def show(data_dir: DataDir = Path("var")) -> None:
    """Say which run the service answers with."""
    run = open_relations(settings_at(data_dir)).live()
    print("no run yet: `simstream relations mine` makes one" if run is None else _told(run))


def _told(run: Run) -> str:
    return (
        f"run {run.run}: {run.pairs} pairs beyond chance among {run.items} items,"
        f" from {run.baskets} baskets and {run.visits} visits"
    )


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(relations, name="relations")
