"""The client for event loops; client/synchronous.py says what each method does.

Reads, writes  the service's HTTP API
Never          logs or shows the key
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

import httpx

from client import calls, updates
from client.calls import Call, Returned
from client.errors import ApiError, Unreachable
from client.retries import Retries
from schemas.api import (
    Answer,
    Filter,
    ItemView,
    Page,
    PresetName,
    ReleaseView,
    SearchRequest,
    SimilarRequest,
    Weights,
)
from schemas.api_bulk import BatchAnswer
from schemas.api_watch import MapView, PipelineView, RecentView, ReleasesView, UpdatesView
from schemas.behaviour import Window
from schemas.events import (
    Frozen,
    ProductDeleted,
    ProductUpserted,
    ReviewPosted,
    ReviewRemoved,
    UserEvent,
)
from schemas.insights import PriceView, RelationsView
from schemas.reports import Reported, ReportRequest


class AsyncSimstream:
    """A service's API. An async context manager that closes its connections.

    Every method raises a subclass of ApiError for what the service refuses, and Unreachable where nobody
    answers, after `retries`.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_seconds: float = 30.0,
        retries: Retries | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=url, timeout=timeout_seconds, headers=calls.headers_of(key), transport=transport
        )
        self._timeout_seconds = timeout_seconds
        self._retries = retries or Retries()
        self._sleep = sleep

    async def item(self, item_id: str) -> ItemView:
        """An item and how fresh it is."""
        return await self._answered(calls.item(item_id))

    async def price(self, item_id: str) -> PriceView:
        """Where an item's price stands among comparable ones, and the evidence."""
        return await self._answered(calls.price(item_id))

    async def report(self, report: ReportRequest) -> Reported:
        """Say that an answer is not similar to its seed, or harmful, for people to review."""
        return await self._answered(calls.report(report))

    async def relations(self, item_id: str, *, limit: int | None = None) -> RelationsView:
        """What goes with an item, and what could be bought instead: at most `limit` of each kind."""
        return await self._answered(calls.relations(item_id, limit))

    async def similar(self, request: SimilarRequest | str, *, limit: int | None = None) -> Answer:
        """Neighbours of seeds, or of the item with that id."""
        return await self._answered(calls.similar(request, limit))

    async def similar_batch(self, requests: Sequence[SimilarRequest]) -> BatchAnswer:
        """Neighbours of many lists of seeds; what is wrong with one stands in its entry."""
        return await self._answered(calls.similar_batch(requests))

    async def search(self, request: SearchRequest | str, *, limit: int | None = None) -> Answer:
        """Items that a text describes."""
        return await self._answered(calls.search(request, limit))

    async def recommendations(
        self,
        user_id: str,
        *,
        limit: int | None = None,
        preset: PresetName | None = None,
        weights: Weights | None = None,
        filter: Filter | None = None,
        include_bought: bool = False,
    ) -> Answer:
        """Items for a shopper. Raises ValueError for a filter that these cannot have."""
        return await self._answered(
            calls.recommendations(
                user_id,
                limit=limit,
                preset=preset,
                weights=weights,
                filter=filter,
                include_bought=include_bought,
            )
        )

    async def trending(
        self,
        window: Window | None = None,
        *,
        limit: int | None = None,
        offset: int | None = None,
        category: Sequence[str] = (),
    ) -> Page:
        """A page of the items with the most shoppers; `next_offset` of the answer asks for the next."""
        return await self._answered(calls.trending(window, limit=limit, offset=offset, category=category))

    async def release(self) -> ReleaseView:
        """The live release."""
        return await self._answered(calls.release())

    async def releases(self) -> ReleasesView:
        """Every release: where it stands, and what the gate said of it."""
        return await self._answered(calls.releases())

    async def pipeline(self) -> PipelineView:
        """Freshness, lag, dead letters with their reasons."""
        return await self._answered(calls.pipeline())

    async def recent(self, user_id: str) -> RecentView:
        """The recent items that a shopper's recommendations start from."""
        return await self._answered(calls.recent(user_id))

    async def map(self, item_ids: Sequence[str]) -> MapView:
        """Items on a plane by their content."""
        return await self._answered(calls.places(item_ids))

    async def updates(self) -> AsyncIterator[UpdatesView]:
        """Changes as the live index takes them, from now on, until the service ends or nobody reads on.

        Nothing is tried again: who was cut off has missed changes, and asks anew for what it shows.
        """
        try:
            timeout = httpx.Timeout(self._timeout_seconds, read=updates.SILENCE_SECONDS)
            async with self._http.stream("GET", updates.UPDATES, timeout=timeout) as response:
                if not response.is_success:
                    await response.aread()
                    raise calls.problem_of(response)
                messages = updates.Messages()
                async for chunk in response.aiter_bytes():
                    for message in messages.heard(chunk):
                        yield message
        except httpx.TransportError as error:
            raise calls.unreachable(self._http.base_url, error) from error

    async def publish_events(self, events: Sequence[UserEvent]) -> int:
        """Post what shoppers did; how many events the broker has acknowledged: all of them.

        Many are posted in parts. Where one part is refused, those before it stand: post all of them again.
        """
        return await self._published("/v1/events", events)

    async def publish_products(self, events: Sequence[ProductUpserted | ProductDeleted]) -> int:
        """Post products; the same."""
        return await self._published("/v1/products", events)

    async def publish_reviews(self, events: Sequence[ReviewPosted | ReviewRemoved]) -> int:
        """Post reviews; the same."""
        return await self._published("/v1/reviews", events)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncSimstream({str(self._http.base_url)!r})"

    async def _published(self, path: str, events: Sequence[Frozen]) -> int:
        return sum([(await self._answered(call)).acknowledged for call in calls.posts(path, events)])

    async def _answered(self, call: Call[Returned]) -> Returned:
        attempt = 0
        while True:
            attempt += 1
            try:
                return call.parsed(await self._requested(call))
            except (ApiError, Unreachable) as error:
                wait = self._retries.wait_seconds(attempt, error, repeatable=call.repeatable)
                if wait is None:
                    raise
            await self._sleep(wait)

    async def _requested(self, call: Call[Returned]) -> httpx.Response:
        try:
            return await self._http.request(call.method, call.path, **call.arguments())
        except httpx.TransportError as error:
            raise calls.unreachable(self._http.base_url, error) from error
