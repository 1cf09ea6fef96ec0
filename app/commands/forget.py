"""`simstream forget USER`: what was kept of a shopper goes, and what comes of theirs from before is ignored.

Reads   the stack's addresses
Writes  what app/forgetting.py writes; a report on standard output, progress on standard error
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from adapters.audit import Audit
from adapters.index import open_index
from app.commands.common import DataDir, settings_at
from app.forgetting import Forgotten
from consumers.erasures import erasure_key


def forget(
    user: Annotated[str, typer.Argument(help="The user id, as events carry it.")],
    data_dir: DataDir = Path("var"),
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for readers and writers.")] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Forget a shopper: recent items, sketches, reviews, the archive, dead letters, vectors, Redis' files.

    Events of theirs up to now are ignored from here on, replays included. Weights of trained models and
    counts that name nobody stay. Exit code 3 when something could not be done now; give the command again.
    """
    from app.forgetting import forget as forgotten

    settings = settings_at(data_dir, logged=True)
    index = open_index(settings.qdrant)
    try:
        collections = [
            name for name in index.collections() if name.startswith(f"{settings.namespace}items__")
        ]
    finally:
        index.close()
    # By the name in user.erasures: who has its key can find a shopper's line, and nobody else.
    name = erasure_key(user, settings.erasures.secret)
    with Audit(settings.audit).acting("forget", hidden=user, shopper=name) as act:
        found = forgotten(
            settings,
            user,
            collections=collections,
            timeout_seconds=timeout,
            say=lambda text: print(text, file=sys.stderr),
        )
        act.note(**found.as_json())
    print(json.dumps(found.as_json()) if as_json else _told(found))
    if found.pending:
        raise typer.Exit(3)


def _told(found: Forgotten) -> str:
    lines = [
        f"forgotten as of {found.erased_at}; {found.readers} readers ignore what is older",
        f"removed: {found.keys} keys, a member of {found.sketches} sketches, reviews of "
        f"{found.reviewed_products} products, {found.archive_rows} rows of the archive, "
        f"examples of {found.runs_examples} open runs and searches, {found.dead_letters} dead letters",
        "Redis has written its append-only file anew"
        if found.redis_files_rewritten
        else "Redis keeps no append-only file",
        *(f"not done: {one}" for one in found.pending),
    ]
    return "\n".join(lines)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(forget)
