"""Every call of the API as data: what is sent, and what comes back. Shared by both clients; opens nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from client.errors import BY_STATUS, ApiError
from schemas.api import (
    Answer,
    Filter,
    ItemView,
    Page,
    PresetName,
    Problem,
    ReleaseView,
    SearchRequest,
    SimilarRequest,
    Weights,
)
from schemas.api_bulk import MAX_EVENTS, BatchAnswer, Published, SimilarBatch
from schemas.api_watch import MapRequest, MapView, PipelineView, RecentView, ReleasesView, UpdatesView
from schemas.behaviour import Window
from schemas.events import Frozen
from schemas.insights import PriceView

Returned = TypeVar("Returned", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[Returned]):
    """One request. `body` is JSON; of `parameters` those that are None are left out."""

    method: str
    path: str
    returns: type[Returned]
    body: Any = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """For httpx."""
        given = {name: value for name, value in self.parameters.items() if value is not None}
        found: dict[str, Any] = {"params": given} if given else {}
        if self.body is not None:
            found["json"] = self.body
        return found

    def parsed(self, response: httpx.Response) -> Returned:
        """The answer. Raises ApiError for anything but a success."""
        if response.is_success:
            return self.returns.model_validate_json(response.content)
        raise problem_of(response)


def problem_of(response: httpx.Response) -> ApiError:
    """A refusal as its exception; one that is no problem (a proxy's, say) gets its status and its text."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        problem = Problem(
            title=response.reason_phrase or "Error",
            status=response.status_code,
            detail=response.text[:200],
        )
    after = response.headers.get("retry-after", "")
    kind = BY_STATUS.get(response.status_code, ApiError)
    return kind(problem, retry_after_seconds=float(after) if after.isdigit() else None)


def headers_of(key: str | None) -> dict[str, str]:
    """What is sent with every request."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def item(item_id: str) -> Call[ItemView]:
    """GET /v1/items/{item_id}."""
    return Call("GET", f"/v1/items/{quote(item_id, safe='')}", ItemView)


def price(item_id: str) -> Call[PriceView]:
    """GET /v1/items/{item_id}/price."""
    return Call("GET", f"/v1/items/{quote(item_id, safe='')}/price", PriceView)


def similar(request: SimilarRequest | str, limit: int | None) -> Call[Answer]:
    """POST /v1/similar; an id alone is the one seed."""
    if isinstance(request, str):
        body: dict[str, Any] = {"seeds": [{"item_id": request}]}
        return Call("POST", "/v1/similar", Answer, body if limit is None else {**body, "limit": limit})
    return Call("POST", "/v1/similar", Answer, _sent(request, limit))


def similar_batch(requests: Sequence[SimilarRequest]) -> Call[BatchAnswer]:
    """POST /v1/similar/batch."""
    return Call("POST", "/v1/similar/batch", BatchAnswer, _sent(SimilarBatch(queries=list(requests))))


def search(request: SearchRequest | str, limit: int | None) -> Call[Answer]:
    """POST /v1/search; a text alone is a request."""
    wanted = SearchRequest(text=request) if isinstance(request, str) else request
    return Call("POST", "/v1/search", Answer, _sent(wanted, limit))


def recommendations(
    user_id: str,
    *,
    limit: int | None,
    preset: PresetName | None,
    weights: Weights | None,
    filter: Filter | None,
    include_bought: bool,
) -> Call[Answer]:
    """GET /v1/users/{user_id}/recommendations. Raises ValueError for a filter that has no short form."""
    kept = {} if filter is None else filter.model_dump(exclude_unset=True)
    if unknown := sorted(set(kept) & {"price", "price_ratio", "attributes"}):
        raise ValueError(f"recommendations cannot be filtered by {', '.join(unknown)}")
    parameters: dict[str, Any] = {
        "limit": limit,
        "preset": preset,
        "weights": None
        if weights is None
        else ",".join(f"{name}:{weight}" for name, weight in weights.items()),
        "include_bought": include_bought or None,
        **kept,
    }
    path = f"/v1/users/{quote(user_id, safe='')}/recommendations"
    return Call("GET", path, Answer, parameters=parameters)


def trending(
    window: Window | None, *, limit: int | None, offset: int | None, category: Sequence[str]
) -> Call[Page]:
    """GET /v1/trending."""
    parameters = {"window": window, "limit": limit, "offset": offset, "category": list(category) or None}
    return Call("GET", "/v1/trending", Page, parameters=parameters)


def release() -> Call[ReleaseView]:
    """GET /v1/release."""
    return Call("GET", "/v1/release", ReleaseView)


def releases() -> Call[ReleasesView]:
    """GET /v1/releases."""
    return Call("GET", "/v1/releases", ReleasesView)


def pipeline() -> Call[PipelineView]:
    """GET /v1/pipeline."""
    return Call("GET", "/v1/pipeline", PipelineView)


def recent(user_id: str) -> Call[RecentView]:
    """GET /v1/users/{user_id}/recent."""
    return Call("GET", f"/v1/users/{quote(user_id, safe='')}/recent", RecentView)


def places(item_ids: Sequence[str]) -> Call[MapView]:
    """POST /v1/map."""
    return Call("POST", "/v1/map", MapView, _sent(MapRequest(item_ids=list(item_ids))))


#: GET /v1/updates: an endless answer, which is silent for 15 s at most.
UPDATES = "/v1/updates"
SILENCE_SECONDS = 60.0


def told(line: str) -> UpdatesView | None:
    """The message that a line of the stream carries, if it carries one."""
    return UpdatesView.model_validate_json(line[6:]) if line.startswith("data: ") else None


def posts(path: str, events: Sequence[Frozen]) -> Iterator[Call[Published]]:
    """POST to `path`, as many events at a time as it takes."""
    for start in range(0, len(events), MAX_EVENTS):
        part = [
            event.model_dump(mode="json", exclude_none=True) for event in events[start : start + MAX_EVENTS]
        ]
        yield Call("POST", path, Published, part)


def _sent(request: BaseModel, limit: int | None = None) -> Any:
    """The fields that the caller set: what is left out is the service's to fill in."""
    body = request.model_dump(mode="json", exclude_unset=True)
    return body if limit is None else {**body, "limit": limit}
