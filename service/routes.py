"""Routes that read: items, rankings, what shoppers did, the release, health and metrics.

Reads   what service/query.py, service/recommend.py and service/catalogue.py read
Writes  nothing
Never   blocks the event loop: every call to a store runs in a worker thread
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Path, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.responses import PlainTextResponse, Response

from schemas.api import (
    Answer,
    ItemView,
    Page,
    QueryOptions,
    ReleaseView,
    SearchRequest,
    SimilarRequest,
)
from schemas.api_bulk import BatchAnswer, BatchEntry, SimilarBatch
from schemas.api_watch import MapRequest, MapView, RecentView
from schemas.insights import PriceView
from service import examples, problems
from service.access import caller
from service.catalogue import Catalogue
from service.errors import Refused, Unavailable
from service.item_route import ItemRoute
from service.keys import Scope
from service.openapi import example, problems_of
from service.parameters import RecommendationForm, ShortForm, TrendingForm
from service.prices import Prices
from service.query import QueryEngine
from service.recommend import Recommender
from service.settings import ServiceSettings
from service.standing import NOTE, Standing
from service.timing import Timings
from service.workers import Workers

NAMING = "asking a release by name (release_id)"
ItemId = Annotated[str, Path(min_length=1, max_length=256, examples=["B00X"])]
UserId = Annotated[str, Path(min_length=1, max_length=256, examples=["u000123"])]
Asked = TypeVar("Asked", bound=QueryOptions)


def _permitted(request: Request, wanted: Asked) -> Asked:
    """The request itself. Raises Forbidden: a candidate by name is for those who run the shop."""
    if wanted.release_id is not None:
        caller(request).require(Scope.ADMIN, NAMING)
    return wanted


def ranking(
    engine: QueryEngine,
    catalogue: Catalogue,
    workers: Workers,
    standing: Standing,
    prices: Prices,
    dependencies: Any,
) -> APIRouter:
    """Items and their neighbours."""
    router = APIRouter(prefix="/v1", route_class=ItemRoute, tags=["items"], dependencies=dependencies)

    def answering(ask: Callable[[Timings], Answer]) -> Callable[[Timings], Answer]:
        """`ask`, with a word on item state where that is away."""
        if not standing.away():
            return ask

        def with_note(timings: Timings) -> Answer:
            answer = ask(timings)
            return answer.model_copy(update={"notes": [*answer.notes, NOTE]})

        return with_note

    @router.get(
        "/items/{item_id:id}/similar",
        response_model=Answer,
        summary="Neighbours, the short form",
        responses={**problems_of(404, 409, 410), **example(examples.ANSWER, tagged=True)},
    )
    async def similar_to_item(
        request: Request, item_id: ItemId, query: Annotated[ShortForm, Query()]
    ) -> Response:
        wanted = _permitted(request, query.request(item_id))
        return await workers.run_tagged(request, answering(partial(engine.similar, wanted)))

    @router.get(
        "/items/{item_id:id}/price",
        response_model=PriceView,
        summary="Where an item's price stands among comparable ones",
        responses={**problems_of(404, 409, 410), **example(examples.PRICE, tagged=True)},
    )
    async def price(request: Request, item_id: ItemId) -> Response:
        return await workers.run_tagged(request, lambda timings: prices.price(item_id, timings))

    @router.get(
        "/items/{item_id:id}",
        response_model=ItemView,
        summary="An item and how fresh it is",
        responses={**problems_of(404, 410), **example(examples.ITEM, tagged=True)},
    )
    async def item(request: Request, item_id: ItemId) -> Response:
        return await workers.run_tagged(request, lambda timings: catalogue.item(item_id, timings))

    @router.post(
        "/similar",
        response_model=Answer,
        summary="Neighbours of several seeds",
        responses={**problems_of(404, 408, 409, 410, 413), **example(examples.ANSWER)},
    )
    async def similar(request: Request, body: SimilarRequest) -> Response:
        _permitted(request, body)
        return await workers.run(answering(partial(engine.similar, body)))

    @router.post(
        "/similar/batch",
        response_model=BatchAnswer,
        summary="Many lists of seeds in one call",
        description="Each query takes one of the key's rate. What is wrong with one stands in its entry.",
        responses={**problems_of(408, 413), **example(examples.BATCH)},
    )
    async def similar_batch(request: Request, body: SimilarBatch) -> Response:
        for query in body.queries:
            _permitted(request, query)
        caller(request).spend(len(body.queries) - 1)
        asks = [answering(partial(engine.similar, query)) for query in body.queries]

        def answered(timings: Timings) -> BatchAnswer:
            entries = []
            for ask in asks:
                own = Timings()
                try:
                    entries.append(BatchEntry(answer=ask(own)))
                except Unavailable:
                    raise
                except Refused as error:
                    entries.append(BatchEntry(problem=problems.body_of(error)))
                timings.add(own)
            return BatchAnswer(answers=entries, took_ms=round(timings.elapsed_ms(), 3))

        return await workers.run(answered)

    @router.post(
        "/search",
        response_model=Answer,
        summary="Items that a text describes",
        responses={**problems_of(404, 408, 413), **example(examples.ANSWER)},
    )
    async def search(request: Request, body: SearchRequest) -> Response:
        _permitted(request, body)
        return await workers.run(answering(partial(engine.search, body)))

    @router.post(
        "/map",
        response_model=MapView,
        summary="Items on a plane, by what they mean",
        responses={**problems_of(404, 408, 413), **example(examples.MAP)},
    )
    async def placed_items(request: Request, body: MapRequest) -> Response:
        if body.release_id is not None:
            caller(request).require(Scope.ADMIN, NAMING)
        return await workers.run(lambda timings: catalogue.places(body, timings))

    @router.get(
        "/release",
        response_model=ReleaseView,
        summary="The live release",
        tags=["release"],
        responses={**problems_of(), **example(examples.RELEASE)},
    )
    async def release() -> Response:
        return await workers.run(catalogue.release)

    return router


def shoppers(recommender: Recommender, workers: Workers, dependencies: Any) -> APIRouter:
    """What shoppers do."""
    router = APIRouter(prefix="/v1", tags=["behaviour"], dependencies=dependencies)

    @router.get(
        "/users/{user_id:id}/recommendations",
        response_model=Answer,
        summary="Items for a shopper",
        responses={**problems_of(404), **example(examples.ANSWER)},
    )
    async def recommendations(
        request: Request, user_id: UserId, query: Annotated[RecommendationForm, Query()]
    ) -> Response:
        wanted = _permitted(request, query.wanted())
        return await workers.run(lambda timings: recommender.recommended(user_id, wanted, timings))

    @router.get(
        "/users/{user_id:id}/recent",
        response_model=RecentView,
        summary="The items that a shopper's recommendations start from",
        responses={**problems_of(), **example(examples.RECENT)},
    )
    async def recent(user_id: UserId) -> Response:
        return await workers.run(lambda timings: recommender.recent(user_id, timings))

    @router.get(
        "/trending",
        response_model=Page,
        summary="Items with the most shoppers, page by page",
        responses={**problems_of(), **example(examples.TRENDING)},
    )
    async def trending(query: Annotated[TrendingForm, Query()]) -> Response:
        return await workers.run(lambda timings: recommender.trending(query, timings))

    return router


def operations(
    catalogue: Catalogue,
    workers: Workers,
    settings: ServiceSettings,
    registry: CollectorRegistry,
    *,
    notes: Callable[[], Mapping[str, str | None]],
    dependencies: Any,
) -> APIRouter:
    """Health and metrics. `notes` says, by what it is about, what else readiness should mention."""
    router = APIRouter(tags=["operations"])

    @router.get("/health/live", summary="The process answers")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get(
        "/health/ready",
        summary="Neighbours can be answered; which stores of other routes are away",
        responses={
            **problems_of(503, everywhere=False),
            **example({"status": "ready", "missing": []}),
        },
    )
    async def ready() -> Response:
        missing = await workers.check(catalogue.missing)
        degraded = await workers.check(catalogue.degraded)
        noted = [{"store": name, "message": said} for name, said in notes().items() if said is not None]
        degraded = [*degraded, *noted]
        if not missing:
            body = {"status": "degraded" if degraded else "ready", "missing": degraded}
            return Response(orjson.dumps(body), media_type="application/json")
        detail = "; ".join(entry["message"] for entry in missing)
        return problems.problem(
            503,
            detail,
            title="Not ready",
            errors=[*missing, *degraded],
            headers={"Retry-After": str(settings.retry_after_seconds)},
        )

    @router.get(
        "/metrics",
        summary="Prometheus metrics",
        dependencies=dependencies,
        response_class=PlainTextResponse,
        responses=problems_of(401, 403, 429, everywhere=False),
    )
    async def metrics() -> Response:
        text = await workers.check(lambda: generate_latest(registry))
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router
