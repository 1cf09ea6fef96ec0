"""What the OpenAPI document says beside the models: problems as problem+json, and examples of answers.

Reads   nothing
Writes  nothing
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from schemas.api import Problem
from schemas.api_watch import UpdatesView, UpdateView
from service.problems import MEDIA_TYPE

Responses = dict[int | str, dict[str, Any]]

#: What each status means, and a problem as it is answered.
_PROBLEMS: dict[int, tuple[str, Problem]] = {
    400: ("The request cannot be read", Problem(title="Bad request", status=400, detail="...")),
    401: (
        "No key, or none that is known; see WWW-Authenticate",
        Problem(title="Unauthorized", status=401, detail="no such key"),
    ),
    403: (
        "The key does not have the scope that `errors` names",
        Problem(
            title="Forbidden",
            status=403,
            detail="this route needs a key with the scope 'read'",
            errors=[{"scope": "read", "message": "this route needs a key with the scope 'read'"}],
        ),
    ),
    404: (
        "Unknown item or release",
        Problem(title="Unknown item", status=404, detail="no item 'B00X' in the catalogue"),
    ),
    408: (
        "The body did not arrive in time",
        Problem(title="Too slow", status=408, detail="the body did not arrive within 30 seconds"),
    ),
    409: (
        "The item waits for its first vectors; see Retry-After",
        Problem(
            title="Item not searchable yet",
            status=409,
            detail="item 'B00X' waits for its first vectors: repeat in a second",
        ),
    ),
    410: (
        "The item has left the catalogue",
        Problem(title="Deleted item", status=410, detail="item 'B00X' has left the catalogue"),
    ),
    413: (
        "The body, or an event in it, is too large",
        Problem(title="Body too large", status=413, detail="the body is larger than 2097152 bytes"),
    ),
    422: (
        "A field is wrong; `errors` names it",
        Problem(
            title="Invalid request",
            status=422,
            detail="limit: Input should be less than or equal to 200",
            errors=[{"field": "limit", "message": "Input should be less than or equal to 200"}],
        ),
    ),
    429: (
        "The key is over its rate; see Retry-After",
        Problem(title="Too many requests", status=429, detail="key 'shop' is over its rate"),
    ),
    503: (
        "A store, the broker or the encoder is missing and `errors` names it, or there is too much to do;"
        " see Retry-After",
        Problem(
            title="Temporarily unavailable",
            status=503,
            detail="the vector index cannot answer now: it did not answer within 10 s",
            errors=[
                {
                    "store": "index",
                    "message": "the vector index cannot answer now: it did not answer within 10 s",
                }
            ],
        ),
    ),
}
#: Of every route under /v1.
_EVERYWHERE = (401, 403, 422, 429, 503)
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}


def problems_of(*statuses: int, everywhere: bool = True) -> Responses:
    """The problems a route answers, beside those of every route."""
    wanted = sorted({*statuses, *(_EVERYWHERE if everywhere else ())})
    return {status: _described(status) for status in wanted}


def _described(status: int) -> dict[str, Any]:
    what, example = _PROBLEMS[status]
    described: dict[str, Any] = {
        "description": what,
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": example.model_dump(),
            }
        },
    }
    if status in (409, 429, 503):
        described["headers"] = _RETRY_AFTER
    return described


def example(value: dict[str, Any], *, status: int = 200, tagged: bool = False) -> Responses:
    """An answer as it looks."""
    described: dict[str, Any] = {"content": {"application/json": {"example": value}}}
    found: Responses = {status: described}
    if tagged:
        described["headers"] = {
            "ETag": {"description": "Names this very answer.", "schema": {"type": "string"}}
        }
        found[304] = {"description": "The client has this very answer (If-None-Match)"}
    return found


def describe(app: FastAPI) -> None:
    """Add the schemas of problems, and of messages on the stream, to the document that FastAPI makes."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = original()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            # Neither is any route's answer as FastAPI knows answers.
            for model in (Problem, UpdatesView, UpdateView):
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schema.pop("$defs", None)
                schemas[model.__name__] = schema
        assert app.openapi_schema is not None  # noqa: S101  FastAPI keeps what it has made
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
