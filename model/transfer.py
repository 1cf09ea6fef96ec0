"""What each release of a line knows of each period: the R matrix, and how much later ones have forgotten.

Reads   manifests, whose verdicts hold a result per period
Writes  nothing
Never   compares a period that one of two releases was not measured on
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.releases import FigureOf, Manifest, Verdict

#: Sets of this name, followed by the period's first day, are reported and not judged by.
PERIOD = "period "


class Known(NamedTuple):
    """A release's hit@10 by period, and the period that it was trained in: the newest it was measured on."""

    release_id: str
    results: Mapping[str, float]
    newest: str | None


def known_by(line: Sequence[Manifest], *, newest: tuple[str, Verdict] | None = None) -> list[Known]:
    """Of a release and those it descends from, oldest first. The unchanged base model learned no period.

    `newest` is one more, by id and verdict, that is not published yet. A row also has what its child's run
    measured of it on periods that came later.
    """
    judged = [(one.release_id, one.verdict) for one in line]
    if newest is not None:
        judged.append(newest)
    rows = []
    children: list[tuple[str, Verdict | None]] = [*judged[1:], ("", None)]
    for (release_id, verdict), (_, of_child) in zip(judged, children, strict=True):
        own = {figure.name: figure.after for figure in _periods(verdict)}
        seen_by_child = {figure.name: figure.before for figure in _periods(of_child)}
        results = {name.removeprefix(PERIOD): value for name, value in (seen_by_child | own).items()}
        last = max((name.removeprefix(PERIOD) for name in own), default=None)
        rows.append(Known(release_id, dict(sorted(results.items())), last))
    return rows


def backward_transfer(rows: Sequence[Known]) -> float | None:
    """Mean over earlier releases of what the last one has of their newest period, less what they had of it.

    Lopez-Paz & Ranzato 2017, Gradient episodic memory, eq. 2. None where there is no earlier one to compare.
    """
    if not rows:
        return None
    last = rows[-1].results
    changes = [
        last[one.newest] - one.results[one.newest]
        for one in rows[:-1]
        if one.newest is not None and one.newest in last and one.newest != rows[-1].newest
    ]
    return sum(changes) / len(changes) if changes else None


def _periods(verdict: Verdict | None) -> list[FigureOf]:
    figures = verdict.figures if verdict is not None else []
    return [figure for figure in figures if figure.name.startswith(PERIOD) and not figure.slice]
