"""`simstream exposure`: how much of what is shown goes to each brand, price band and seller.

Reads   item state, the service's HTTP API
Writes  tables or JSON to standard output
Never   changes anything; the gate compares a candidate in the same way (docs/learning.md)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from app.asking import Asker
from app.commands.answers import plain
from app.discovery import service_url, stack_settings
from app.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("exposure")(exposure)


def exposure(
    sample: Annotated[int, typer.Option(min=2, help="Of how many items the neighbours are looked at.")] = 500,
    users: Annotated[
        Path | None,
        typer.Option(help="A file with a shopper's id a line: their recommendations instead of neighbours."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A preset to ask with.")] = None,
    seed: Annotated[int, typer.Option(help="Of drawing items and of intervals.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
    url: Annotated[str | None, typer.Option(help="Where the service answers.")] = None,
    data_dir: Annotated[Path, typer.Option(help="The data folder of `simstream up --embedded`.")] = Path(
        "var"
    ),
) -> None:
    """Say how much of what the live release shows goes to each brand, price band and seller."""
    from app.exposure import Sample
    from app.exposure import exposure as shown

    settings = stack_settings(load_settings(), data_dir)
    base = service_url(url, settings.service, data_dir)
    options: dict[str, Any] = {} if preset is None else {"preset": preset}
    named = [] if users is None else [line.strip() for line in users.read_text().splitlines() if line.strip()]
    if users is not None and not named:
        raise typer.BadParameter(f"no shopper is named in {users}", param_hint="--users")
    with httpx.Client(
        base_url=base,
        timeout=settings.service.client_timeout_seconds,
        headers=settings.api.client_headers(),
    ) as client:
        asker = Asker(client, settings.service, options)
        found = shown(settings, asker, Sample(items=sample, seed=seed, users=named))
    if as_json:
        typer.echo(json.dumps(found.model_dump(mode="json"), indent=2))
        return
    console = Console()
    for kind in found.kinds:
        title = f"{kind.kind}: Gini {kind.gini:.3f} [{kind.gini_low:.3f}, {kind.gini_high:.3f}]"
        if kind.most is not None and kind.least is not None:
            title += f", most for its share {kind.most}, least {kind.least}"
        table = Table(title=plain(title), title_justify="left", box=None, pad_edge=False)
        table.add_column(kind.kind)
        for column in ("items", "share of the items", "shown, times its share", "between"):
            table.add_column(column, justify="right")
        for one in kind.groups:
            table.add_row(
                plain(one.group),
                f"{one.items:,}",
                f"{one.share:.1%}",
                f"{one.ratio:.2f}",
                f"{one.low:.2f} and {one.high:.2f}",
            )
        console.print(table)
    typer.echo(
        f"release {found.release_id}: {found.lists:,} lists of {found.items:,} items, {found.places:,}"
        " places; a place counts 1 / log2(1 + place), and 1 is what a group's share of the items comes to"
    )
    if found.refused or found.unknown:
        typer.echo(
            f"{found.refused:,} lists could not be asked for, {found.unknown:,} hits have no item state",
            err=True,
        )
