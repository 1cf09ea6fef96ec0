"""Every error of the API as an RFC 9457 problem (application/problem+json).

401 no key, or none that is known; 403 a key without the scope; 404 unknown item, release or route; 405;
408 a body that does not come; 409 an item that waits for its first vectors; 410 a deleted item; 413 a body
over the limit; 422 a field that is wrong, each one named; 429 over the rate; 503 a store or encoder that is
missing, with its name, or too much to do. What passes comes with Retry-After. A client's words come back only
escaped, and never as HTML.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from schemas.api import Problem
from service.errors import Refused, Unavailable

logger = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    413: "Body too large",
    415: "Unsupported media type",
    422: "Invalid request",
    431: "Head too large",
    500: "Internal error",
}


def problem(
    status: int,
    detail: str,
    *,
    title: str | None = None,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as a response. `<`, `>` and `&` are written as escapes: no browser finds markup in it."""
    body = Problem(
        title=title or _TITLES.get(status, "Error"),
        status=status,
        detail=detail,
        errors=[dict(error) for error in errors],
    )
    text = orjson.dumps(body.model_dump())
    for raw, escaped in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")):
        text = text.replace(raw, escaped)
    return Response(text, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def field_errors(details: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Pydantic's error details as {field, message}, without the input they were about."""
    errors = []
    for detail in details[:MAX_ERRORS]:
        path = [str(part) for part in detail["loc"] if part not in ("body", "query", "path", "[key]")]
        message = str(detail["msg"])
        if detail["type"] == "missing":
            message = "is required"
        elif detail["type"] == "json_invalid":
            reason = (detail.get("ctx") or {}).get("error", "")
            path, message = [], f"is not valid JSON: {reason} (character {path[0] if path else 0})"
        elif detail["type"] == "model_attributes_type" and not path:
            message = "is not a JSON object: send one, with Content-Type: application/json"
        errors.append({"field": _ascii(".".join(path))[:200], "message": _ascii(message)[:300]})
    return errors


def _ascii(text: str) -> str:
    """Printable ASCII; anything else as an escape."""
    return ascii(text)[1:-1].replace("\\'", "'")


def invalid(details: Sequence[Mapping[str, Any]]) -> Response:
    """422: the fields that are wrong."""
    errors = field_errors(details)
    first = f"{errors[0]['field'] or 'the body'}: {errors[0]['message']}" if errors else "invalid"
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return problem(422, first + more, errors=errors)


def body_of(error: Refused) -> Problem:
    """A refusal as the body of an answer."""
    return Problem(title=error.title, status=error.status, detail=error.detail, errors=error.errors)


def of(error: Refused, *, retry_after_seconds: int = 1) -> Response:
    """The answer to a query that was refused; `retry_after_seconds` where the error does not say."""
    headers = error.headers()
    if error.passes:
        headers["Retry-After"] = str(error.retry_after_seconds or retry_after_seconds)
    return problem(error.status, error.detail, title=error.title, errors=error.errors, headers=headers)


def install(app: FastAPI, *, retry_after_seconds: int) -> None:
    """Make every error that leaves a route a problem."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)  # noqa: S101  (registered for it alone)
        if isinstance(error, Unavailable):
            logger.warning("store_unavailable store=%s reason=%s", error.store, ascii(error.detail))
        return of(error, retry_after_seconds=retry_after_seconds)

    async def unparsable(_: Request, error: Exception) -> Response:
        details = error.errors() if isinstance(error, RequestValidationError) else []
        return invalid(details)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return problem(error.status_code, str(error.detail), headers=error.headers)

    async def unexpected(request: Request, error: Exception) -> Response:
        route = getattr(request.scope.get("route"), "path_format", "")
        logger.error("request_failed route=%s", route, exc_info=error)
        return problem(500, "the service failed on this request; its log says why")

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RequestValidationError, unparsable)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)
