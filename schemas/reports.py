"""What people report about answers: bodies of the API, and the review queue.

adapters/redis_reports.py implements `ReportBox`; the service is handed one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Protocol, Self

from pydantic import Field, model_validator

from schemas.api import Strict
from schemas.events import Frozen

ReportReason = Literal["not_similar", "harmful"]
ReportStatus = Literal["pending", "approved", "rejected"]
ItemName = Annotated[str, Field(min_length=1, max_length=256)]
#: What is kept of those who reported the same.
MOST_REPORTERS = 20


class ReportRequest(Strict):
    """POST /v1/reports: `item_id` was shown for `seed` and should not have been, or should not be at all."""

    seed: ItemName | None = None
    item_id: ItemName
    reason: ReportReason
    note: Annotated[str, Field(max_length=500)] = ""

    @model_validator(mode="after")
    def _of_a_pair(self) -> Self:
        if self.reason == "not_similar" and self.seed is None:
            raise ValueError("'not_similar' is said of two items: name the 'seed' as well")
        if self.seed == self.item_id:
            raise ValueError("'seed' and 'item_id' are the same item")
        return self


class Reported(Frozen):
    """What has become of a report: the same of the same pair is one, and `reports` counts."""

    report_id: str
    status: ReportStatus
    reports: int


class Report(Frozen):
    """One entry of the review queue. `reporters` are the names of the API keys that it came with."""

    report_id: str
    seed: str | None
    item_id: str
    reason: ReportReason
    note: str = ""
    status: ReportStatus = "pending"
    reports: int = 1
    reporters: tuple[str, ...] = ()
    first_at: datetime
    last_at: datetime
    decided_at: datetime | None = None


class ReportBox(Protocol):
    """Takes reports. Raises Transient when the store is away."""

    def add(self, request: ReportRequest, *, reporter: str | None, now: datetime) -> Report | None:
        """The entry as it stands then; None where the queue is full and this would be a new one."""
        ...
