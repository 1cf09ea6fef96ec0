"""An answer of the service on a terminal: a table, and in one line why each item is there.

Writes  standard output
Never   lets text from a catalogue steer the terminal
"""

from __future__ import annotations

import httpx
import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.api import Answer, Applied, Explanation, Shared


def show(response: httpx.Response, *, heading: str, as_json: bool) -> None:
    """The answer as a table with its notes, or as the JSON that came."""
    if as_json:
        typer.echo(response.text)
        return
    answer = TypeAdapter(Answer).validate_json(response.content)
    console = Console(soft_wrap=False)
    table = Table(title=plain(heading), title_justify="left", box=None, pad_edge=False)
    table.add_column("score", justify="right")
    names = list(dict.fromkeys(name for hit in answer.items for name in hit.dimensions))
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("item")
    table.add_column("title")
    table.add_column("price", justify="right")
    for hit in answer.items:
        table.add_row(
            f"{hit.score:.3f}",
            *(f"{hit.dimensions[name].score:.2f}" if name in hit.dimensions else "-" for name in names),
            plain(hit.item_id),
            plain(hit.item.title),
            f"{hit.item.price or ''} {hit.item.currency or ''}".strip(),
        )
    console.print(table)
    # Below the table, over the whole width: in a column of it a terminal leaves ten characters a line.
    for hit in answer.items:
        if hit.explanation:
            console.print(plain(f"{hit.item_id}: {because(hit.explanation)}"), style="dim")
    for note in answer.notes:
        typer.echo(f"note: {note}")
    if not answer.items:
        typer.echo("nothing found")


def because(explanation: Explanation) -> str:
    """The explanation in one line."""
    parts = [f"{name} {share:.0%}" for name, share in explanation.shares.items()]
    owed = [f"{one.item_id or f'seed {one.seed + 1}'} {one.share:.0%}" for one in explanation.seeds]
    if owed:
        parts.append("from " + ", ".join(owed))
    if explanation.related is not None:
        by = explanation.related
        parts.append(
            f"{by.basis} with {by.item_id} {by.together} times, support {by.support:.2%}, lift {by.lift:.1f}"
        )
    return "; ".join([*parts, *_shared(explanation.shared), *_applied(explanation.rules)])


def _shared(shared: Shared) -> list[str]:
    parts = []
    if shared.terms:
        parts.append("words: " + ", ".join(shared.terms))
    if shared.shoppers is not None:
        parts.append(f"{shared.shoppers} shoppers in common")
    if shared.category:
        parts.append("in " + " > ".join(shared.category))
    if shared.brand:
        parts.append(f"brand {shared.brand}")
    if shared.price_ratio is not None:
        parts.append(f"price x{shared.price_ratio:.2f}")
    return parts


def _applied(rules: Applied) -> list[str]:
    parts = []
    if rules.same_category is not None:
        parts.append(f"category x{rules.same_category:.2f}")
    if rules.freshness is not None:
        parts.append(f"freshness x{rules.freshness:.2f}")
    if rules.diversity:
        parts.append(f"before {rules.diversity} nearer ones for variety")
    left_out = (rules.brand_cap or 0) + (rules.group or 0)
    if left_out:
        parts.append(f"{left_out} of the same brand or group left out")
    parts += [f"rule {rule.rule}" + (f" x{rule.factor:g}" if rule.factor else "") for rule in rules.shop]
    return parts


def plain(text: str) -> Text:
    """Text that cannot steer the terminal: no markup, control characters shown as escapes."""
    return Text("".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text))
