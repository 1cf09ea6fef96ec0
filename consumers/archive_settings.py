"""How much of the stream the trainer keeps. Apart from consumers/archive.py, which needs Parquet."""

from __future__ import annotations

from pydantic import Field

from schemas.events import Frozen


class ArchiveSettings(Frozen):
    """How much the trainer keeps.

    `shoppers_per_cell` bounds the sample of the past: so many shoppers of each category and `period_days`. A
    window of more than `window_events` is cut at its older end.
    """

    folder: str = "./var/archive"
    window_days: float = Field(default=28.0, gt=0)
    window_events: int = Field(default=2_000_000, ge=1)
    period_days: float = Field(default=28.0, gt=0)
    shoppers_per_cell: int = Field(default=200, ge=1)
    file_records: int = Field(default=100_000, ge=1)
