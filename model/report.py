"""The report of a run: one HTML page that asks nobody for anything, for a browser, a phone or a mail.

Reads   how the run went, the verdict, vectors of both releases
Writes  nothing; who calls writes the page
Never   puts a text of the shop into the page unescaped

Figures are laid out here, and the page itself is model/report.html.jinja.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import numpy as np
from numpy.typing import NDArray

from model.transfer import PERIOD, Known, backward_transfer
from schemas.releases import ExposureOf, FigureOf, Parity, Training, Verdict

Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]

NEAREST = 10
_SHOWN, _COMPARED = 20, 2_000
_TEXT_CHARS = 140
#: The charts' area in the units of their viewBox.
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 630.0, 18.0, 190.0
#: What is drawn of the trainer's log, where it is there.
_CURVES = {
    "loss": "training loss",
    "eval_ndcg_at_10": "NDCG@10 on validation",
    "eval_hit_at_10": "hit@10 on validation",
    "learning_rate": "learning rate",
}


class Changed(NamedTuple):
    """An item's nearest texts before and after, nearest first, each with whether the other list lacks it."""

    text: str
    kept: int
    before: list[tuple[str, bool]]
    after: list[tuple[str, bool]]


def changed_most(texts: Sequence[str], *, before: Encode, after: Encode) -> tuple[int, list[Changed]]:
    """Of how many items (texts), and the 20 whose ten nearest among them have the least in common."""
    texts = list(dict.fromkeys(texts))[:_COMPARED]
    if len(texts) <= NEAREST:
        return len(texts), []
    old, new = (_nearest(encode(texts)) for encode in (before, after))
    kept = [len(set(one) & set(other)) for one, other in zip(old.tolist(), new.tolist(), strict=True)]
    found = []
    for row in np.argsort(kept, kind="stable")[:_SHOWN].tolist():
        if kept[row] == NEAREST:
            break
        sides = old[row].tolist(), new[row].tolist()
        lists = [
            [(_short(texts[near]), near not in other) for near in side]
            for side, other in (sides, sides[::-1])
        ]
        found.append(Changed(_short(texts[row]), kept[row], *lists))
    return len(texts), found


def render(
    *,
    run: str,
    parent: str,
    verdict: Verdict,
    training: Training | None = None,
    changed: tuple[int, Sequence[Changed]] = (0, ()),
    line: Sequence[Known] = (),
) -> str:
    """The page. `line` are the releases this one descends from and itself, oldest first."""
    whole = [figure for figure in verdict.figures if not figure.slice and not figure.name.startswith(PERIOD)]
    lost = [figure for figure in verdict.figures if figure.slice and figure.after < figure.before]
    lost.sort(key=lambda figure: figure.after - figure.before)
    periods = sorted({period for one in line for period in one.results})
    page: str = _template().render(
        run=run,
        parent=parent,
        verdict=verdict,
        training=training,
        sets=_rows(whole),
        lost=_rows(lost),
        exposure=[{"parity": one, "rows": _exposed(one)} for one in verdict.exposure],
        charts=_charts(training.curves if training is not None else []),
        periods=periods,
        matrix=_matrix(line, periods),
        transfer=backward_transfer(line),
        items=changed[0],
        changed=changed[1],
    )
    return page


@cache
def _template() -> jinja2.Template:
    source = resources.files("model").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(source)


def _nearest(vectors: Vectors) -> NDArray[np.int64]:
    """The ten nearest rows of each row, nearest first, (rows, 10)."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :NEAREST]


def _short(text: str) -> str:
    return text if len(text) <= _TEXT_CHARS else text[:_TEXT_CHARS].rstrip() + " ..."


def _rows(figures: Sequence[FigureOf]) -> list[dict[str, Any]]:
    """Each figure with its bar: all bars of a table on one scale."""
    edge = _edge(figures)
    rows = []
    for one in figures:
        name = f"{one.name}, {one.slice}" if one.slice else one.name
        kind = "good" if one.low > 0 else "bad" if one.high < 0 else "even"
        rows.append({"name": name, "figure": one, "bar": _bar(one, edge, kind)})
    return rows


def _exposed(parity: Parity) -> list[dict[str, Any]]:
    """Each group with the bar of its change; more is neither good nor bad."""
    edge = _edge(parity.groups)
    return [{"one": one, "bar": _bar(one, edge, "even")} for one in parity.groups]


def _edge(figures: Sequence[FigureOf] | Sequence[ExposureOf]) -> float:
    return max((abs(value) for one in figures for value in (one.low, one.high)), default=0.0) or 1.0


def _bar(one: FigureOf | ExposureOf, edge: float, kind: str) -> dict[str, Any]:
    def place(value: float) -> float:
        return round(80.0 + 76.0 * max(-1.0, min(1.0, value / edge)), 1)

    difference = one.after - one.before
    return {
        "zero": place(0.0),
        "low": place(one.low),
        "high": place(one.high),
        "value": place(difference),
        "kind": kind,
        "label": f"{difference:+.4f}, between {one.low:+.4f} and {one.high:+.4f}",
    }


def _charts(curves: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    charts = []
    for name, title in _CURVES.items():
        points = [(entry["step"], entry[name]) for entry in curves if name in entry and "step" in entry]
        points = [(step, value) for step, value in points if np.isfinite(value)]
        if len(points) < 2:
            continue
        steps, values = zip(*points, strict=True)
        low, high = min(values), max(values)
        first, last = min(steps), max(steps)
        dots = [
            (
                round(_LEFT + (_RIGHT - _LEFT) * (step - first) / (last - first or 1.0), 1),
                round(_BOTTOM - (_BOTTOM - _TOP) * (value - low) / (high - low or 1.0), 1),
                f"step {step:g}: {value:.4g}",
            )
            for step, value in points
        ]
        charts.append(
            {
                "title": title,
                "points": " ".join(f"{x},{y}" for x, y, _ in dots),
                "dots": dots if len(dots) <= 60 else [],
                "top": f"{high:.3g}",
                "bottom": f"{low:.3g}",
                "left": f"{first:g}",
                "right": f"{last:g}",
            }
        )
    return charts


def _matrix(line: Sequence[Known], periods: Sequence[str]) -> list[dict[str, Any]]:
    values = [value for one in line for value in one.results.values()]
    low, high = min(values, default=0.0), max(values, default=0.0)

    def cell(value: float | None) -> dict[str, float] | None:
        if value is None:
            return None
        return {"value": value, "shade": 0.05 + 0.5 * (value - low) / (high - low or 1.0)}

    return [
        {"name": one.release_id, "cells": [cell(one.results.get(period)) for period in periods]}
        for one in line
        if one.results
    ]
