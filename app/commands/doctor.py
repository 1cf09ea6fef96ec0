"""`simstream doctor`: looks at everything a stack is made of, and says what is wrong and what to do.

Reads   what app/doctor.py and app/doctor_stores.py read
Writes  standard output; with --repair the topics that are missing

Exit codes: 0 nothing found; 1 a fault; 3 warnings alone; 2 a wrong call.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from app.commands.common import DataDir, settings_at
from app.doctor import Report, examine
from app.doctor_stores import checks, is_embedded
from app.observability import configure_logging
from app.wiring import make_topics
from schemas.errors import Halt, Transient


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Create the topics that are missing; nothing else is changed.")
    ] = False,
    data_dir: DataDir = Path("var"),
) -> None:
    """Look at connections, topics, groups, Redis, index, releases, service, clocks and disks.

    Exit code 0: nothing found; 1: a fault; 3: warnings alone. Each finding comes with its remedy.
    """
    settings = settings_at(data_dir)
    configure_logging(settings.log.model_copy(update={"level": "ERROR"}))
    made: list[str] = []
    if repair:
        try:
            made = make_topics(settings)
        except (Transient, Halt):
            pass  # the check of topics says it
    report = examine(checks(settings, data_dir, embedded=is_embedded(settings, data_dir)))
    print(json.dumps(_described(report, made)) if as_json else _told(report, made))
    raise typer.Exit(report.exit_code)


def _described(report: Report, made: list[str]) -> dict[str, object]:
    return {
        "checked": report.checked,
        "findings": [one._asdict() for one in report.findings],
        "created": made,
    }


def _told(report: Report, made: list[str]) -> str:
    lines = [f"created {name}" for name in made]
    for one in report.findings:
        lines += [
            f"{one.severity:<8} {one.check}: {one.subject}",
            f"    {one.finding}",
            f"    -> {one.remedy}",
        ]
    faults = sum(one.severity == "fault" for one in report.findings)
    lines.append(
        f"looked at {', '.join(report.checked)}: "
        + (
            f"{faults} faults, {len(report.findings) - faults} warnings"
            if report.findings
            else "nothing found"
        )
    )
    return "\n".join(lines)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)
