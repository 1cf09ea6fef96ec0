"""What the watching routes answer: freshness and counts of the pipeline, releases, changes with titles.

Reads   the index (titles, the alias), this process's metrics; dead letters and releases as app/ hands them in
Writes  nothing
Never   shows a key or a value of a dead letter
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from adapters.index_port import release_of
from schemas.api_watch import (
    ConsumerView,
    DeadLetterView,
    FreshnessView,
    PipelineView,
    ReleaseRecord,
    ReleasesView,
    UpdatesView,
    UpdateView,
)
from schemas.errors import Halt, Transient
from schemas.events import ItemUpdated
from service.catalogue import Catalogue
from service.feed import UpdateFeed
from service.timing import INDEX, Timings

#: Reading a topic takes a while, and nobody looks more often.
LETTERS_SECONDS = 10.0
#: Changes in one message of the stream.
AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Watched:
    """Where this process can look beyond the index; None: it cannot."""

    feed: UpdateFeed | None = None
    dead_letters: Callable[[], Sequence[DeadLetterView]] | None = None
    releases: Callable[[], Sequence[ReleaseRecord]] | None = None

    def close(self) -> None:
        """End what runs."""
        if self.feed is not None:
            self.feed.close()


@dataclass
class _Letters:
    until: float = 0.0
    found: Sequence[DeadLetterView] = ()
    note: str | None = field(default=None)


class Watching:
    """Answers of GET /v1/updates, /v1/pipeline and /v1/releases."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        registry: CollectorRegistry,
        watched: Watched,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalogue = catalogue
        self._registry = registry
        self._watched = watched
        self._monotonic = monotonic
        self._letters = _Letters()

    def described(self, updates: Sequence[ItemUpdated], passed_over: int) -> UpdatesView:
        """The changes of the live collection with the titles of their items. Raises Unavailable."""
        timings = Timings()
        live = self._catalogue.target(None, timings).collection
        mine = [update for update in updates if update.collection == live]
        shown = mine[-AT_ONCE:]
        with timings.asking(INDEX):
            points = self._catalogue.index.fetch(
                live, list({update.product_id for update in shown}), vectors=False
            )
        titles = {name: point.payload.get("title") for name, point in points.items()}
        return UpdatesView(
            updates=[_view(update, titles.get(update.product_id)) for update in shown],
            passed_over=passed_over + len(mine) - len(shown),
        )

    def pipeline(self, timings: Timings) -> PipelineView:
        """Freshness, consumers, dead letters."""
        feed, notes = self._watched.feed, []
        updates = feed.recent() if feed is not None else []
        if feed is None:
            notes.append("this service was started without a broker: changes and dead letters are not seen")
        elif feed.away is not None:
            notes.append(f"changes cannot be followed at present: {feed.away}")
        letters = self._dead_letters()
        if letters.note is not None:
            notes.append(letters.note)
        consumers = self._consumers()
        if not consumers:
            notes.append("consumers run in other processes: Prometheus knows their lag")
        ages = [update.stages.searchable_at for update in updates]
        return PipelineView(
            freshness=_freshness(updates),
            window_seconds=round((max(ages) - min(ages)).total_seconds(), 1) if ages else 0.0,
            encoder_calls=sum(update.encoder_calls for update in updates),
            consumers=consumers,
            dead_letters=list(letters.found),
            notes=notes,
        )

    def releases(self, timings: Timings) -> ReleasesView:
        """Every release that is known here, the live one marked by the alias alone."""
        live = self._catalogue.target(None, timings).collection
        with timings.asking(INDEX):
            there = set(self._catalogue.index.collections())
        records: list[ReleaseRecord] = []
        notes: list[str] = []
        if self._watched.releases is not None:
            try:
                records = list(self._watched.releases())
            except (Transient, Halt) as error:
                notes.append(f"records of releases cannot be read at present: {error}")
        if not any(record.collection == live for record in records):
            records.append(ReleaseRecord(release_id=release_of(live), collection=live))
        marked = [
            record.model_copy(
                update={"live": record.collection == live, "searchable": record.collection in there}
            )
            for record in records
        ]
        marked.sort(key=lambda one: (one.live, one.since.timestamp() if one.since else 0.0), reverse=True)
        return ReleasesView(releases=marked, notes=notes)

    def _dead_letters(self) -> _Letters:
        if self._watched.dead_letters is not None and self._monotonic() >= self._letters.until:
            until = self._monotonic() + LETTERS_SECONDS
            try:
                self._letters = _Letters(until, self._watched.dead_letters())
            except (Transient, Halt) as error:
                note = f"dead letters cannot be read at present: {error}"
                self._letters = _Letters(until, self._letters.found, note)
        return self._letters

    def _consumers(self) -> list[ConsumerView]:
        figures: dict[tuple[str, str], dict[str, float]] = {}
        for family in self._registry.collect():
            kind = _KINDS.get(family.name)
            if kind is None:
                continue
            for sample in family.samples:
                consumer, topic = sample.labels.get("consumer"), sample.labels.get("topic")
                if consumer and topic and not sample.name.endswith("_created"):
                    # Over partitions, groups and reasons.
                    kinds = figures.setdefault((consumer, topic), {})
                    kinds[kind] = kinds.get(kind, 0.0) + sample.value
        return [
            ConsumerView(
                consumer=consumer,
                topic=topic,
                lag_records=int(found["lag"]) if "lag" in found else None,
                records=int(found.get("records", 0)),
                dead_letters=int(found.get("dead_letters", 0)),
            )
            for (consumer, topic), found in sorted(figures.items())
        ]


#: Families as prometheus_client names them, a counter without its `_total`.
_KINDS = {
    "simstream_lag_records": "lag",
    "simstream_records": "records",
    "simstream_dead_letters": "dead_letters",
}


def _view(update: ItemUpdated, title: str | None) -> UpdateView:
    return UpdateView(
        item_id=update.product_id,
        title=None if update.deleted else title,
        dimensions=update.dimensions,
        encoder_calls=update.encoder_calls,
        deleted=update.deleted,
        revision=update.revision,
        occurred_at=update.stages.occurred_at,
        searchable_at=update.stages.searchable_at,
        freshness_ms=_age_ms(update),
    )


def _age_ms(update: ItemUpdated) -> float:
    return round((update.stages.searchable_at - update.stages.occurred_at).total_seconds() * 1000, 1)


def _freshness(updates: Sequence[ItemUpdated]) -> list[FreshnessView]:
    ages = {"all": sorted(_age_ms(update) for update in updates)}
    ages["text"] = sorted(_age_ms(update) for update in updates if update.encoder_calls)
    ages["other"] = sorted(_age_ms(update) for update in updates if not update.encoder_calls)
    return [
        FreshnessView(
            name=name,
            updates=len(found),
            p50_ms=_percentile(found, 50),
            p95_ms=_percentile(found, 95),
            p99_ms=_percentile(found, 99),
        )
        for name, found in ages.items()
    ]


def _percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Nearest rank; None without values."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else None
