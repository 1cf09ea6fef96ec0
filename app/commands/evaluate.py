"""`simstream evaluate FILE`: how well the running service finds what a file says is relevant.

Reads   labelled pairs or next items (app/labels.py), the service's HTTP API
Writes  a table or JSON to standard output; bad rows to standard error, by line and field
Never   changes a setting: fitted weights are printed, to be pasted

Exit codes: 0 done; 1 no service answers; 2 a wrong call or bad rows, what was good having been evaluated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.asking import Asker
from app.commands.common import DataDir
from app.commands.publish import FileFormat
from app.commands.query import parsed_weights
from app.discovery import service_url
from app.evaluation import Evaluation, Fit, as_json, evaluated, fit
from app.labels import Labels, labels_of
from app.settings import load_settings
from producers.rows import UnreadableFile, opened
from schemas.errors import Transient
from service.judging import METRICS, Interval, Metric

_TITLES: Mapping[Metric, str] = {"recall": "recall", "ndcg": "NDCG", "hit_rate": "hit rate"}
_SHOWN_PROBLEMS = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(evaluate)


def evaluate(
    file: Annotated[
        str,
        typer.Argument(
            help="Rows of query_item, relevant_item; of user_id, next_item; or of history, next_item. "
            "JSON Lines, CSV or Parquet; - is standard input."
        ),
    ],
    fit_weights: Annotated[
        bool,
        typer.Option("--fit-weights", help="Find weights on half of the queries, check them on the others."),
    ] = False,
    k: Annotated[int, typer.Option(min=1, max=100, help="Of how many hits figures are.")] = 10,
    weights: Annotated[str | None, typer.Option(help="Weights to ask with, content=1,lexical=0.5.")] = None,
    preset: Annotated[str | None, typer.Option(help="A preset to ask with.")] = None,
    filter_json: Annotated[
        str | None, typer.Option("--filter", help='A filter as JSON, for example {"group": "any"}.')
    ] = None,
    queries: Annotated[
        int, typer.Option(min=2, help="At most so many queries, drawn from the file's by --seed.")
    ] = 2_000,
    seed: Annotated[int, typer.Option(help="Of drawing, of halves and of intervals.")] = 5,
    slices: Annotated[bool, typer.Option(help="Also by category, and by cold and warm items.")] = True,
    file_format: Annotated[
        FileFormat | None, typer.Option("--format", help="By default told by the file's name; .gz is fine.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="Between the columns of a CSV file.")] = None,
    json_wanted: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
    url: Annotated[str | None, typer.Option(help="Where the service answers.")] = None,
    data_dir: DataDir = Path("var"),
) -> None:
    """Judge the running service against labelled pairs or next items; fit its weights to them."""
    if fit_weights and (weights is not None or preset is not None):
        raise typer.BadParameter("weights are what is looked for: leave --weights and --preset out")
    labels = _read(file, file_format, delimiter)
    for problem in labels.problems[:_SHOWN_PROBLEMS]:
        typer.echo(f"{file}: {problem}", err=True)
    if len(labels.problems) > _SHOWN_PROBLEMS:
        typer.echo(f"{file}: and {len(labels.problems) - _SHOWN_PROBLEMS:,} more", err=True)
    if not labels.queries:
        raise ValueError(f"{file}: none of {labels.rows:,} rows asks anything")
    asked = labels.queries
    if len(asked) > queries:
        asked = Random(seed).sample(asked, queries)
        typer.echo(f"{queries:,} of {len(labels.queries):,} queries, drawn by seed {seed}", err=True)
    loaded = load_settings()
    settings, headers = loaded.service, loaded.api.client_headers()
    base = service_url(url, settings, data_dir)
    given = parsed_weights(weights) if weights is not None else None
    with (
        httpx.Client(base_url=base, timeout=settings.client_timeout_seconds, headers=headers) as client,
        _bar() as progress,
    ):
        asker = Asker(client, settings, _options(preset, filter_json))
        try:
            result: Evaluation | Fit = (
                fit(asker, asked, k=k, seed=seed, progress=progress)
                if fit_weights
                else evaluated(asker, asked, k=k, seed=seed, weights=given, slices=slices, progress=progress)
            )
        except Transient as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None
    if json_wanted:
        typer.echo(json.dumps(as_json(result)))
    elif isinstance(result, Fit):
        _show_fit(result)
    else:
        _show(result)
    if labels.problems:
        raise typer.Exit(2)


def _read(file: str, file_format: FileFormat | None, delimiter: str | None) -> Labels:
    """Every row of the file. Raises ValueError where it cannot be read."""
    try:
        with opened(
            file,
            file_format=file_format.value if file_format is not None else None,
            delimiter=delimiter,
            standard_input=sys.stdin.buffer,
        ) as source:
            return labels_of(source.rows())
    except UnreadableFile as error:
        raise ValueError(str(error)) from error


def _options(preset: str | None, filter_json: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if preset is not None:
        options["preset"] = preset
    if filter_json is not None:
        try:
            options["filter"] = json.loads(filter_json)
        except ValueError as error:
            raise typer.BadParameter(f"not JSON: {error}", param_hint="--filter") from None
    return options


@contextmanager
def _bar() -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """A bar per stage on standard error, with what is left."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def stage(what: str, count: int) -> Callable[[], None]:
            task = bar.add_task(what, total=count)
            return lambda: bar.advance(task)

        yield stage


def _table(k: int, first: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    table.add_column("queries", justify="right")
    for metric in METRICS:
        table.add_column(f"{_TITLES[metric]}@{k}", justify="right")
    return table


def _row(table: Table, name: str, figures: Mapping[Metric, Interval]) -> None:
    cells = [_shown(figures[metric]) for metric in METRICS]
    table.add_row(name, f"{figures['ndcg'].count:,}", *cells)


def _shown(one: Interval) -> str:
    return f"{one.mean:.4f} [{one.low:.4f}, {one.high:.4f}]"


def _show(result: Evaluation) -> None:
    console = Console()
    table = _table(result.k, "")
    _row(table, "all", result.overall)
    for name, figures in result.slices.items():
        _row(table, name, figures)
    console.print(table, markup=False)
    typer.echo("In brackets: 95 % intervals, queries drawn with replacement.")
    _show_refused(result)


def _show_fit(result: Fit) -> None:
    table = _table(result.k, "on the half that the fit never saw")
    _row(table, "present weights", result.with_present)
    _row(table, "fitted weights", result.with_fitted)
    Console().print(table, markup=False)
    typer.echo(f"NDCG@{result.k}, fitted minus present, paired: {_shown(result.gain)}")
    typer.echo(result.verdict)
    setting = "RECOMMENDATION_WEIGHTS" if result.next_item else "WEIGHTS"
    short = ",".join(f"{name}={weight:g}" for name, weight in result.weights.items())
    typer.echo(f"\nSIMSTREAM_SERVICE__{setting}='{json.dumps(dict(result.weights))}'\n--weights {short}")
    typer.echo(f"Fitted on {result.fit_queries:,} queries.")
    _show_refused(result)


def _show_refused(result: Evaluation | Fit) -> None:
    if result.refused:
        typer.echo(
            f"{len(result.refused):,} queries could not be asked, the first: {result.refused[0]}", err=True
        )
