"""Around every request: a limit on bytes really received, metrics by route template, and two headers.

Plain ASGI, so that nothing is buffered: chunked bodies are counted as they arrive.
"""

from __future__ import annotations

import time

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.metrics import HTTP_REQUESTS_TOTAL, HTTP_SECONDS

#: The label of requests that matched no route, so that guessed paths make no new series.
UNMATCHED = "(none)"


class BodyLimit:
    """Stops reading a body once it is larger than allowed: 413, whatever Content-Length says."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received_bytes = 0

        async def counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            if message["type"] == "http.request":
                received_bytes += len(message.get("body", b""))
                if received_bytes > self._max_bytes:
                    # Raised where the body is read, inside the route, and so answered as a problem.
                    raise HTTPException(
                        413,
                        f"the body is larger than {self._max_bytes} bytes",
                        headers={"Connection": "close"},
                    )
            return message

        await self._app(scope, counted, send)


class Measured:
    """Counts and times answers by route template, and forbids browsers to guess content types."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and measure its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path_format", UNMATCHED)
            HTTP_REQUESTS_TOTAL.labels(route=route, status=str(status)).inc()
            HTTP_SECONDS.labels(route=route).observe(time.perf_counter() - started)
