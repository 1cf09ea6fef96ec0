"""`simstream archive show` and `simstream train`: what the trainer keeps, and one run of it.

Reads   the archive, the stack, the releases folder
Writes  the archive, a run, a candidate
"""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from app.commands.common import DataDir, say, settings_at
from app.observability import export_metrics
from app.settings import Settings, load_settings
from schemas.releases import Verdict

archive = typer.Typer(no_args_is_help=True, help="The trainer's archive of user events.")


@archive.command("show")
def show_archive(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Print what the archive holds, by period and category, and what the schedule has decided and why."""
    from app.learning_inputs import archive_figures
    from app.training_schedule import last_decisions

    settings = load_settings()
    found = archive_figures(settings)
    for name, decision in last_decisions(settings).items():
        found[f"schedule, {name}"] = decision
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
    from app.learning import follow, in_words

    print(in_words(follow(settings_at(data_dir, logged=True))))


def train(
    once: Annotated[bool, typer.Option("--once", help="One run now, and end.")] = False,
    recipe: Annotated[Path | None, typer.Option(help="TOML or JSON; without it the default recipe.")] = None,
    golden: Annotated[
        Path | None, typer.Option(help="JSON Lines of pairs a, b (and label) that belong together.")
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="The same, to learn from; a label of 0 for those that do not.")
    ] = None,
    parent: Annotated[str | None, typer.Option(help="The release to start from; the live one.")] = None,
    data_dir: DataDir = Path("var"),
) -> None:
    """Follow the topics, fine-tune the live release, judge the candidate and publish it.

    Without --once it does so by itself from now on: after an interval, on enough new events, or when the shop
    has drifted (SIMSTREAM_SCHEDULE__...), at the priority and on the device that SIMSTREAM_TRAINING__... say.

    One that passes the gate stays a candidate until `simstream releases promote`, or goes live by itself
    where SIMSTREAM_ROLLOUT__APPROVAL is automatic. The exit code is 0 also when the gate refuses.
    """
    settings = settings_at(data_dir, logged=True)
    files = {"recipe": recipe, "golden": golden, "labelled": labelled}
    chosen = {name: str(path) for name, path in files.items() if path is not None}
    settings = settings.model_copy(update={"training": settings.training.model_copy(update=chosen)})
    if not once:
        if parent is not None:
            raise ValueError("--parent is for one run: the schedule starts from whatever is live (--once)")
        _by_schedule(settings, data_dir)
        return
    from app.learning import one_run

    outcome = one_run(settings, data_dir, say=say, parent=parent)
    for line in verdict_lines(outcome.verdict):
        print(line)
    if outcome.manifest is None:
        print("nothing was published")
        return
    said = "passed the gate" if outcome.verdict.passed else "did not pass the gate"
    release_id = outcome.manifest.release_id
    print(f"candidate {release_id} {said}")
    if outcome.verdict.passed and settings.rollout.approval == "by hand":
        print(f"`simstream releases promote {release_id}` makes it live")


def _by_schedule(settings: Settings, data_dir: Path) -> None:
    """Until SIGTERM or Ctrl-C; the lease is given back then."""
    from adapters.child import be_nice
    from app.trainer_process import on_its_device
    from app.training_schedule import Schedule

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    be_nice(settings.training.nice)
    export_metrics(settings.metrics, process="trainer")
    Schedule(on_its_device(settings), data_dir, say=say).run(threading.Event())


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(archive, name="archive")
    app.command()(train)


def verdict_lines(verdict: Verdict, *, slices: bool = True) -> list[str]:
    """The gate's figures and reasons, one a line."""
    lines = []
    for figure in verdict.figures:
        if figure.slice and not slices:
            continue
        where = f"{figure.name}, {figure.slice}" if figure.slice else figure.name
        lines.append(
            f"{where}: hit@10 {figure.before:.4f} -> {figure.after:.4f} "
            f"[{figure.low:+.4f}, {figure.high:+.4f}] ({figure.queries} queries)"
        )
    if slices:
        lines += [
            f"exposure by {one.kind}: Gini {one.gini_before:.4f} -> {one.gini_after:.4f} "
            f"[{one.low:+.4f}, {one.high:+.4f}] ({len(one.groups)} groups, {one.lists} lists)"
            for one in verdict.exposure
        ]
    return [*lines, *(f"refused: {reason}" for reason in verdict.reasons)]
