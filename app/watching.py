"""What the service's watching routes look at beyond the index: changes, dead letters, records of releases.

Reads   items.updated from its end, the newest dead letters, records of the rollout, manifests
Writes  nothing
Never   joins a group; reads a dead-letter topic from its beginning once it has grown
"""

from __future__ import annotations

import logging

from adapters.kafka_groups import GroupOffsets
from adapters.kafka_log import Tail, TopicLog
from adapters.releases import InvalidRelease, ReleaseStore
from app.settings import Settings
from app.wiring import open_board
from consumers.dead_letters import DeadLetters
from consumers.redrive import collect
from schemas.api_watch import DeadLetterView, ReleaseRecord
from schemas.releases import Manifest
from service.feed import UpdateFeed
from service.watching import Watched

log = logging.getLogger(__name__)
#: Records of each partition that are looked at, and letters that are shown.
LAST_RECORDS = 50
SHOWN = 50


def watched(settings: Settings) -> Watched:
    """Everything there is to look at. `close` its feed."""
    topic = settings.named_topics().updated.name
    feed = UpdateFeed(
        opened=lambda: Tail(settings.kafka.unhurried(), topic, from_end=True),
        most_listeners=settings.service.listeners,
    )
    return Watched(
        feed=feed,
        dead_letters=lambda: newest_dead_letters(settings),
        releases=lambda: release_records(settings),
    )


def newest_dead_letters(settings: Settings) -> list[DeadLetterView]:
    """The newest dead letters of all topics, the newest first. Raises Transient or Halt."""
    found = []
    for topic in settings.named_topics().declared():
        if not topic.has_dead_letters:
            continue
        name = DeadLetters.topic_of(topic.name)
        with GroupOffsets(settings.kafka, group="simstream-explorer", topics=[name]) as offsets:
            ends = offsets.ends()
        starts = {part.number: max(0, end - LAST_RECORDS) for part, end in ends.items()}
        found += list(collect(TopicLog(settings.kafka, name).read_on(starts)))
    found.sort(key=lambda letter: letter.died_at, reverse=True)
    return [
        DeadLetterView(
            identity=str(letter.identity),
            topic=letter.topic,
            error=letter.error,
            died_at=letter.died_at,
            redriven=letter.redriven,
        )
        for letter in found[:SHOWN]
    ]


def release_records(settings: Settings) -> list[ReleaseRecord]:
    """Every collection on its way, and releases without one. Raises Transient or Halt."""
    store = ReleaseStore(settings.releases)
    rollouts = open_board(settings).all()
    records = [
        _record(
            store,
            one.release_id,
            collection=one.collection,
            state=one.state,
            since=one.since,
            reason="removed" if one.pruned else one.reason,
        )
        for one in rollouts
    ]
    known = {one.release_id for one in rollouts}
    return records + [_record(store, name) for name in store.list() if name not in known]


def _record(store: ReleaseStore, release_id: str, **fields: object) -> ReleaseRecord:
    manifest: Manifest | None
    try:
        manifest = store.manifest(release_id)
    except InvalidRelease as error:
        log.warning("manifest_unreadable release=%s reason=%s", release_id, error)
        manifest = None
    if manifest is not None:
        fields |= {
            "model": manifest.base_model,
            "parent": manifest.parent,
            "created_at": manifest.created_at,
            "verdict": manifest.verdict,
        }
    return ReleaseRecord.model_validate({"release_id": release_id, **fields})
