"""The HTTP API: routes, parsing at the edge, worker threads; OpenAPI at /docs.

Reads   what service/query.py, service/recommend.py and service/catalogue.py read
Writes  nothing
Never   blocks the event loop: every call to a store runs in a worker thread
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, FastAPI, Path, Query, Request
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from starlette.responses import Response

from adapters.index_port import LIVE_ALIAS, VectorIndex
from schemas.api import Answer, ItemView, Problem, QueryOptions, ReleaseView, SearchRequest, SimilarRequest
from schemas.behaviour import BehaviourReader
from schemas.items import Items
from service import problems
from service.access import Access, Keyring, caller
from service.catalogue import Catalogue
from service.keys import Scope
from service.middleware import Admission, Bodies, Measured
from service.parameters import RecommendationForm, ShortForm, TrendingForm
from service.query import QueryEngine
from service.recommend import Recommender
from service.releases import Releases
from service.settings import ServiceSettings
from service.workers import Workers

SIMILAR_SUFFIX = "/similar"
PROBLEM_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": what, "content": {problems.MEDIA_TYPE: {}}}
    for status, what in {
        404: "Unknown item or release",
        409: "The item waits for its first vectors; see Retry-After",
        410: "The item has left the catalogue",
        413: "The body is too large",
        422: "A field is wrong; `errors` names it",
        503: "A store or the encoder is missing; `errors` names it, see Retry-After",
    }.items()
}


class StrictJson(Request):
    """A request whose JSON is parsed by orjson: no NaN, no lone surrogates, no bottomless nesting."""

    async def json(self) -> Any:
        """The body. Raises json.JSONDecodeError, which FastAPI answers as a wrong field."""
        if not hasattr(self, "_json"):
            self._json = orjson.loads(await self.body())
        return self._json


class StrictJsonRoute(APIRoute):
    """A route that reads its body with StrictJson."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a request that parses strictly."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictJson(request.scope, request.receive))

        return strict


def create_app(
    *,
    index: VectorIndex,
    store: Items,
    releases: Releases,
    settings: ServiceSettings,
    alias: str = LIVE_ALIAS,
    registry: CollectorRegistry = REGISTRY,
    behaviour: BehaviourReader | None = None,
    keyring: Keyring | None = None,
) -> FastAPI:
    """The application. Everything it needs is handed in open; it closes nothing.

    `alias` names the live collection (namespace included). Requests beyond `settings.threads` at a time wait.
    With a `keyring` that is not empty nothing but health answers without a key.
    Without `behaviour` the routes that need it answer 503, and items show no counters.
    """
    catalogue = Catalogue(
        index=index,
        store=store,
        releases=releases,
        alias=alias,
        behaviour=behaviour,
        rating_prior=settings.rating_prior,
    )
    engine = QueryEngine(catalogue=catalogue, settings=settings)
    recommender = Recommender(catalogue=catalogue, engine=engine, behaviour=behaviour, settings=settings)
    workers = Workers(settings.threads, answer_seconds=settings.answer_seconds)

    app = FastAPI(
        title="simstream",
        summary="Similar items that are never stale.",
        version="1",
        redirect_slashes=False,
    )
    problems.install(app, retry_after_seconds=settings.retry_after_seconds)
    if keyring:
        app.add_middleware(Access, keyring=keyring)
    app.add_middleware(Admission, most=settings.concurrent)
    app.add_middleware(Bodies, max_bytes=settings.max_body_bytes, read_seconds=settings.body_seconds)
    app.add_middleware(Measured)
    app.include_router(_ranking(engine, catalogue, workers))
    app.include_router(_behaviour(recommender, workers))
    app.include_router(_operations(catalogue, workers, settings, registry))
    return app


ItemId = Annotated[str, Path(min_length=1, max_length=256, examples=["B00X"])]
UserId = Annotated[str, Path(min_length=1, max_length=256, examples=["u000123"])]


Asked = TypeVar("Asked", bound=QueryOptions)


def _permitted(request: Request, wanted: Asked) -> Asked:
    """The request itself. Raises Forbidden: a candidate by name is for those who run the shop."""
    if wanted.release_id is not None:
        caller(request).require(Scope.ADMIN, "asking a release by name (release_id)")
    return wanted


def _ranking(engine: QueryEngine, catalogue: Catalogue, workers: Workers) -> APIRouter:
    router = APIRouter(prefix="/v1", route_class=StrictJsonRoute, responses=PROBLEM_ANSWERS, tags=["items"])

    @router.get("/items/{item_id:path}/similar", response_model=Answer, summary="Neighbours, the short form")
    async def similar_to_item(
        request: Request, item_id: ItemId, query: Annotated[ShortForm, Query()]
    ) -> Response:
        # An id may itself end in "/similar", percent-encoded; only the raw path tells it from the route.
        if not request.scope.get("raw_path", b"").endswith(SIMILAR_SUFFIX.encode()):
            return await workers.run(lambda timings: catalogue.item(item_id + SIMILAR_SUFFIX, timings))
        wanted = _permitted(request, query.request(item_id))
        return await workers.run(lambda timings: engine.similar(wanted, timings))

    @router.get("/items/{item_id:path}", response_model=ItemView, summary="An item and how fresh it is")
    async def item(item_id: ItemId) -> Response:
        return await workers.run(lambda timings: catalogue.item(item_id, timings))

    @router.post("/similar", response_model=Answer, summary="Neighbours of several seeds")
    async def similar(request: Request, body: SimilarRequest) -> Response:
        _permitted(request, body)
        return await workers.run(lambda timings: engine.similar(body, timings))

    @router.post("/search", response_model=Answer, summary="Items that a text describes")
    async def search(request: Request, body: SearchRequest) -> Response:
        _permitted(request, body)
        return await workers.run(lambda timings: engine.search(body, timings))

    @router.get("/release", response_model=ReleaseView, summary="The live release", tags=["release"])
    async def release() -> Response:
        return await workers.run(catalogue.release)

    return router


def _behaviour(recommender: Recommender, workers: Workers) -> APIRouter:
    router = APIRouter(prefix="/v1", responses=PROBLEM_ANSWERS, tags=["behaviour"])

    @router.get("/users/{user_id:path}/recommendations", response_model=Answer, summary="Items for a shopper")
    async def recommendations(
        request: Request, user_id: UserId, query: Annotated[RecommendationForm, Query()]
    ) -> Response:
        wanted = _permitted(request, query.wanted())
        return await workers.run(lambda timings: recommender.recommended(user_id, wanted, timings))

    @router.get("/trending", response_model=Answer, summary="Items with the most shoppers")
    async def trending(query: Annotated[TrendingForm, Query()]) -> Response:
        return await workers.run(lambda timings: recommender.trending(query, timings))

    return router


def _operations(
    catalogue: Catalogue, workers: Workers, settings: ServiceSettings, registry: CollectorRegistry
) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/health/live", summary="The process answers")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get("/health/ready", summary="Every route can be answered", responses={503: {"model": Problem}})
    async def ready() -> Response:
        missing = await workers.check(catalogue.missing)
        if not missing:
            return Response(b'{"status":"ready"}', media_type="application/json")
        detail = "; ".join(entry["message"] for entry in missing)
        return problems.problem(
            503,
            detail,
            title="Not ready",
            errors=missing,
            headers={"Retry-After": str(settings.retry_after_seconds)},
        )

    @router.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        text = await workers.check(lambda: generate_latest(registry))
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router
