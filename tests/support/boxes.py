"""Doubles of what the service is handed for relations and reports: nothing mined yet, a queue with room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from schemas.relations import Known, Mined, Run
from schemas.reports import Report, ReportRequest


class NothingMined:
    """Implements schemas.relations.RelationReader: no run yet."""

    def of(self, product_id: str) -> Known:
        """See the protocol."""
        return Known(None, None)

    def of_all(self, product_ids: Sequence[str]) -> tuple[Run | None, Mapping[str, Mined]]:
        """See the protocol."""
        return None, {}


class OpenBox:
    """Implements schemas.reports.ReportBox: takes everything and keeps nothing."""

    def add(self, request: ReportRequest, *, reporter: str | None, now: datetime) -> Report | None:
        """See the protocol."""
        return Report(report_id="r", first_at=now, last_at=now, **request.model_dump())
