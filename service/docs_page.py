"""The API's document as a page at `/docs`: Swagger UI, whose files come with the package fastapi-offline.

Reads   the files of that package, when somebody first asks
Writes  nothing
Never   asks another host for anything: FastAPI's own page would load its scripts from a public CDN
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.page import Files, packed_file

_POLICY = (
    # Swagger UI writes styles into its elements, and its pictures into its style sheet.
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>simstream: the API</title>
<link rel="icon" href="/explorer/icon.svg">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
"""
PATHS = ("/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css")


@cache
def _document() -> Files:
    static = files("fastapi_offline") / "static"
    script, style = ((static / name).read_bytes() for name in ("swagger-ui-bundle.js", "swagger-ui.css"))
    return Files(
        {
            "/docs": packed_file(".html", _PAGE.encode()),
            "/docs/start.js": packed_file(".js", _START.encode()),
            "/docs/swagger-ui-bundle.js": packed_file(".js", script),
            "/docs/swagger-ui.css": packed_file(".css", style),
        },
        policy=_POLICY,
    )


def document() -> APIRouter:
    """The page's routes, outside the API's document. With keys they need one, as the document does."""
    router = APIRouter(include_in_schema=False)

    # No coroutine: reading and compressing the files the first time is done beside the event loop.
    def file(request: Request) -> Response:
        return _document().answer(request)

    for path in PATHS:
        router.add_api_route(path, file, methods=["GET", "HEAD"])
    return router
