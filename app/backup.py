"""A backup of what cannot be made anew, and the way back.

Reads   Redis, commits of the groups that write it, the releases folder
Writes  a folder: state, releases, and `backup.json` last; back: Redis, commits, releases
Never   restores under consumers that run, nor over state that nobody asked to replace

    backup    1. commits of products, reviews, behaviour  2. every key of state  3. releases  4. backup.json
    restore   1. nobody may be in those groups, nor in those of the state that is live now  2. releases
              3. keys  4. commits back to where they were  5. the pointer to the state

The topics are read again from those commits, which were taken before the first key: every effect can be
repeated, so what the keys hold already changes nothing. The index is made from state: `simstream reconcile`.
Topics are yours to keep.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime

from adapters.kafka_admin import open_admin, topic_ids
from adapters.kafka_groups import GroupOffsets, group_members
from adapters.kafka_reader import Partition
from adapters.kafka_spans import spans
from adapters.redis_backup import remove_keys, restore_backup, standing_keys, write_backup
from adapters.redis_client import connect
from adapters.redis_nodes import RedisNodes
from adapters.releases import ReleaseSettings, ReleaseStore
from app.runners import state_group
from app.settings import Settings
from app.wiring import open_generations
from schemas.errors import Halt
from schemas.events import Frozen

STATE_FILE, RELEASES, TOLD = "state.msgpack.gz", "releases", "backup.json"
Say = Callable[[str], None]


class Commit(Frozen):
    """Where a group stood on one partition; None: it had not committed anything."""

    topic: str
    partition: int
    offset: int | None


class Backup(Frozen):
    """What `backup.json` says. `commits` by consumer, `topic_ids` by topic."""

    format: int = 1
    made_at: AwareDatetime
    namespace: str
    generation: int
    commits: dict[str, list[Commit]]
    topic_ids: dict[str, str]
    keys: int
    sha256: str
    releases: list[str]


def _topics(settings: Settings) -> dict[str, str]:
    """The topic of each consumer that writes state."""
    named = settings.named_topics()
    return {"products": named.products.name, "reviews": named.reviews.name, "behaviour": named.events.name}


def back_up(settings: Settings, folder: Path, *, say: Say = lambda sentence: None) -> Backup:
    """Write a backup into `folder`, which must not hold one. Consumers go on meanwhile.

    Raises Halt, Transient.
    """
    if (folder / TOLD).exists():
        raise Halt(f"{folder} holds a backup already: name another folder")
    try:
        (folder / RELEASES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Halt(
            f"{folder} cannot be made a folder for a backup ({error.strerror}): name another"
        ) from error
    made_at, topics = datetime.now(UTC), _topics(settings)
    generation = open_generations(settings).live()
    # 1. Before the first key: what comes later is read again.
    commits = {}
    for consumer, topic in topics.items():
        group = state_group(settings, consumer, generation)
        with GroupOffsets(settings.kafka, group=group, topics=[topic]) as offsets:
            found = offsets.commits()
        commits[consumer] = [
            Commit(topic=part.topic, partition=part.number, offset=found[part]) for part in found
        ]
    ids = topic_ids(open_admin(settings.kafka), list(topics.values()))
    # 2.
    nodes = RedisNodes(connect(settings.redis))
    file = folder / STATE_FILE
    keys = write_backup(nodes, file, namespace=settings.namespace, generation=generation)
    say(f"{keys} keys of state")
    # 3.
    store = ReleaseStore(settings.releases)
    releases = store.list()
    for release in releases:
        _kept_releases(folder).publish(store.fetch(release), store.manifest(release))
    say(f"{len(releases)} releases")
    # 4.
    told = Backup(
        made_at=made_at,
        namespace=settings.namespace,
        generation=generation,
        commits=commits,
        topic_ids=ids,
        keys=keys,
        sha256=_sha256(file),
        releases=releases,
    )
    aside = folder / f".{TOLD}"
    aside.write_text(told.model_dump_json(indent=1))
    with aside.open("rb") as written:
        os.fsync(written.fileno())
    aside.replace(folder / TOLD)
    return told


def restore(
    settings: Settings, folder: Path, *, replace: bool = False, say: Say = lambda sentence: None
) -> Backup:
    """Put state, releases and commits back as they were. Start the consumers afterwards, then reconcile.

    Raises Halt where consumers run, state stands and `replace` is not given, or the topics do not reach back.
    """
    try:
        told = Backup.model_validate_json((folder / TOLD).read_bytes())
    except OSError as error:
        raise Halt(f"{folder} holds no whole backup: {TOLD} cannot be read ({error.strerror})") from error
    if told.namespace != settings.namespace:
        raise Halt(f"the backup is of namespace {told.namespace!r}, the settings say {settings.namespace!r}")
    _refuse_altered(folder / STATE_FILE, told)
    # 1.
    generations = open_generations(settings)
    touched = {told.generation, generations.live()}
    _refuse_readers(settings, told, touched)
    offsets = _reachable(settings, told)
    nodes = RedisNodes(connect(settings.redis))
    standing = sum(standing_keys(nodes, namespace=told.namespace, generation=number) for number in touched)
    if standing and not replace:
        raise Halt(f"there are {standing} keys of state: give --replace to put the backup in their place")
    # 2.
    store = ReleaseStore(settings.releases)
    for release in sorted(set(told.releases) - set(store.list())):
        kept = _kept_releases(folder)
        store.publish(kept.fetch(release), kept.manifest(release))
        say(f"release {release} put back")
    # 3.
    remove_keys(nodes, namespace=told.namespace, generation=told.generation)
    keys = restore_backup(nodes, folder / STATE_FILE, namespace=told.namespace)
    say(f"{keys} keys of state put back")
    # 4. After the keys: the broker refuses it where somebody has come into a group meanwhile.
    for consumer, commits in offsets.items():
        topic = _topics(settings)[consumer]
        group = state_group(settings, consumer, told.generation)
        with GroupOffsets(settings.kafka, group=group, topics=[topic]) as group_offsets:
            group_offsets.commit(commits)
    # 5. Last: until here a consumer that is started works on what was live, and none on this state from where
    # its groups stood before. A restore that is cut off is done again.
    generations.take_over(told.generation)
    say("start the consumers; when they have caught up, run `simstream reconcile`")
    return told


def _kept_releases(folder: Path) -> ReleaseStore:
    return ReleaseStore(ReleaseSettings(url=str(folder / RELEASES), cache=str(folder / RELEASES)))


def _refuse_altered(file: Path, told: Backup) -> None:
    try:
        found = _sha256(file)
    except OSError as error:
        raise Halt(f"{file} cannot be read ({error.strerror}): the backup is not whole") from error
    if found != told.sha256:
        raise Halt(f"{file} is not what {TOLD} says: it was altered or cut off")


def _refuse_readers(settings: Settings, told: Backup, generations: Collection[int]) -> None:
    groups = [
        state_group(settings, consumer, number) for number in sorted(generations) for consumer in told.commits
    ]
    busy = [group for group, members in group_members(settings.kafka, groups).items() if members]
    if busy:
        raise Halt(f"consumers run ({', '.join(busy)}): stop them, they would write meanwhile")


def _reachable(settings: Settings, told: Backup) -> dict[str, dict[Partition, int]]:
    """The commits to go back to. Raises Halt where the topics are others, or no longer reach that far."""
    topics = list(_topics(settings).values())
    ids = topic_ids(open_admin(settings.kafka), topics)
    anew = "`simstream rebuild --from-log` makes state from what the topics hold"
    other = [topic for topic in topics if told.topic_ids.get(topic) != ids[topic]]
    if other:
        raise Halt(
            f"{', '.join(other)} were made anew since the backup: its offsets mean nothing there. {anew}"
        )
    reach = spans(settings.kafka, topics)
    found: dict[str, dict[Partition, int]] = {}
    for consumer, commits in told.commits.items():
        for one in commits:
            part = Partition(one.topic, one.partition)
            offset = reach[part].start if one.offset is None else one.offset
            if offset < reach[part].start:
                raise Halt(
                    f"{part.topic}[{part.number}] begins at {reach[part].start}, and the backup at {offset}: "
                    f"what lies between was removed. {anew}, and says since when it counts"
                )
            found.setdefault(consumer, {})[part] = offset
        # Partitions that were added since begin at their beginning.
        for part, span in reach.items():
            if part.topic == _topics(settings)[consumer]:
                found.setdefault(consumer, {}).setdefault(part, span.start)
    return found


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
