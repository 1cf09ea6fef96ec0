"""Routes that publish, for producers without Kafka: products, reviews, user events.

Reads   nothing
Writes  the topics, through service/sink.py
Never   answers 202 before the broker has acknowledged every event of the post
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body
from starlette.responses import Response

from schemas.api_bulk import ProductEvents, Published, ReviewEvents, UserEvents
from schemas.events import Frozen
from schemas.topics import Topic, Topics
from service import examples
from service.errors import Unavailable
from service.openapi import example, problems_of
from service.sink import EventSink
from service.strict_json import StrictJsonRoute
from service.timing import BROKER

_HOW = (
    "One event, or a list of them, as they travel on the topic; keyed as `simstream publish` keys them."
    " 202 says that the broker has acknowledged every one. After anything else post all of them again: an"
    " event counts once however often it comes"
)


def publishing(sink: EventSink | None, topics: Topics, dependencies: Any) -> APIRouter:
    """The routes; without a sink they answer 503."""
    router = APIRouter(prefix="/v1", route_class=StrictJsonRoute, tags=["publish"], dependencies=dependencies)

    async def published(topic: Topic, events: Sequence[Frozen]) -> Response:
        if sink is None:
            raise Unavailable(BROKER, "this service was started without a broker")
        acknowledged = await sink.publish(topic, events)
        body = orjson.dumps(Published(acknowledged=acknowledged).model_dump())
        return Response(body, status_code=202, media_type="application/json")

    def described(summary: str, by: str) -> dict[str, Any]:
        return {
            "status_code": 202,
            "response_model": Published,
            "summary": summary,
            "description": f"{_HOW} ({by}).",
            "responses": {**problems_of(408, 413), **example(examples.PUBLISHED, status=202)},
        }

    @router.post("/events", **described("What shoppers did", "told by its `event_id`"))
    async def user_events(body: Annotated[UserEvents, Body(examples=[examples.EVENT])]) -> Response:
        return await published(topics.events, body)

    @router.post("/products", **described("Products", "an older `revision` changes nothing"))
    async def products(body: Annotated[ProductEvents, Body(examples=[examples.PRODUCT])]) -> Response:
        return await published(topics.products, body)

    @router.post("/reviews", **described("Reviews", "an older `revision` changes nothing"))
    async def reviews(body: Annotated[ReviewEvents, Body(examples=[examples.REVIEW])]) -> Response:
        return await published(topics.reviews, body)

    return router
