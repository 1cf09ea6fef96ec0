"""`simstream similar`, `search`, `recommend` and `trending`: ask the running service, show its answer.

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

from app.commands.answers import show
from app.commands.common import DataDir
from app.discovery import service_url
from app.settings import Settings, load_settings

_Url = Annotated[
    str | None,
    typer.Option(
        help="Where the service answers; by default SIMSTREAM_SERVICE__URL, else the stack.json that "
        "`simstream up` writes, else the host and port of the settings."
    ),
]
_Weights = Annotated[
    str | None, typer.Option(help="Weights of the dimensions, for example content=1,lexical=0.5.")
]
_Preset = Annotated[
    str | None, typer.Option(help="substitutes, complements, discovery or same_product (docs/similarity.md).")
]
_Diversity = Annotated[
    float | None, typer.Option(min=0, max=1, help="0: the nearest; towards 1: unlike each other.")
]
_Limit = Annotated[int, typer.Option(min=1, max=200, help="How many items.")]
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
    app.command("recommend")(recommend)
    app.command("trending")(trending)


def similar(
    item: Annotated[str, typer.Argument(help="The item's id.")],
    preset: _Preset = None,
    weights: _Weights = None,
    diversity: _Diversity = None,
    limit: _Limit = 10,
    explain: _Explain = False,
    filter_json: _Filter = None,
    as_json: _Json = False,
    url: _Url = None,
    data_dir: DataDir = Path("var"),
) -> None:
    """Show the neighbours of an item."""
    body = _options(preset, weights, diversity, limit, explain, filter_json)
    body["seeds"] = [{"item_id": item}]
    settings, base = _service(url, data_dir)
    answer = _ask(settings, base, "/v1/similar", body=body)
    title = item if as_json else _title_of(settings, base, item)
    show(answer, heading=f"similar to: {title}", as_json=as_json)


def search(
    text: Annotated[list[str], typer.Argument(help="What to look for, in words.")],
    preset: _Preset = None,
    weights: _Weights = None,
    diversity: _Diversity = None,
    limit: _Limit = 10,
    explain: _Explain = False,
    filter_json: _Filter = None,
    as_json: _Json = False,
    url: _Url = None,
    data_dir: DataDir = Path("var"),
) -> None:
    """Show the items that a text describes."""
    body = _options(preset, weights, diversity, limit, explain, filter_json)
    body["text"] = " ".join(text)
    settings, base = _service(url, data_dir)
    answer = _ask(settings, base, "/v1/search", body=body)
    show(answer, heading=f"similar to: {body['text']}", as_json=as_json)


def recommend(
    user: Annotated[str, typer.Argument(help="The shopper's id, as it is in user events.")],
    include_bought: Annotated[
        bool, typer.Option("--include-bought", help="Also what the shopper has bought already.")
    ] = False,
    preset: _Preset = None,
    weights: _Weights = None,
    diversity: _Diversity = None,
    limit: _Limit = 10,
    explain: _Explain = False,
    filter_json: _Filter = None,
    as_json: _Json = False,
    url: _Url = None,
    data_dir: DataDir = Path("var"),
) -> None:
    """Show what a shopper may like, from what they looked at and bought lately."""
    parameters = _options(preset, weights, diversity, limit, explain, filter_json)
    parameters.update(parameters.pop("filter", {}), include_bought=include_bought)
    if "weights" in parameters:
        pairs = parameters["weights"].items()
        parameters["weights"] = ",".join(f"{name}:{weight}" for name, weight in pairs)
    settings, base = _service(url, data_dir)
    answer = _ask(settings, base, f"/v1/users/{quote(user, safe='')}/recommendations", parameters=parameters)
    show(answer, heading=f"for: {user}", as_json=as_json)


def trending(
    window: Annotated[str, typer.Option(help="1h, 24h, 7d or 30d.")] = "24h",
    category: Annotated[
        list[str] | None, typer.Option(help="A category's name or path; may be given several times.")
    ] = None,
    limit: _Limit = 10,
    as_json: _Json = False,
    url: _Url = None,
    data_dir: DataDir = Path("var"),
) -> None:
    """Show the items with the most shoppers in a window."""
    parameters = {"window": window, "limit": limit, "category": category or []}
    settings, base = _service(url, data_dir)
    answer = _ask(settings, base, "/v1/trending", parameters=parameters)
    show(answer, heading=f"trending, {window}", as_json=as_json)


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


def _service(url: str | None, data_dir: Path) -> tuple[Settings, str]:
    settings = load_settings()
    return settings, service_url(url, settings.service, data_dir)


def _options(
    preset: str | None,
    weights: str | None,
    diversity: float | None,
    limit: int,
    explain: bool,
    filter_json: str | None,
) -> dict[str, Any]:
    body: dict[str, Any] = {"limit": limit, "explain": explain}
    if preset is not None:
        body["preset"] = preset
    if diversity is not None:
        body["diversity"] = diversity
    if weights is not None:
        body["weights"] = parsed_weights(weights)
    if filter_json is not None:
        try:
            body["filter"] = json.loads(filter_json)
        except ValueError as error:
            raise typer.BadParameter(f"not JSON: {error}", param_hint="--filter") from None
        if not isinstance(body["filter"], dict):
            raise typer.BadParameter("not a JSON object", param_hint="--filter")
    return body


def _ask(
    settings: Settings,
    base: str,
    path: str,
    *,
    body: dict[str, Any] | None = None,
    parameters: dict[str, Any] | None = None,
) -> httpx.Response:
    """POST the body, or GET with the parameters. Ends the command, in one line, where there is no answer."""
    try:
        with _http(settings, base) as client:
            response = client.request("GET" if body is None else "POST", path, json=body, params=parameters)
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


def _http(settings: Settings, base: str) -> httpx.Client:
    """A client that says who it is, where SIMSTREAM_API__CLIENT_KEY does."""
    return httpx.Client(
        base_url=base,
        timeout=settings.service.client_timeout_seconds,
        headers=settings.api.client_headers(),
    )


def _title_of(settings: Settings, base: str, item: str) -> str:
    """The item's title for the heading; its id where item state, which ranking never needs, is away."""
    try:
        with _http(settings, base) as client:
            response = client.get(f"/v1/items/{quote(item, safe='')}")
        return str(response.json()["title"]) if response.is_success else item
    except (httpx.HTTPError, ValueError, KeyError):
        return item
