"""User events become the training archive: read on from its files' end, bounded, forgetful.

Reads   user.events, from the archive's own positions, without a group
Writes  the archive's files (adapters/archive.py)
Never   keeps a user id, an impression, or an event that its shopper asked to be forgotten

1. read     from the largest end among the files to the end of the topic
2. write    one file per partition and `file_records`, named by its offsets
3. erase    rows of shoppers in user.erasures (products that are gone are left out of training alone)
4. fold     what has left the window, into a sample: so many shoppers of each category and period
5. merge    small files of a partition into larger ones, so that their number does not grow with the rounds

Time is the reader's: an event that says it happened later than that is dated back, and no event moves the
window beyond it. Else one producer whose clock is a year ahead would empty the window for a year.

Of a shopper who stays, everything of that period stays, for pairs are made of sessions. Those kept of a cell
are the ones with the smallest keyed hashes, so a sample of a sample is a sample, whenever it was folded.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from adapters.archive import Archive
from adapters.kafka import Record
from consumers.archive_settings import ArchiveSettings
from consumers.erasures import Erasures, erasure_key
from schemas.events import UserEvent
from schemas.parsing import InvalidEvent, parse_event

log = logging.getLogger(__name__)

DAY_MS = 24 * 60 * 60 * 1000
#: So much may a clock be ahead of the broker's, or of the reader's.
AHEAD_MS = 5 * 60 * 1000
#: The archive keeps 32 bits of a position.
_LAST_POSITION = 2**31 - 1

#: Top level of each product's category; no entry for a product that is gone.
Categories = Callable[[Sequence[str]], Mapping[str, str]]


class Log(Protocol):
    """A topic to read on from given offsets to its present end."""

    topic_id: str

    def read_on(self, ends: Mapping[int, int]) -> Iterable[Record]:
        """Records from each partition's offset on; a partition that is not named from its beginning."""
        ...


class Followed(NamedTuple):
    """What one round did, in rows of the archive."""

    records: int
    added: int
    unreadable: int
    erased: int
    folded: int


