"""`simstream opinions`: a head that hears what reviewers say is trained, chosen, or let go of.

Reads   what app/opinions.py reads
Writes  what app/opinions.py writes
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.common import DataDir, say, settings_at
from app.wiring import open_opinions

opinions = typer.Typer(
    no_args_is_help=True, help="What reviewers say about aspects of items (docs/opinions.md)."
)


@opinions.command("train")
def train(data_dir: DataDir = Path("var")) -> None:
    """Train a head on the live release from the stars of reviews; it listens from then on."""
    from app.opinions import train_opinions

    print(train_opinions(settings_at(data_dir, logged=True), data_dir, say=say).release_id)


@opinions.command("use")
def use(
    head: Annotated[str, typer.Argument(help="A head that `simstream opinions show` lists.")],
    data_dir: DataDir = Path("var"),
) -> None:
    """Let another head listen: an earlier one, for example."""
    from app.opinions import listen_with

    listen_with(settings_at(data_dir, logged=True), head, say=say)


@opinions.command("stop")
def stop(data_dir: DataDir = Path("var")) -> None:
    """Let no head listen, and forget what was heard: nobody would take it back when a review is."""
    store = open_opinions(settings_at(data_dir, logged=True))
    store.set_head(None)
    say(f"nobody listens any more; what was heard of {store.drop_all()} items is forgotten")


@opinions.command("show")
def show(data_dir: DataDir = Path("var")) -> None:
    """List the heads there are, and say which one listens."""
    from app.opinions import heads

    settings = settings_at(data_dir, logged=True)
    live, store = open_opinions(settings).head(), heads(settings)
    for name in store.list():
        made = store.manifest(name)
        print(
            f"{name}  {'listens' if name == live else '       '}  {made.created_at:%Y-%m-%d %H:%M}  on"
            f" {made.parent}  area under the curve {made.figures.get('auc', 0):.3f}"
        )
    if live is None:
        print("no head listens: `simstream opinions train` makes one from the stars of reviews")


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(opinions, name="opinions")
