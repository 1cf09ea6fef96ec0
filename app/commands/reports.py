"""`simstream reports`: what people reported, and what is to become of it.

Reads, writes  the review queue in Redis; the audit log
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from adapters.audit import Audit
from adapters.redis_reports import ReportStore
from app.commands.answers import plain
from app.commands.common import DataDir, settings_at
from app.commands.publish import fail
from app.wiring import open_reports
from schemas.reports import Report, ReportStatus

reports = typer.Typer(no_args_is_help=True, help="What people reported about answers (docs/insights.md).")

Ids = Annotated[list[str], typer.Argument(help="Ids of reports, as `list` shows them.")]


@reports.command("list")
def list_reports(
    every: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    data_dir: DataDir = Path("var"),
) -> None:
    """Print what waits for review, the most reported first."""
    found = _store(data_dir).listed(None if every else "pending")
    for one in found:
        print(json.dumps(one.model_dump(mode="json")) if as_json else _line(one))
    if not found and not as_json:
        print("nothing waits for review")


@reports.command("approve")
def approve(ids: Ids, data_dir: DataDir = Path("var")) -> None:
    """Agree: a pair that is not similar is one that the gate judges the next releases by.

    Answers change at once by the shop's rules alone (`never_similar`, `blocked`: docs/rules.md).
    """
    _decide(ids, "approved", data_dir)


@reports.command("reject")
def reject(ids: Ids, data_dir: DataDir = Path("var")) -> None:
    """Disagree: nothing follows, however often the same is reported again."""
    _decide(ids, "rejected", data_dir)


def _decide(ids: list[str], status: ReportStatus, data_dir: Path) -> None:
    settings, unknown = settings_at(data_dir), []
    store = open_reports(settings)
    with Audit(settings.audit).acting(f"reports.{status}", reports=ids):
        for report_id in ids:
            decided = store.decide(report_id, status, now=datetime.now(UTC))
            if decided is None:
                unknown.append(report_id)
            else:
                print(_line(decided))
    if unknown:
        fail(f"no report {', '.join(unknown)}: `simstream reports list --all` shows those there are")


def _store(data_dir: Path) -> ReportStore:
    return open_reports(settings_at(data_dir))


def _line(one: Report) -> str:
    what = one.item_id if one.seed is None else f"{one.item_id} for {one.seed}"
    note = f": {one.note}" if one.note else ""
    told = f"{one.report_id}  {one.status}  {one.reason.replace('_', ' ')}  {one.reports} x  {what}{note}"
    # One line a report, whatever is written in it.
    return plain(told).plain.replace("\n", r"\n")


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(reports, name="reports")
