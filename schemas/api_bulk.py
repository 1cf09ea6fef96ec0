"""Bodies of the API that carry many: batches of queries, events for producers without Kafka.

Reads, writes: nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field

from schemas.api import Answer, Problem, SimilarRequest, Strict
from schemas.events import (
    Frozen,
    ProductDeleted,
    ProductUpserted,
    ReviewPosted,
    ReviewRemoved,
    UserEvent,
)

#: Queries in one batch, and events in one post.
MAX_QUERIES = 32
MAX_EVENTS = 500

Event = TypeVar("Event")


class SimilarBatch(Strict):
    """POST /v1/similar/batch: many lists of seeds in one call, each answered as if it had come alone."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "queries": [
                        {"seeds": [{"item_id": "B00X"}], "limit": 5},
                        {"seeds": [{"item_id": "B00Y"}, {"item_id": "B00Z", "weight": -0.3}]},
                    ]
                }
            ]
        },
    )

    queries: Annotated[list[SimilarRequest], Field(min_length=1, max_length=MAX_QUERIES)]


class BatchEntry(Frozen):
    """What became of one query: its answer, or the problem that it alone would have been answered with."""

    answer: Answer | None = None
    problem: Problem | None = None


class BatchAnswer(Frozen):
    """One entry for each query, in their order. A missing store fails the whole batch (503) instead."""

    answers: list[BatchEntry]
    took_ms: float


class Published(Frozen):
    """Every event of the post is on the topic: the broker has acknowledged `acknowledged` of them."""

    acknowledged: int


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


_UserEvents = Annotated[list[UserEvent], Field(min_length=1, max_length=MAX_EVENTS)]
#: One event, or a list of them.
UserEvents = Annotated[_UserEvents, BeforeValidator(_listed, json_schema_input_type=UserEvent | _UserEvents)]

_ProductEvent = Annotated[ProductUpserted | ProductDeleted, Field(discriminator="kind")]
_ProductEvents = Annotated[list[_ProductEvent], Field(min_length=1, max_length=MAX_EVENTS)]
ProductEvents = Annotated[
    _ProductEvents, BeforeValidator(_listed, json_schema_input_type=_ProductEvent | _ProductEvents)
]

_ReviewEvent = Annotated[ReviewPosted | ReviewRemoved, Field(discriminator="kind")]
_ReviewEvents = Annotated[list[_ReviewEvent], Field(min_length=1, max_length=MAX_EVENTS)]
ReviewEvents = Annotated[
    _ReviewEvents, BeforeValidator(_listed, json_schema_input_type=_ReviewEvent | _ReviewEvents)
]
