"""`simstream archive show` and `simstream train`: what the trainer keeps, and one run of it.

Reads   the archive, the stack, the releases folder
Writes  the archive, a run, a candidate
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.releases import request
from app.discovery import stack_settings
from app.observability import configure_logging
from app.settings import Settings, load_settings
from app.wiring import open_board

if TYPE_CHECKING:
    from consumers.archive import Followed

archive = typer.Typer(no_args_is_help=True, help="The trainer's archive of user events.")

DataDir = Annotated[Path, typer.Option(help="The data folder of `simstream up --embedded`.")]


@archive.command("show")
def show_archive(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Print what the archive holds: events and sessions by period, shares of categories, positions."""
    from app.learning import archive_figures

    found = archive_figures(load_settings())
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, inner in value.items():
                print(f"    {key}: {inner}")
        else:
            print(f"{name}: {value}")


@archive.command("follow")
def follow_archive(data_dir: DataDir = Path("var")) -> None:
    """Bring the archive up to the end of user.events; `simstream train` does so first."""
    from app.learning import follow

    print(_followed(follow(_settings(data_dir))))


def train(
    once: Annotated[bool, typer.Option("--once", help="One run now, and end.")] = False,
    recipe: Annotated[Path | None, typer.Option(help="TOML or JSON; without it the default recipe.")] = None,
    golden: Annotated[
        Path | None, typer.Option(help="JSON Lines of pairs a, b (and label) that belong together.")
    ] = None,
    parent: Annotated[str | None, typer.Option(help="The release to start from; the live one.")] = None,
    data_dir: DataDir = Path("var"),
) -> None:
    """Follow the topics, fine-tune the live release, judge the candidate and publish it.

    One that passes the gate stays a candidate until `simstream releases promote`, or goes live by itself
    where SIMSTREAM_ROLLOUT__APPROVAL is automatic. The exit code is 0 also when the gate refuses.
    """
    if not once:
        raise ValueError("give --once: there is no schedule of our own yet, let cron or a job call this")
    from app.learning import follow, live_release, the_only_trainer, train_once

    settings = _settings(data_dir)
    with the_only_trainer(settings):
        _say(_followed(follow(settings)))
        start = parent or live_release(settings, data_dir)
        _say(f"training from {start}")
        outcome = train_once(settings, parent=start, recipe_file=recipe, golden=golden)
    for figure in outcome.verdict.figures:
        where = f"{figure.name}, {figure.slice}" if figure.slice else figure.name
        print(
            f"{where}: hit@10 {figure.before:.4f} -> {figure.after:.4f} "
            f"[{figure.low:+.4f}, {figure.high:+.4f}] ({figure.queries} queries)"
        )
    for reason in outcome.verdict.reasons:
        print(f"refused: {reason}")
    if outcome.manifest is None:
        print("nothing was published")
    else:
        said = "passed the gate" if outcome.verdict.passed else "did not pass the gate"
        release_id = outcome.manifest.release_id
        print(f"candidate {release_id} {said}")
        if outcome.verdict.passed and settings.rollout.approval == "automatic":
            asked = request(settings, open_board(settings), release_id)
            print(f"{asked.collection} is filled and goes live by itself: see `simstream releases list`")
        elif outcome.verdict.passed:
            print(f"`simstream releases promote {release_id}` makes it live")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(archive, name="archive")
    app.command()(train)


def _settings(data_dir: Path) -> Settings:
    settings = load_settings()
    configure_logging(settings.log)
    return stack_settings(settings, data_dir)


def _followed(found: Followed) -> str:
    return "archive: " + ", ".join(f"{value} {name}" for name, value in found._asdict().items())


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
