"""Worker threads of the API: they call stores and the encoder, the event loop never does.

Reads   nothing
Writes  nothing
Never   lets a store that hangs pile up threads: there are so many and no more
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import orjson
import xxhash
from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from service.errors import Busy
from service.timing import Timings

Returned = TypeVar("Returned")
#: How long an answer took is no part of what it says.
_NOT_TAGGED = "took_ms"


class Workers:
    """Threads of this application, apart from the framework's own."""

    def __init__(self, threads: int, *, answer_seconds: float) -> None:
        self._answers = ThreadPoolExecutor(threads, thread_name_prefix="api")
        self._checks = ThreadPoolExecutor(2, thread_name_prefix="api-check")
        self._answer_seconds = answer_seconds

    async def run(self, work: Callable[[Timings], BaseModel]) -> Response:
        """`work` in a thread, its model as JSON, with a Server-Timing header. Raises Busy when it is late."""
        timings = Timings()

        def answered() -> bytes:
            return orjson.dumps(work(timings).model_dump(mode="json"))

        body = await self._within(self._answers, answered)
        return Response(body, media_type="application/json", headers={"Server-Timing": timings.header()})

    async def run_tagged(self, request: Request, work: Callable[[Timings], BaseModel]) -> Response:
        """The same with an ETag; 304 without a body for a client that has this very answer."""
        timings = Timings()

        def answered() -> tuple[bytes, str]:
            fields = work(timings).model_dump(mode="json")
            said = orjson.dumps({name: value for name, value in fields.items() if name != _NOT_TAGGED})
            weak = "W/" if _NOT_TAGGED in fields else ""
            return orjson.dumps(fields), f'{weak}"{xxhash.xxh3_128_hexdigest(said)}"'

        body, tag = await self._within(self._answers, answered)
        # Shared caches keep nothing, browsers ask each time: an answer is worth what its freshness is.
        headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Server-Timing": timings.header()}
        if has(request.headers.getlist("if-none-match"), tag):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    async def check(self, work: Callable[[], Returned]) -> Returned:
        """Health and metrics: they never queue behind queries. Raises Busy when it is late."""
        return await self._within(self._checks, work)

    async def _within(self, pool: ThreadPoolExecutor, work: Callable[[], Returned]) -> Returned:
        """What `work` returns. Work that has not begun in time never does."""
        future = asyncio.wrap_future(pool.submit(work))
        done, _ = await asyncio.wait({future}, timeout=self._answer_seconds)
        if not done:
            future.cancel()
            raise Busy(f"no answer within {self._answer_seconds:g} seconds")
        return future.result()


def has(if_none_match: list[str], tag: str) -> bool:
    """Whether the headers name the tag, compared as RFC 9110, section 13.1.2, wants it: weakly."""
    named = [part.strip() for value in if_none_match for part in value.split(",")]
    return "*" in named or tag.removeprefix("W/") in {each.removeprefix("W/") for each in named}
