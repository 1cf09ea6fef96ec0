"""`simstream similar` and `simstream search`: ask the running service over HTTP and show its answer.

Reads   the service's HTTP API
Writes  standard output; problems to standard error, with exit code 1
Never   opens the index: on the embedded stack its folder belongs to the service's process
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import httpx
import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.discovery import find_stack
from app.settings import load_settings
from schemas.api import Answer, Explanation, Hit
from service.settings import ServiceSettings

_Url = Annotated[
    str | None,
    typer.Option(
        help="Where the service answers; by default SIMSTREAM_SERVICE__URL, else the stack.json that "
        "`simstream up` writes, else the host and port of the settings."
    ),
]
_DataDir = Annotated[Path, typer.Option(help="The data folder of `simstream up --embedded`.")]
_Weights = Annotated[
    str | None, typer.Option(help="Weights of the dimensions, for example content=1,lexical=0.5.")
]
_Limit = Annotated[int, typer.Option(min=1, max=200, help="How many neighbours.")]
_Explain = Annotated[bool, typer.Option("--explain", help="Why each one is similar.")]
_Filter = Annotated[
    str | None,
    typer.Option("--filter", help='A filter as JSON, for example {"in_stock": true, "brand_cap": 2}.'),
]
_Json = Annotated[bool, typer.Option("--json", help="The service's answer as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("similar")(similar)
    app.command("search")(search)


def similar(
    item: Annotated[str, typer.Argument(help="The item's id.")],
    weights: _Weights = None,
    limit: _Limit = 10,
    explain: _Explain = False,
    filter_json: _Filter = None,
    as_json: _Json = False,
    url: _Url = None,
    data_dir: _DataDir = Path("var"),
) -> None:
    """Show the neighbours of an item."""
    body = _options(weights, limit, explain, filter_json)
    body["seeds"] = [{"item_id": item}]
    settings, base = _service(url, data_dir)
    answer = _ask(settings, base, "/v1/similar", body)
    heading = item if as_json else _title_of(settings, base, item)
    _show(answer, heading=heading, as_json=as_json)


def search(
    text: Annotated[list[str], typer.Argument(help="What to look for, in words.")],
    weights: _Weights = None,
    limit: _Limit = 10,
    explain: _Explain = False,
    filter_json: _Filter = None,
    as_json: _Json = False,
    url: _Url = None,
    data_dir: _DataDir = Path("var"),
) -> None:
    """Show the items that a text describes."""
    body = _options(weights, limit, explain, filter_json)
    body["text"] = " ".join(text)
    settings, base = _service(url, data_dir)
    answer = _ask(settings, base, "/v1/search", body)
    _show(answer, heading=body["text"], as_json=as_json)


def parsed_weights(text: str) -> dict[str, float]:
    """`content=1,lexical=0.5` (or with colons) as a mapping. Raises typer.BadParameter."""
    weights = {}
    for part in text.split(","):
        name, _, value = part.replace(":", "=").partition("=")
        try:
            weights[name.strip()] = float(value)
        except ValueError:
            weights[name.strip()] = math.nan
        if not math.isfinite(weights[name.strip()]):
            raise typer.BadParameter(
                f"{part.strip()!r}: expected DIMENSION=NUMBER, for example content=1,lexical=0.5",
                param_hint="--weights",
            )
    return weights


def service_url(given: str | None, settings: ServiceSettings, data_dir: Path) -> str:
    """Where the service answers: the option, the setting, the folder's stack.json, the default address."""
    if given or settings.url:
        return (given or settings.url or "").rstrip("/")
    stack = find_stack(data_dir)
    return (f"http://{settings.host}:{settings.port}" if stack is None else stack.http).rstrip("/")


def _service(url: str | None, data_dir: Path) -> tuple[ServiceSettings, str]:
    settings = load_settings().service
    return settings, service_url(url, settings, data_dir)


def _options(weights: str | None, limit: int, explain: bool, filter_json: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {"limit": limit, "explain": explain}
    if weights is not None:
        body["weights"] = parsed_weights(weights)
    if filter_json is not None:
        try:
            body["filter"] = json.loads(filter_json)
        except ValueError as error:
            raise typer.BadParameter(f"not JSON: {error}", param_hint="--filter") from None
    return body


def _ask(settings: ServiceSettings, base: str, path: str, body: dict[str, Any]) -> httpx.Response:
    try:
        response = httpx.post(base + path, json=body, timeout=settings.client_timeout_seconds)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        _fail(f"no service answers at {base} ({error}); start one with `simstream up`, or name it with --url")
    if response.is_success:
        return response
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    _fail(f"{base} answered {response.status_code}: {detail}")


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)


def _title_of(settings: ServiceSettings, base: str, item: str) -> str:
    """The item's title for the heading; its id where item state, which ranking never needs, is away."""
    try:
        response = httpx.get(
            f"{base}/v1/items/{quote(item, safe='')}", timeout=settings.client_timeout_seconds
        )
        return str(response.json()["title"]) if response.is_success else item
    except (httpx.HTTPError, ValueError, KeyError):
        return item


def _show(response: httpx.Response, *, heading: str, as_json: bool) -> None:
    if as_json:
        typer.echo(response.text)
        return
    answer = TypeAdapter(Answer).validate_json(response.content)
    console = Console(soft_wrap=False)
    table = Table(title=_plain(f"similar to: {heading}"), title_justify="left", box=None, pad_edge=False)
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
            _plain(hit.item_id),
            _plain(_title(hit)),
            f"{hit.item.price or ''} {hit.item.currency or ''}".strip(),
        )
    console.print(table)
    for note in answer.notes:
        typer.echo(f"note: {note}")
    if not answer.items:
        typer.echo("nothing found")


def _title(hit: Hit) -> str:
    why = f"\n  {_because(hit.explanation)}" if hit.explanation else ""
    return f"{hit.item.title}{why}"


def _because(explanation: Explanation) -> str:
    """The explanation in one line."""
    shared = explanation.shared
    parts = [f"{name} {share:.0%}" for name, share in explanation.shares.items()]
    if shared.terms:
        parts.append("words: " + ", ".join(shared.terms))
    if shared.category:
        parts.append("in " + " > ".join(shared.category))
    if shared.brand:
        parts.append(f"brand {shared.brand}")
    if shared.price_ratio is not None:
        parts.append(f"price x{shared.price_ratio:.2f}")
    return "; ".join(parts)


def _plain(text: str) -> Text:
    """Text that cannot steer the terminal: no markup, control characters shown as escapes."""
    return Text("".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text))
