"""`simstream backup` and `simstream restore`: state, commits and releases into a folder, and back.

Reads   Redis, the broker, the releases folder
Writes  a folder; back: Redis, commits, releases
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapters.audit import Audit
from app.backup import back_up
from app.backup import restore as put_back
from app.commands.common import say
from app.discovery import stack_settings
from app.doctor_stores import is_embedded
from app.observability import configure_logging
from app.settings import Settings, load_settings
from schemas.errors import Halt

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the backup.")]


def backup(folder: Folder) -> None:
    """Write state, commits and releases into a folder, while everything runs.

    The topics are not in it, nor the index, which is made from state.
    """
    settings = _settings()
    with Audit(settings.audit).acting("backup", folder=str(folder)) as act:
        told = back_up(settings, folder, say=say)
        act.note(keys=told.keys, releases=list(told.releases))
    print(f"{told.keys} keys and {len(told.releases)} releases of {told.made_at.isoformat()} in {folder}")


def restore(
    folder: Folder,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the backup in place of the state that stands there.")
    ] = False,
) -> None:
    """Put state, releases and commits back as they were. The consumers of state must not run.

    Start them afterwards: they read what has happened since. Then run `simstream reconcile`.
    """
    settings = _settings()
    with Audit(settings.audit).acting("restore", folder=str(folder), replace=replace) as act:
        told = put_back(settings, folder, replace=replace, say=say)
        act.note(made_at=told.made_at.isoformat())
    print(
        f"restored to {told.made_at.isoformat()}; whoever asked to be forgotten since is to be forgotten "
        "again: `simstream forget`"
    )


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(backup)
    app.command()(restore)


def _settings() -> Settings:
    settings = load_settings()
    configure_logging(settings.log)
    data_dir = Path("var")
    if is_embedded(stack_settings(settings, data_dir), data_dir):
        raise Halt(
            "the embedded broker keeps nothing, so there is nothing to read again after a restore: stop the "
            "stack and copy its data folder"
        )
    return settings
