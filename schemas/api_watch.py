"""Bodies of the routes that watch: changes as they arrive, the pipeline, releases, a shopper's recent items,
and a neighbourhood as a map.

Reads, writes: nothing.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field

from schemas.api import MAX_LIMIT, HitItem, Strict
from schemas.events import Frozen, UserEventType
from schemas.fields import Id
from schemas.releases import Verdict
from schemas.rollouts import RolloutState


class UpdateView(Frozen):
    """A change that the live index now shows, as GET /v1/updates sends it.

    `title` is null where the item has left the catalogue. `freshness_ms` is from the event to searchable.
    """

    item_id: str
    title: str | None = None
    dimensions: list[str]
    encoder_calls: int
    deleted: bool
    revision: int | None = None
    occurred_at: AwareDatetime
    searchable_at: AwareDatetime
    freshness_ms: float


class UpdatesView(Frozen):
    """A message of GET /v1/updates, the newest change last; `passed_over` counts those left out of it."""

    updates: list[UpdateView]
    passed_over: int = 0


class FreshnessView(Frozen):
    """How long changes took from the event to searchable, in milliseconds; null without any.

    `name` is `text` for changes that ran the encoder, `other` for the rest, and `all`.
    """

    name: str
    updates: int
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class ConsumerView(Frozen):
    """One consumer on one topic, as this process and its children count: since they started."""

    consumer: str
    topic: str
    lag_records: int | None = None
    records: int
    dead_letters: int


class DeadLetterView(Frozen):
    """A record that could not be applied, and why. Neither its key nor its value: they may name a shopper."""

    identity: str
    topic: str
    error: str
    died_at: str
    redriven: bool


class PipelineView(Frozen):
    """GET /v1/pipeline. `notes` says what cannot be seen from here."""

    freshness: list[FreshnessView]
    #: Over how many seconds the changes behind `freshness` reach back.
    window_seconds: float
    encoder_calls: int
    consumers: list[ConsumerView]
    dead_letters: list[DeadLetterView]
    notes: list[str] = []


class ReleaseRecord(Frozen):
    """One release, or a collection of it: where it stands, and what the gate said of it."""

    release_id: str
    collection: str | None = None
    #: Null for a release that lies in the folder and has no collection.
    state: RolloutState | None = None
    live: bool = False
    #: Whether a query may name it (`release_id`): its collection is there.
    searchable: bool = False
    since: AwareDatetime | None = None
    reason: str = ""
    model: str | None = None
    parent: str | None = None
    created_at: AwareDatetime | None = None
    verdict: Verdict | None = None


class ReleasesView(Frozen):
    """GET /v1/releases, the newest first."""

    releases: list[ReleaseRecord]
    notes: list[str] = []


class RecentItem(Frozen):
    """The newest thing that a shopper did with an item; `item` is null where the index does not show it."""

    item_id: str
    type: UserEventType
    at: AwareDatetime
    bought: bool
    item: HitItem | None = None


class RecentView(Frozen):
    """GET /v1/users/{user_id}/recent, the newest first."""

    items: list[RecentItem]


class MapRequest(Strict):
    """POST /v1/map: items to place on a plane by what they mean."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"item_ids": ["B00X", "B00Y"]}]},
    )

    item_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_LIMIT + 50)]
    #: Of the collection of this release instead of the live one.
    release_id: Id | None = None


class Place(Frozen):
    """Where an item lies, -1 to 1 on both axes."""

    item_id: str
    x: float
    y: float


class MapView(Frozen):
    """Items without a content vector have no place. `shown` is how much of the variance the plane shows."""

    places: list[Place]
    shown: float
    release_id: str
    took_ms: float
