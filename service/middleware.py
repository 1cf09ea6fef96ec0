"""Around every request: what a body may cost, how many are in hand at a time, metrics by route template.

Reads   nothing but the request
Writes  metrics
Never   buffers: chunked bodies are counted as they arrive. Plain ASGI
"""

from __future__ import annotations

import asyncio
import time

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.metrics import HTTP_IN_HAND, HTTP_REQUESTS_TOTAL, HTTP_SECONDS
from service import problems
from service.errors import Busy

#: The label of requests that matched no route, so that guessed paths make no new series.
UNMATCHED = "(none)"
#: They answer also when everything else is too busy: whoever watches has to see that it is.
ALWAYS = frozenset({"/health/live", "/health/ready", "/metrics"})
#: What is still read, and thrown away, of a body that was answered before its end. A socket that is closed
#: with bytes unread resets the connection, and the client never sees why it was refused.
LINGER_SECONDS = 2.0
LINGER_BYTES = 64 * 1024 * 1024
#: What a head may have, request line and headers. One that comes in pieces is stopped by the server before.
MAX_HEAD_BYTES = 64 * 1024
#: An answer that lasts as long as somebody listens says nothing about how long answers take.
_STREAM = b"text/event-stream; charset=utf-8"


class Bodies:
    """A body may have so many bytes, received, and take so long: else 413 or 408. A large head is 431."""

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, read_seconds: float, linger_seconds: float = LINGER_SECONDS
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._read_seconds = read_seconds
        self._linger_seconds = linger_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head_bytes = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if head_bytes > MAX_HEAD_BYTES:
            refused = problems.problem(431, f"the head is larger than {MAX_HEAD_BYTES} bytes")
            await refused(scope, receive, send)
            return
        body = _Body(scope, receive)

        async def counted() -> Message:
            # Raised where the body is read, inside the route, and so answered as a problem.
            if body.declared_bytes > self._max_bytes:
                raise HTTPException(413, f"the body is larger than {self._max_bytes} bytes")
            if body.complete:
                return await receive()
            try:
                async with asyncio.timeout_at(body.started + self._read_seconds):
                    message = await body.next()
            except TimeoutError:
                raise HTTPException(
                    408, f"the body did not arrive within {self._read_seconds:g} seconds"
                ) from None
            if body.received_bytes > self._max_bytes:
                raise HTTPException(413, f"the body is larger than {self._max_bytes} bytes")
            return message

        async def answered(message: Message) -> None:
            if body.complete:
                await send(message)
            elif message["type"] == "http.response.start":
                await send({**message, "headers": [*message.get("headers", []), (b"connection", b"close")]})
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                # The answer is on its way; its end, which closes the connection, waits for the client.
                await send({**message, "more_body": True})
                await self._discard(body)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await send(message)

        await self._app(scope, counted, answered)

    async def _discard(self, body: _Body) -> None:
        try:
            async with asyncio.timeout(self._linger_seconds):
                while not body.complete and body.received_bytes < LINGER_BYTES:
                    await body.next()
        except TimeoutError:
            pass  # it goes on sending: then it does not see the answer


class _Body:
    """How much of a request's body has come."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        self.declared_bytes = int(declared) if declared.isdigit() else 0
        self.complete = self.declared_bytes == 0 and b"transfer-encoding" not in headers
        self.received_bytes = 0
        self.started = asyncio.get_running_loop().time()
        self._receive = receive

    async def next(self) -> Message:
        """The next part, counted."""
        message = await self._receive()
        self.received_bytes += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.complete = True
        return message


class Admission:
    """So many requests are in hand; who comes when it is full is told at once, and costs nothing."""

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app = app
        self._most = most
        self._in_hand = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            await self._app(scope, receive, send)
            return
        if self._in_hand >= self._most:
            busy = Busy(f"{self._most} requests are in hand already", retry_after_seconds=1)
            await problems.of(busy)(scope, receive, send)
            return
        self._in_hand += 1
        HTTP_IN_HAND.inc()
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_hand -= 1
            HTTP_IN_HAND.dec()


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
        status, endless = 500, False

        async def noted(message: Message) -> None:
            nonlocal status, endless
            if message["type"] == "http.response.start":
                status = message["status"]
                endless = (b"content-type", _STREAM) in message.get("headers", [])
                message["headers"] = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path_format", UNMATCHED)
            HTTP_REQUESTS_TOTAL.labels(route=route, status=str(status)).inc()
            if not endless:
                HTTP_SECONDS.labels(route=route).observe(time.perf_counter() - started)
