"""Routes of what is found out about items, and of what people say: relations, opinions, reports.

Reads   what service/relations.py and service/opinions.py read
Writes  reports, into the box that is handed in
Never   blocks the event loop: every call to a store runs in a worker thread
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from starlette.responses import Response

from schemas.insights import RelationsView
from schemas.opinions import OpinionsView
from schemas.reports import ReportBox, Reported, ReportRequest
from service import examples
from service.access import caller
from service.catalogue import Catalogue
from service.errors import Busy, Unavailable
from service.item_route import ItemRoute
from service.openapi import example, problems_of
from service.opinions import Opinions
from service.parameters import Limit
from service.relations import Relations
from service.routes import ItemId
from service.strict_json import StrictJsonRoute
from service.timing import ITEMS, Timings
from service.workers import Workers


def relations(related: Relations, workers: Workers, dependencies: Any) -> APIRouter:
    """What goes with an item. To be included before the route of items, which takes every path."""
    router = APIRouter(prefix="/v1", route_class=ItemRoute, tags=["items"], dependencies=dependencies)

    @router.get(
        "/items/{item_id:id}/relations",
        response_model=RelationsView,
        summary="What goes with an item, and what could be bought instead",
        responses={**problems_of(404, 409, 410), **example(examples.RELATIONS, tagged=True)},
    )
    async def relations_of_item(
        request: Request, item_id: ItemId, limit: Annotated[Limit, Query()] = 10
    ) -> Response:
        return await workers.run_tagged(request, lambda timings: related.relations(item_id, limit, timings))

    return router


def opinions(heard: Opinions, workers: Workers, dependencies: Any) -> APIRouter:
    """What reviewers say about an item. To be included before the route of items, which takes every path."""
    router = APIRouter(prefix="/v1", route_class=ItemRoute, tags=["items"], dependencies=dependencies)

    @router.get(
        "/items/{item_id:id}/opinions",
        response_model=OpinionsView,
        summary="What reviewers say about an item, aspect by aspect",
        responses={**problems_of(404, 409, 410), **example(examples.OPINIONS, tagged=True)},
    )
    async def opinions_of_item(request: Request, item_id: ItemId) -> Response:
        return await workers.run_tagged(request, lambda timings: heard.opinions(item_id, timings))

    return router


def reporting(
    reports: ReportBox | None, catalogue: Catalogue, workers: Workers, dependencies: Any
) -> APIRouter:
    """What people report about answers; without a box the route answers 503."""
    router = APIRouter(prefix="/v1", route_class=StrictJsonRoute, tags=["items"], dependencies=dependencies)

    @router.post(
        "/reports",
        status_code=202,
        response_model=Reported,
        summary="Report an answer: not similar, or harmful",
        description="For people to review (`simstream reports`). The same of the same pair counts as one, and"
        " nothing changes before somebody has approved it.",
        responses={
            **problems_of(404, 408, 409, 410, 413),
            **example(examples.REPORTED, status=202),
        },
    )
    async def report(
        request: Request, body: Annotated[ReportRequest, Body(examples=[examples.REPORT])]
    ) -> Response:
        reporter = caller(request).name

        def taken(timings: Timings) -> Reported:
            if reports is None:
                raise Unavailable(ITEMS, "this service was started without a store of reports")
            target = catalogue.target(None, timings)
            named = [body.item_id, *([body.seed] if body.seed is not None else [])]
            catalogue.seed_points(target, named, timings)  # both are known, or the problem says which is not
            with timings.asking(ITEMS):
                entry = reports.add(body, reporter=reporter, now=datetime.now(UTC))
            if entry is None:
                raise Busy("too many reports wait for review")
            return Reported(report_id=entry.report_id, status=entry.status, reports=entry.reports)

        answer = await workers.run(taken)
        answer.status_code = 202
        return answer

    return router
