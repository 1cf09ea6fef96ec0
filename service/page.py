"""The explorer: one page at `/` and its few files, as `make explorer` has built them from service/explorer/.

Reads   service/static/, once
Writes  nothing
Never   lets the page load, run or send anything that this service has not served: its
        Content-Security-Policy names no other host but those of product pictures, which settings list
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import orjson
import xxhash
from fastapi import APIRouter, Request
from starlette.responses import Response

from schemas.api import DimensionName
from service.workers import has

FOLDER = Path(__file__).parent / "static"
PREFIX = "/explorer/"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: In the page, where this service says what it is.
_SAID = b'data-service="{}"'


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A body, plain and compressed, and its ETag."""

    media_type: str
    body: bytes
    packed: bytes
    tag: str


def policy(image_origins: Sequence[str] = ()) -> str:
    """The Content-Security-Policy of the page."""
    images = " ".join(["'self'", *image_origins])
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {images}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class Files:
    """Files by their addresses, ready to be sent."""

    def __init__(self, files: Mapping[str, PackedFile], *, policy: str) -> None:
        self._files = files
        self._headers = {
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-cache",
            "Vary": "Accept-Encoding",
        }
        self.paths = frozenset(files)

    def answer(self, request: Request) -> Response:
        """The file at the request's path; 304 for a browser that has it."""
        file = self._files[request.url.path]
        headers = {**self._headers, "ETag": file.tag}
        if has(request.headers.getlist("if-none-match"), file.tag):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return Response(file.packed, media_type=file.media_type, headers=headers)
        return Response(file.body, media_type=file.media_type, headers=headers)


class Page(Files):
    """The explorer's. Its `paths` answer without a key: they say nothing about anybody."""

    def __init__(
        self,
        *,
        keys: bool,
        weights: Mapping[str, Mapping[DimensionName, float]],
        image_origins: Sequence[str] = (),
        folder: Path = FOLDER,
    ) -> None:
        """`weights` by preset, "" for none: where the sliders stand."""
        facts = {"keys": keys, "images": bool(image_origins), "weights": weights}
        said = b'data-service="' + escape(orjson.dumps(facts).decode()).encode() + b'"'
        files = {
            _address(path): packed_file(path.suffix, path.read_bytes().replace(_SAID, said))
            for path in sorted(folder.iterdir())
            if path.suffix in _TYPES
        }
        super().__init__(files, policy=policy(image_origins))


def explorer(page: Page) -> APIRouter:
    """The page's routes. They are not in the API's document."""
    router = APIRouter(include_in_schema=False)

    async def file(request: Request) -> Response:
        return page.answer(request)

    for path in sorted(page.paths):
        router.add_api_route(path, file, methods=["GET", "HEAD"])
    return router


def _address(path: Path) -> str:
    return "/" if path.name == "index.html" else PREFIX + path.name


def packed_file(suffix: str, body: bytes) -> PackedFile:
    """A file of one of the types that pages are made of, compressed once."""
    return PackedFile(
        media_type=_TYPES[suffix],
        body=body,
        packed=gzip.compress(body, 9, mtime=0),
        tag=f'W/"{xxhash.xxh3_128_hexdigest(body)}"',
    )
