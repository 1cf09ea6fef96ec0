"""Settings of the query API: where it listens, and the one default configuration of a fused query."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from schemas.api import MAX_SEEDS, DimensionName
from schemas.behaviour import Window
from schemas.events import Frozen, UserEventType
from schemas.items import RatingPrior


class ServiceSettings(Frozen):
    """The service and its default weights. The weights were chosen by benchmarks/matching.py."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    #: Where commands find a running service; None: the `stack.json` of the data folder, else host and port.
    url: str | None = None
    #: What a query weighs when it does not say.
    weights: dict[DimensionName, float] = {
        "content": 1.0,
        "lexical": 1.5,
        "reviews": 0.5,
        "behaviour": 1.0,
    }
    #: The same for a shopper's recommendations: what comes next is told by who else was here, the words help.
    recommendation_weights: dict[DimensionName, float] = {
        "content": 0.1,
        "lexical": 0.1,
        "behaviour": 1.0,
    }
    #: What the Bayesian mean of an item's rating is drawn towards.
    rating_prior: RatingPrior = RatingPrior()
    #: Candidates that each dimension proposes.
    candidates: int = Field(default=100, ge=10, le=5_000)
    #: The best candidates whose scores are then computed exactly in every dimension.
    rescored: int = Field(default=50, ge=10, le=1_000)
    #: Shoppers of the seeds at which behaviour counts half of its weight: n / (n + this).
    evidence_shoppers: float = Field(default=5.0, gt=0)
    #: Half-life of seeds that say when they were, unless the request says one.
    half_life_seconds: float = Field(default=86_400.0, gt=0)
    #: How long an item takes to lose half of what `freshness` takes from old ones.
    freshness_half_life_days: float = Field(default=14.0, gt=0)
    #: A shopper's recent items that recommendations start from; each weighs this much of the next newer one.
    recent_items: int = Field(default=10, ge=1, le=MAX_SEEDS)
    recent_decay: float = Field(default=0.7, gt=0, le=1)
    #: What a recent item weighs by what was last done with it (1 where not named); 0 leaves it out.
    event_weights: dict[UserEventType, float] = {
        "view": 1.0,
        "click": 1.0,
        "share": 2.0,
        "rate": 2.0,
        "cart": 3.0,
        "purchase": 4.0,
        "impression": 0.0,
    }
    #: What a shopper without recent items is shown; how many trending items are read to find those wanted.
    cold_window: Window = "7d"
    trending_read: int = Field(default=1_000, ge=10, le=100_000)
    #: Texts whose cosine reaches this are of the same kind of thing: so what is compared is told from what
    #: goes together (docs/relations.md). Items on one shelf are in any case.
    alike: float = Field(default=0.6, ge=-1, le=1)
    #: Whether the presets `substitutes` and `complements` use what was mined of baskets and visits.
    preset_relations: bool = True
    #: Requests served at the same time; the index works outside the interpreter's lock.
    threads: int = Field(default=16, ge=1, le=256)
    max_body_bytes: int = Field(default=2 * 1024 * 1024, ge=1024)
    #: Requests in hand, waiting ones included, and open connections: beyond, a client is told to come back.
    concurrent: int = Field(default=256, ge=1)
    connections: int = Field(default=2_000, ge=1)
    #: Streams of changes (GET /v1/updates) open at a time.
    listeners: int = Field(default=32, ge=1)
    #: Where the explorer may load product pictures from (`https://img.example.com`); by default nowhere, and
    #: it draws them.
    image_origins: tuple[str, ...] = ()
    #: How long a head, a body, an answer and the reading of an answer may take. An answer's work goes on
    #: behind its back until the stores' own timeouts end it, and keeps its thread.
    header_seconds: float = Field(default=10.0, gt=0)
    body_seconds: float = Field(default=30.0, gt=0)
    answer_seconds: float = Field(default=30.0, gt=0)
    write_seconds: float = Field(default=30.0, gt=0)
    #: Events that are posted: how long their acknowledgement is waited for, and how much may wait for one.
    publish_seconds: float = Field(default=5.0, gt=0)
    publish_pending_records: int = Field(default=10_000, ge=500)
    publish_pending_bytes: int = Field(default=32 * 1024 * 1024, ge=2 * 1024 * 1024)
    #: What a client is told to wait when a store is away.
    retry_after_seconds: int = Field(default=2, ge=1)
    #: How long a command waits for the service's answer.
    client_timeout_seconds: float = Field(default=30.0, gt=0)

    @field_validator("image_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if re.fullmatch(r"https?://[A-Za-z0-9.*-]+(:[0-9]+)?", origin) is None:
                raise ValueError("an origin is a scheme and a host, such as https://img.example.com")
        return origins

    @field_validator("event_weights")
    @classmethod
    def _no_negative(cls, weights: dict[UserEventType, float]) -> dict[UserEventType, float]:
        if any(weight < 0 for weight in weights.values()):
            raise ValueError("a weight below 0 would recommend the opposite; use 0 to leave an event out")
        return weights

    @field_validator("weights", "recommendation_weights")
    @classmethod
    def _some_weight(cls, weights: dict[DimensionName, float]) -> dict[DimensionName, float]:
        if not any(weight > 0 for weight in weights.values()):
            raise ValueError("at least one dimension needs a weight above 0")
        return weights
