"""Routes of what is found out about items: relations.

Reads   what service/relations.py reads
Writes  nothing
Never   blocks the event loop: every call to a store runs in a worker thread
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from schemas.insights import RelationsView
from service import examples
from service.catalogue import Catalogue
from service.openapi import example, problems_of
from service.parameters import Limit
from service.relations import Relations
from service.routes import ItemId
from service.strict_json import StrictJsonRoute
from service.workers import Workers

RELATIONS_SUFFIX = "/relations"


def relations(related: Relations, catalogue: Catalogue, workers: Workers, dependencies: Any) -> APIRouter:
    """What goes with an item. To be included before the route of items, which takes every path."""
    router = APIRouter(prefix="/v1", route_class=StrictJsonRoute, tags=["items"], dependencies=dependencies)

    @router.get(
        "/items/{item_id:path}/relations",
        response_model=RelationsView,
        summary="What goes with an item, and what could be bought instead",
        responses={**problems_of(404, 409, 410), **example(examples.RELATIONS, tagged=True)},
    )
    async def relations_of_item(
        request: Request, item_id: ItemId, limit: Annotated[Limit, Query()] = 10
    ) -> Response:
        # An id may itself end in "/relations", percent-encoded; only the raw path tells it from the route.
        if not request.scope.get("raw_path", b"").endswith(RELATIONS_SUFFIX.encode()):
            return await workers.run_tagged(
                request, lambda timings: catalogue.item(item_id + RELATIONS_SUFFIX, timings)
            )
        return await workers.run_tagged(request, lambda timings: related.relations(item_id, limit, timings))

    return router
