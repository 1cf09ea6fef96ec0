"""`simstream releases`: which releases there are, which one is live, and the way from one to the next.

Reads   the releases folder, records of the rollout
Writes  requests into those records; standard output
Never   moves the alias or opens a collection: the process that works on rollouts does
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters.audit import Action, Audit
from adapters.redis_rollouts import RolloutBoard
from adapters.releases import ReleaseStore
from app.commands.common import DataDir, settings_at
from app.observability import configure_logging
from app.rollouts import request
from app.wiring import open_board
from consumers.release_requests import ask_back, ask_removal, wait_until
from schemas.errors import Halt
from schemas.rollouts import Rollout, RolloutState

releases = typer.Typer(
    no_args_is_help=True, help="Releases of the model: list, show, promote, rollback, prune."
)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it until it is live or stands still.")]
Timeout = Annotated[float | None, typer.Option(help="Give up following after so many seconds.")]


@releases.command("list")
def list_releases(data_dir: DataDir = Path("var"), as_json: AsJson = False) -> None:
    """Every release in the folder and every collection: its state, and why it stands still."""
    settings = settings_at(data_dir)
    rollouts = open_board(settings).all()
    rows: list[dict[str, Any]] = [
        {
            "release_id": one.release_id,
            "state": one.state.value,
            "collection": one.collection,
            "since": one.since.isoformat(timespec="seconds"),
            "wanted": one.wanted,
            "removed": one.pruned,
            "reason": one.reason,
        }
        for one in rollouts
    ]
    known = {one.release_id for one in rollouts}
    rows += [
        {"release_id": name, "state": "published", "collection": None, "reason": ""}
        for name in ReleaseStore(settings.releases).list()
        if name not in known
    ]
    for row in rows:
        if as_json:
            print(json.dumps(row))
        else:
            state = f"{row['state']}{' (removed)' if row.get('removed') else ''}"
            print(f"{row['release_id']:<48} {state:<20} {row['collection'] or '-'}  {row.get('since', '')}")
            if row["reason"]:
                print(f"    {row['reason']}")
    print(f"{len(rows)} releases and collections", file=sys.stderr)


@releases.command("show")
def show_release(release: str, data_dir: DataDir = Path("var")) -> None:
    """A release's manifest, what its line knows of each period, and where its collections stand, as JSON."""
    from model.transfer import backward_transfer, known_by

    settings = settings_at(data_dir)
    store = ReleaseStore(settings.releases)
    line = store.line(release)
    known = known_by(line)
    rollouts = [one for one in open_board(settings).all() if one.release_id == release]
    shown = {
        "manifest": line[-1].model_dump(mode="json"),
        "hit@10 by period": {one.release_id: dict(one.results) for one in known if one.results},
        "backward transfer": backward_transfer(known),
        "collections": [one.model_dump(mode="json") for one in rollouts],
    }
    print(json.dumps(shown, indent=2))


@releases.command("promote")
def promote(
    release: Annotated[str, typer.Argument(help="Its id, as `list` prints it.")],
    data_dir: DataDir = Path("var"),
    wait: Wait = True,
    timeout: Timeout = None,
    against_the_gate: Annotated[
        bool, typer.Option("--against-the-gate", help="Even if the gate found it worse than the live one.")
    ] = False,
) -> None:
    """Bring a release live: backfill, verify, one alias change. This is the approval by hand."""
    settings = settings_at(data_dir)
    configure_logging(settings.log)
    board = open_board(settings)
    with Audit(settings.audit).acting(
        "releases.promote", release=release, against_the_gate=against_the_gate
    ) as act:
        ReleaseStore(settings.releases).manifest(release)
        asked = request(settings, board, release, overrule=against_the_gate)
        act.note(collection=asked.collection)
        follow(board, asked, wait=wait, timeout=timeout, act=act)


@releases.command("rollback")
def rollback(
    release: Annotated[
        str | None, typer.Option("--to", help="To this release; without it, to what was live before.")
    ] = None,
    data_dir: DataDir = Path("var"),
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Make the collection live that was so before: it is still written, so this is one alias change."""
    settings = settings_at(data_dir)
    configure_logging(settings.log)
    board = open_board(settings)
    with Audit(settings.audit).acting("releases.rollback", release=release) as act:
        asked = ask_back(board, release)
        act.note(release=asked.release_id, collection=asked.collection)
        follow(board, asked, wait=wait, timeout=timeout, act=act)


@releases.command("prune")
def prune(
    release: Annotated[
        str | None, typer.Argument(help="Only this one, wherever it stands; without it, all retired ones.")
    ] = None,
    data_dir: DataDir = Path("var"),
) -> None:
    """Remove collections before their grace is over, or give up a release that is on its way."""
    settings = settings_at(data_dir)
    configure_logging(settings.log)
    with Audit(settings.audit).acting("releases.prune", release=release) as act:
        asked = list(ask_removal(open_board(settings), release))
        act.note(collections=[one.collection for one in asked])
    for one in asked:
        print(f"{one.collection}  is removed as soon as nobody writes it")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(releases, name="releases")


def follow(
    board: RolloutBoard, asked: Rollout, *, wait: bool, timeout: float | None, act: Action | None = None
) -> None:
    """Say how a request fares until it is live, and note it in `act`. Raises Halt when it stands still."""
    if act is not None:
        act.note(state=asked.state.value)
    if not wait:
        print(f"{asked.collection}  asked for")
        return

    def say(one: Rollout) -> None:
        step = (
            "filled, catching up" if one.state is RolloutState.BACKFILLING and one.filled else one.state.value
        )
        print(f"{one.collection}  {step}{f': {one.reason}' if one.reason else ''}", flush=True)

    ended = wait_until(board, asked.collection, say=say, timeout_seconds=timeout)
    if act is not None:
        act.note(state=ended.state.value)
    if ended.state is not RolloutState.LIVE:
        raise Halt(f"{ended.collection} did not go live: {ended.reason or 'the request was taken back'}")
