"""Settings of the query API: where it listens, and the one default configuration of a fused query."""

from __future__ import annotations

from pydantic import Field, field_validator

from schemas.api import DimensionName
from schemas.events import Frozen
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
    #: What the Bayesian mean of an item's rating is drawn towards.
    rating_prior: RatingPrior = RatingPrior()
    #: Candidates that each dimension proposes.
    candidates: int = Field(default=100, ge=10, le=5_000)
    #: The best candidates whose scores are then computed exactly in every dimension.
    rescored: int = Field(default=50, ge=10, le=1_000)
    #: Requests served at the same time; the index works outside the interpreter's lock.
    threads: int = Field(default=16, ge=1, le=256)
    max_body_bytes: int = Field(default=2 * 1024 * 1024, ge=1024)
    #: What a client is told to wait when a store is away.
    retry_after_seconds: int = Field(default=2, ge=1)
    #: How long a command waits for the service's answer.
    client_timeout_seconds: float = Field(default=30.0, gt=0)

    @field_validator("weights")
    @classmethod
    def _some_weight(cls, weights: dict[DimensionName, float]) -> dict[DimensionName, float]:
        if not any(weight > 0 for weight in weights.values()):
            raise ValueError("at least one dimension needs a weight above 0")
        return weights
