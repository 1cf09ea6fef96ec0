"""Every call of the API as data: what is sent, and what comes back. Shared by both clients; opens nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from client.errors import BY_STATUS, ApiError, Unreachable
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
from schemas.api_watch import MapRequest, MapView, PipelineView, RecentView, ReleasesView
from schemas.behaviour import Window
from schemas.events import Frozen
from schemas.insights import PriceView, RelationsView
from schemas.reports import Reported, ReportRequest

Returned = TypeVar("Returned", bound=BaseModel)
#: Events of one post, as JSON: half of what the service takes where nobody has set it otherwise
#: (SIMSTREAM_SERVICE__MAX_BODY_BYTES).
POST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Call(Generic[Returned]):
    """One request. `body` is JSON, of bytes as they are; of `parameters` those that are None are left out.

    `repeatable`: arriving twice, it counts once.
    """

    method: str
    path: str
    returns: type[Returned]
    body: Any = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    repeatable: bool = True

    def arguments(self) -> dict[str, Any]:
        """For httpx."""
        given = {name: value for name, value in self.parameters.items() if value is not None}
        found: dict[str, Any] = {"params": given} if given else {}
        if isinstance(self.body, bytes):
            found["content"], found["headers"] = self.body, {"Content-Type": "application/json"}
        elif self.body is not None:
            found["json"] = self.body
        return found

    def parsed(self, response: httpx.Response) -> Returned:
        """The answer. Raises ApiError for anything else, a success of somebody in between included."""
        if not response.is_success:
            raise problem_of(response)
        try:
            return self.returns.model_validate_json(response.content)
        except ValidationError as error:
            raise problem_of(response) from error


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


def unreachable(url: httpx.URL, error: httpx.TransportError) -> Unreachable:
    """No answer from the service at `url`, as its exception."""
    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return Unreachable(f"no answer from {url}: {error!r}", sent=not unsent)


def headers_of(key: str | None) -> dict[str, str]:
    """What is sent with every request."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def item(item_id: str) -> Call[ItemView]:
    """GET /v1/items/{item_id}."""
    return Call("GET", f"/v1/items/{quote(item_id, safe='')}", ItemView)


def price(item_id: str) -> Call[PriceView]:
    """GET /v1/items/{item_id}/price."""
    return Call("GET", f"/v1/items/{quote(item_id, safe='')}/price", PriceView)


def report(request: ReportRequest) -> Call[Reported]:
    """POST /v1/reports."""
    return Call("POST", "/v1/reports", Reported, _sent(request), repeatable=False)


def relations(item_id: str, limit: int | None) -> Call[RelationsView]:
    """GET /v1/items/{item_id}/relations."""
    asked = "" if limit is None else f"?limit={limit}"
    return Call("GET", f"/v1/items/{quote(item_id, safe='')}/relations{asked}", RelationsView)


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
    if unknown := sorted(set(kept) & {"price", "price_ratio", "attributes", "opinions"}):
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


def posts(path: str, events: Iterable[Frozen]) -> Iterator[Call[Published]]:
    """POST to `path`, as many events at a time as it takes, by number and by bytes.

    An event that is larger alone is sent alone: the service says what it takes.
    """
    part: list[bytes] = []
    size = 0
    for event in events:
        # Not through `json`: what is counted is what is sent.
        body = event.model_dump_json(exclude_none=True).encode()
        if part and (len(part) == MAX_EVENTS or size + len(body) > POST_BYTES):
            yield _post(path, part)
            part, size = [], 0
        part.append(body)
        size += len(body) + 1
    if part:
        yield _post(path, part)


def _post(path: str, events: Sequence[bytes]) -> Call[Published]:
    return Call("POST", path, Published, b"[" + b",".join(events) + b"]")


def _sent(request: BaseModel, limit: int | None = None) -> Any:
    """The fields that the caller set: what is left out is the service's to fill in."""
    body = request.model_dump(mode="json", exclude_unset=True)
    return body if limit is None else {**body, "limit": limit}
