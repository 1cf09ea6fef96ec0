"""A shopper is forgotten: events of theirs up to now are nobody's business, and what was kept of them goes.

Reads   state, archive, dead letters; who reads user.erasures; commits of the embeddings groups
Writes  user.erasures; recent items, sketches, reviews and what was heard in them, in Redis, through their
        owners; archive files; examples; dead letters; hints for the items that it was about
Never   touches weights of trained models, or counts that name nobody

1. say so        on user.erasures, under a name that only holders of its key can make of the user id
2. wait          until every running reader knows, and has nothing older in hand
3. remove        recent and bought items, members of sketches, reviews and quotes; of every generation of the
                 state. Which items that changes is put down first, until 6 is through
4. archive       rows of the shopper; a trainer that writes the archive just now is waited for. Examples of
                 open runs and searches, whoever they are made of: they begin anew instead of going on
5. dead letters  those of the shopper
6. index         the items are announced, and every collection's group has come past that
7. files         Redis writes its append-only file anew

The topic names shoppers by a key used for nothing else, so its readers cannot tell which hash to remove: only
here is the user id known, and so the removing is done here. Killed anywhere, the same command does the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapters.archive import Archive
from adapters.index_port import release_of
from adapters.kafka import Publisher
from adapters.kafka_groups import GroupOffsets
from adapters.kafka_log import read_to_end
from adapters.redis_client import connect
from adapters.redis_erased import ErasedItems
from adapters.redis_nodes import RedisNodes
from app.runners import embeddings_group, known_erasures
from app.settings import Settings
from app.wiring import (
    open_behaviour,
    open_erased,
    open_generations,
    open_opinions,
    open_publisher,
    open_readers,
    open_reviews,
)
from consumers.archive import kept_rows
from consumers.behaviour import MAX_AHEAD_SECONDS
from consumers.dead_letter_purge import purge_dead_letters
from consumers.erasures import erasure_key
from consumers.interest import shopper_of
from consumers.opinions import take_back
from consumers.reviews import ReviewsHandler
from model.run_folders import forget_examples
from schemas.errors import Halt, Transient
from schemas.events import ItemChanged, UserErased
from schemas.vectors import BEHAVIOUR, REVIEWS

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was removed. `pending` names, with the reason, what could not be done now. `runs_examples` are the
    open runs and searches whose examples went."""

    erased_at: str
    readers: int
    keys: int
    sketches: int
    reviewed_products: int
    archive_rows: int
    dead_letters: int
    redis_files_rewritten: bool
    pending: tuple[str, ...]
    runs_examples: int = 0

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


