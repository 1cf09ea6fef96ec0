"""Routes that watch: changes as they arrive (server-sent events), the pipeline, releases.

Reads   what service/watching.py reads
Writes  nothing
Never   keeps a stream open when the service ends; more of them at a time than settings allow
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from schemas.api_watch import PipelineView, ReleasesView, UpdatesView
from service import examples
from service.access import Caller, caller
from service.errors import Unavailable
from service.feed import Listener, UpdateFeed
from service.openapi import example, problems_of
from service.timing import BROKER
from service.watching import Watching
from service.workers import Workers

EVENT_STREAM = "text/event-stream"
#: A line of comment after so much silence: whoever stands between keeps the connection open.
SILENCE_SECONDS = 15.0
_TICK_SECONDS = 0.5


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = EVENT_STREAM


def watching(watch: Watching, feed: UpdateFeed | None, workers: Workers, dependencies: Any) -> APIRouter:
    """The routes. Without a feed the stream answers 503."""
    router = APIRouter(prefix="/v1", tags=["watching"], dependencies=dependencies)

    @router.get(
        "/updates",
        summary="Changes as the live index takes them",
        description="Server-sent events. Each message is an `UpdatesView`. The stream begins now: what a"
        " client has missed it asks for by asking anew for what it shows. At most"
        " `SIMSTREAM_SERVICE__LISTENERS` streams at a time, others are told 503.",
        response_class=EventStream,
        responses={
            **problems_of(),
            200: {
                "description": "The stream",
                "content": {EVENT_STREAM: {"example": examples.UPDATES_STREAM, "schema": {"type": "string"}}},
            },
        },
    )
    async def updates(request: Request) -> Response:
        if feed is None:
            raise Unavailable(BROKER, "this service was started without a broker")
        # Entered here, so that one listener too many is a 503 and not an empty stream.
        opened = feed.listening()
        listener = opened.__enter__()

        async def lines() -> AsyncIterator[bytes]:
            try:
                async for line in _messages(listener, feed, watch, caller(request)):
                    yield line
            finally:
                opened.__exit__(None, None, None)

        return EventStream(lines(), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    @router.get(
        "/pipeline",
        response_model=PipelineView,
        summary="Freshness, lag, dead letters",
        responses={**problems_of(), **example(examples.PIPELINE)},
    )
    async def pipeline() -> Response:
        return await workers.run(watch.pipeline)

    @router.get(
        "/releases",
        response_model=ReleasesView,
        summary="Releases, where each stands, and what the gate said",
        responses={**problems_of(), **example(examples.RELEASES)},
    )
    async def releases() -> Response:
        return await workers.run(watch.releases)

    return router


async def _messages(
    listener: Listener, feed: UpdateFeed, watch: Watching, who: Caller
) -> AsyncIterator[bytes]:
    """A comment at once, so that a client knows it is heard; then messages, and comments in between.

    It ends with the key that asked for it: when that is taken off the list, or its time is over.
    """
    yield b": listening\n\n"
    silent_seconds = 0.0
    while not feed.ended and who.good():
        found, passed_over = await listener.taken(_TICK_SECONDS)
        if not found:
            silent_seconds += _TICK_SECONDS
            if silent_seconds >= SILENCE_SECONDS:
                silent_seconds = 0.0
                yield b": still here\n\n"
            continue
        try:
            view = await run_in_threadpool(partial(watch.described, found, passed_over))
        except Unavailable:
            continue  # the index is away, and whoever asks it hears so
        if view.updates or view.passed_over:
            silent_seconds = 0.0
            yield _message(view)


def _message(view: UpdatesView) -> bytes:
    return b"event: updates\ndata: " + orjson.dumps(view.model_dump(mode="json")) + b"\n\n"