class Archiver:
    """Brings an archive up to the end of the topic. `now` is the clock that events are held to."""

    def __init__(
        self,
        *,
        archive: Archive,
        settings: ArchiveSettings,
        erasures: Erasures,
        erasures_key: bytes,
        categories: Categories,
        good_rating: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._archive = archive
        self._settings = settings
        self._erasures = erasures
        self._key = erasures_key
        self._categories = categories
        self._good_rating = good_rating
        self._now = now

    def run(self, log_: Log) -> Followed:
        """Read, write, erase, fold. Raises Halt when another process writes the archive, or Transient."""
        with self._archive.locked():
            records, added, unreadable = self._read(log_)
            erased = self._archive.erase(lambda table: kept_rows(table, self._erasures))
            folded = self._fold(self._now_ms())
            merged = self._archive.merge(most_rows=self._settings.file_records)
        log.info(
            "archive_followed records=%d added=%d unreadable=%d erased=%d folded=%d merged=%d",
            records,
            added,
            unreadable,
            erased,
            folded,
            merged,
        )
        return Followed(records, added, unreadable, erased, folded)

    def _read(self, log_: Log) -> tuple[int, int, int]:
        starts = self._archive.ends(log_.topic_id)
        waiting: dict[int, list[dict[str, Any]]] = defaultdict(list)
        first: dict[int, int] = {}
        next_offset: dict[int, int] = {}
        counted: dict[int, int] = defaultdict(int)
        records = added = unreadable = 0
        for record in log_.read_on(starts):
            number = record.partition
            if record.offset < starts.get(number, 0):
                continue
            first.setdefault(number, starts.get(number, record.offset))
            next_offset[number] = record.offset + 1
            counted[number] += 1
            records += 1
            try:
                row = self._row(record)
            except InvalidEvent:
                # The behaviour consumer reads the same record and dead-letters it.
                unreadable += 1
                row = None
            if row is not None:
                waiting[number].append(row)
                added += 1
            if counted[number] >= self._settings.file_records:
                rows = waiting.pop(number, [])
                self._write(log_.topic_id, number, first.pop(number), next_offset[number], rows)
                starts[number], counted[number] = next_offset[number], 0
        for number, start in first.items():
            self._write(log_.topic_id, number, start, next_offset[number], waiting.get(number, []))
        return records, added, unreadable

    def _row(self, record: Record) -> dict[str, Any] | None:
        """The record as a row, None for what is not learned from. Raises InvalidEvent."""
        if record.value is None:
            return None
        event = parse_event(record.value, UserEvent)
        at_ms = min(round(event.occurred_at.timestamp() * 1000), self._now_ms() + AHEAD_MS)
        if record.timestamp_ms > 0:
            at_ms = min(at_ms, record.timestamp_ms + AHEAD_MS)
        if event.type == "impression":
            return None
        if event.type == "rate" and (event.value is None or event.value < self._good_rating):
            return None
        name = erasure_key(event.user_id, self._key)
        if self._erasures.covers_name(name, at_ms / 1000):
            return None
        return {
            "shopper": name,
            # Sessions are told apart, not known: a shop's session id may lead to a shopper.
            "session": erasure_key(event.session_id, self._key)[:16] if event.session_id else None,
            "product": event.product_id,
            "category": "",
            "type": event.type,
            "at_ms": at_ms,
            "position": None if event.position is None else min(event.position, _LAST_POSITION),
            "query": event.query,
            "offset": record.offset,
        }

    def _write(self, topic_id: str, number: int, start: int, end: int, rows: list[dict[str, Any]]) -> None:
        found = self._categories(sorted({row["product"] for row in rows})) if rows else {}
        for row in rows:
            row["category"] = found.get(row["product"], "")
        self._archive.write(rows, part=(topic_id, number, start, end))

    def _fold(self, now_ms: int) -> int:
        rows, latest_ms = self._archive.extent()
        if latest_ms is None:
            return 0
        # An archive of an earlier version may hold a later event.
        before = min(latest_ms, now_ms) - round(self._settings.window_days * DAY_MS)
        most = self._settings.window_events
        if rows > most:
            times = np.minimum(self._archive.recent()["at_ms"].to_numpy(), now_ms)
            if len(times) > most:
                before = max(before, int(np.partition(times, -most)[-most]))
        if self._archive.uncover(before_ms=before, latest_ms=now_ms + AHEAD_MS):
            log.warning("archive_window_brought_back before_ms=%d", before)
        return self._archive.fold(before_ms=before, reduce=self._sampled)

    def _now_ms(self) -> int:
        return round(self._now().timestamp() * 1000)

    def _sampled(self, table: pa.Table) -> pa.Table:
        """All that the shoppers with the smallest hashes of each category and period did in that period."""
        shoppers, categories = table["shopper"].to_pylist(), table["category"].to_pylist()
        periods = (table["at_ms"].to_numpy() // round(self._settings.period_days * DAY_MS)).tolist()
        cells: dict[tuple[str, int], set[str]] = defaultdict(set)
        for shopper, category, period in zip(shoppers, categories, periods, strict=True):
            cells[category, period].add(shopper)
        # Their names are keyed hashes already: any order of them is as good as drawn.
        chosen = {
            (shopper, period)
            for (_, period), members in cells.items()
            for shopper in sorted(members)[: self._settings.shoppers_per_cell]
        }
        return table.filter(
            pa.array([one in chosen for one in zip(shoppers, periods, strict=True)], pa.bool_())
        )


def kept_rows(table: pa.Table, erasures: Erasures) -> pa.Array:
    """Marks rows whose shopper has not asked to be forgotten since."""
    names, times = table["shopper"].to_pylist(), table["at_ms"].to_pylist()
    return pa.array(
        [not erasures.covers_name(name, at / 1000) for name, at in zip(names, times, strict=True)],
        type=pa.bool_(),
    )