def forget(
    settings: Settings,
    user_id: str,
    *,
    collections: Sequence[str],
    timeout_seconds: float,
    say: Callable[[str], None],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Forgotten:
    """All of it, in the order above. `collections` are those whose vectors are written today.

    Raises Transient when a store is away, or a reader does not acknowledge in time: give the command again.
    """
    deadline = time.monotonic() + timeout_seconds
    erased_at = now()
    until_ms = int(erased_at.timestamp() * 1000)
    pending: list[str] = []
    publisher = open_publisher(settings, "forget")
    try:
        # 1. and 2.
        part, offset = _publish(settings, publisher, user_id, erased_at)
        readers = _wait_for_readers(settings, part, offset, deadline, say)
        # 3.
        name = erasure_key(user_id, settings.erasures.secret)
        keys, items = 0, open_erased(settings, name)
        generations = open_generations(settings)
        for generation in (generations.live(), *generations.retired()):
            keys += _behaviour(settings, user_id, generation, until_ms, items)
            _reviews(settings, publisher, user_id, generation, until_ms, items)
        touched, reviewed = items.of(BEHAVIOUR), items.of(REVIEWS)
        live = open_reviews(settings, generations.live())
        take_back(live, open_opinions(settings), sorted(reviewed), settings.opinions)
        say(f"{keys} keys, {len(touched)} sketches, reviews of {len(reviewed)} products")
        # 4. and 5.
        rows, examples = _archive(settings, deadline, pending), _examples(settings)
        letters = 0
        for topic in settings.named_topics().declared():
            if topic.has_dead_letters:
                letters += _dead_letters(settings, topic.name, user_id, pending)
        say(f"{rows} rows of the archive, examples of {examples} runs, {letters} dead letters")
        # 6.
        _announce(settings, publisher, touched, reviewed, erased_at)
        for dimension in (BEHAVIOUR, REVIEWS):
            items.done(dimension)
        _wait_for_index(settings, collections, deadline, pending, say)
        # 7.
        rewritten = RedisNodes(connect(settings.redis)).rewrite_logs(
            timeout_seconds=max(1.0, deadline - time.monotonic())
        )
    finally:
        publisher.close()
    log.info("shopper_forgotten name=%s erased_at=%s pending=%d", name, erased_at.isoformat(), len(pending))
    return Forgotten(
        erased_at=erased_at.isoformat(),
        readers=readers,
        keys=keys,
        sketches=len(touched),
        reviewed_products=len(reviewed),
        archive_rows=rows,
        dead_letters=letters,
        redis_files_rewritten=rewritten,
        pending=tuple(pending),
        runs_examples=examples,
    )


def _publish(settings: Settings, publisher: Publisher, user_id: str, erased_at: datetime) -> tuple[int, int]:
    """Where on user.erasures the record stands, once the broker has it."""
    topic = settings.named_topics().erasures.name
    name, value = erasure_key(user_id, settings.erasures.secret), UserErased(erased_at=erased_at)
    failure: list[Exception | None] = []
    body = value.model_dump_json().encode()
    publisher.send(topic, key=name, value=body, on_ack=failure.append)
    publisher.flush(30.0)
    if not failure or failure[0] is not None:
        raise Transient(f"the broker has not taken the erasure: {failure[0] if failure else 'no answer'}")
    ours = [
        (record.partition, record.offset)
        for record in read_to_end(settings.kafka, topic)
        if record.key == name.encode() and record.value == body
    ]
    if not ours:
        raise Transient(f"the erasure is not on {topic}, which the broker has acknowledged")
    return ours[-1]


def _wait_for_readers(
    settings: Settings, part: int, offset: int, deadline: float, say: Callable[[str], None]
) -> int:
    """Until every running reader has acknowledged the erasure; how many there are."""
    readers, told = open_readers(settings), False
    while True:
        standing = readers.standing()
        behind = sorted(name for name, reached in standing.items() if reached.get(part, 0) <= offset)
        if not behind:
            return len(standing)
        if time.monotonic() > deadline:
            raise Transient(f"{', '.join(behind)} did not acknowledge the erasure; give the command again")
        if not told:
            say(f"waiting for {len(behind)} of {len(standing)} readers to finish what they have in hand")
            told = True
        time.sleep(_PAUSE_SECONDS)


def _behaviour(settings: Settings, user_id: str, generation: int, until_ms: int, items: ErasedItems) -> int:
    """How many keys went."""
    store = open_behaviour(settings, generation)
    shopper = shopper_of(user_id, settings.behaviour.sketch.key)
    for ids in store.scan_ids():
        touched = store.with_member(shopper.member, ids)
        items.add(BEHAVIOUR, touched)
        store.forget_member(shopper.member, touched)
    # What was recorded before the erasure may say that it happened a little later.
    latest_ms = until_ms + int(MAX_AHEAD_SECONDS * 1000)
    return store.forget_shopper(shopper.hash, until_ms=latest_ms)


def _reviews(
    settings: Settings,
    publisher: Publisher,
    user_id: str,
    generation: int,
    until_ms: int,
    items: ErasedItems,
) -> None:
    handler = ReviewsHandler(
        store=open_reviews(settings, generation),
        publisher=publisher,
        topics=settings.named_topics(),
        settings=settings.reviews,
        hash_key=settings.behaviour.sketch.key,
    )
    handler.forget(user_id, until_ms=until_ms, about=lambda products: items.add(REVIEWS, products))


def _archive(settings: Settings, deadline: float, pending: list[str]) -> int:
    """Rows that went; a writer of the archive is waited for, as long as there is time."""
    folder = Path(settings.archive.folder)
    if not folder.is_dir():
        return 0
    erasures = known_erasures(settings)
    archive = Archive(folder)
    while True:
        try:
            with archive.locked():
                return archive.erase(lambda table: kept_rows(table, erasures))
        except Halt as error:
            if time.monotonic() > deadline:
                pending.append(f"archive: {error} (the next `simstream train` removes the rows as well)")
                return 0
            time.sleep(_PAUSE_SECONDS)


def _examples(settings: Settings) -> int:
    """Open runs and searches whose examples went; after the archive's rows, so that new ones lack them."""
    return forget_examples(Path(settings.training.folder), known_erasures(settings).reached)


def _dead_letters(settings: Settings, topic: str, user_id: str, pending: list[str]) -> int:
    try:
        return purge_dead_letters(settings.kafka, topic, user_id, namespace=settings.namespace)
    except Halt as error:
        pending.append(f"dead letters of {topic}: {error}")
        return 0


def _announce(
    settings: Settings, publisher: Publisher, touched: set[str], reviewed: set[str], at: datetime
) -> None:
    topic = settings.named_topics().changed.name
    failures: list[Exception | None] = []
    for product_id in sorted(touched | reviewed):
        dimensions = [
            *([BEHAVIOUR] if product_id in touched else ()),
            *([REVIEWS, "context"] if product_id in reviewed else ()),
        ]
        hint = ItemChanged(product_id=product_id, dimensions=dimensions, occurred_at=at, consumed_at=at)
        publisher.send(topic, key=product_id, value=hint.model_dump_json().encode(), on_ack=failures.append)
    if publisher.flush(60.0) or any(failures):
        raise Transient("the broker has not taken the announcements; give the command again")


def _wait_for_index(
    settings: Settings,
    collections: Sequence[str],
    deadline: float,
    pending: list[str],
    say: Callable[[str], None],
) -> None:
    """Until each collection's group has committed what stands on items.changed now."""
    topic = settings.named_topics().changed.name
    for collection in collections:
        say(f"waiting for collection {collection}, release {release_of(collection)}")
        with GroupOffsets(
            settings.kafka, group=embeddings_group(settings, collection), topics=[topic]
        ) as group:
            ends = group.ends()
            while True:
                commits = group.commits()
                if all((commits[part] or 0) >= end for part, end in ends.items() if end):
                    break
                if time.monotonic() > deadline:
                    pending.append(f"collection {collection}: its vectors are not written anew yet")
                    break
                time.sleep(_PAUSE_SECONDS)
