"""Opinions put together: the consumer that listens, and how a head is made and becomes the one that listens.

Reads   settings; texts and ratings of reviews in Redis; heads and releases in their folders
Writes  a head; which head is live, in Redis; hints for items that are to be heard again
Never   loads an encoder before there is a head
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.kafka import Publisher
from adapters.kafka_reader import GroupReader
from adapters.redis_opinions import OpinionStore
from adapters.redis_reviews import ReviewStore
from adapters.releases import InvalidRelease, ReleaseSettings, ReleaseStore
from app.learning import live_release, the_only_trainer
from app.settings import Settings
from app.wiring import (
    LoadedReleases,
    client_id,
    live_generation,
    open_generations,
    open_opinions,
    open_publisher,
    open_reviews,
)
from consumers.announcing import Acknowledgements
from consumers.dead_letters import DeadLetters
from consumers.opinions import OpinionsHandler, stale_items
from consumers.runner import Runner
from schemas.errors import Halt, Transient
from schemas.events import ItemChanged
from schemas.opinions import OpinionJudge
from schemas.releases import Manifest
from schemas.vectors import Encoder
from service.releases import ReleaseNotLoaded

if TYPE_CHECKING:
    from model.opinion_training import RatedText
    from model.opinions import OpinionHead

log = logging.getLogger(__name__)

_ACK_SECONDS = 30.0
_BATCH = 32


def heads(settings: Settings) -> ReleaseStore:
    """Where heads are kept: a folder like that of releases."""
    chosen = settings.opinion_heads
    return ReleaseStore(ReleaseSettings(url=chosen.url, cache=chosen.cache))


class LiveJudge:
    """The judge of the head that is live, loaded when it is asked for and is not the one before.

    The encoder is that of the release the head was trained on: one of `shared` where it is loaded there
    anyway, else one of its own.
    """

    def __init__(self, settings: Settings, store: OpinionStore, shared: LoadedReleases | None) -> None:
        self._settings = settings
        self._store = store
        self._shared = shared
        self._own = LoadedReleases(settings)
        self._head: tuple[OpinionHead, str] | None = None

    def __call__(self) -> OpinionJudge | None:
        """None as long as there is no head. Raises Transient, and Halt for a head that cannot be used."""
        name = self._store.head()
        if name is None:
            return None
        from model.opinions import OpinionListener, load_head

        try:
            if self._head is None or self._head[0].name != name:
                head, manifest = load_head(heads(self._settings), name)
                self._head = head, manifest.parent or ""
                log.info("opinions_heard_by head=%s release=%s", name, manifest.parent)
            head, release = self._head
            return OpinionListener(head, self._encoder(release))
        except InvalidRelease as error:
            raise Halt(f"the head of opinions that is live cannot be used: {error}") from error

    def _encoder(self, release: str) -> Encoder:
        if self._shared is not None:
            with suppress(ReleaseNotLoaded):
                return self._shared.loaded(release).encoder
        self._own.keep([release])
        return self._own.load(release).encoder

    def close(self) -> None:
        """End an encoder of its own."""
        self._own.close()


def opinions_runner(
    settings: Settings,
    *,
    publisher: Publisher,
    judge: Callable[[], OpinionJudge | None],
    accept_poison: int = 0,
) -> Runner[ItemChanged]:
    """The consumer, ready to run. It reads the texts of whichever generation of the state is live."""
    generations = open_generations(settings)
    handler = OpinionsHandler(
        reviews=lambda: open_reviews(settings, generations.live()),
        store=open_opinions(settings),
        judge=judge,
        publisher=publisher,
        topics=settings.named_topics(),
        settings=settings.opinions,
    )
    return Runner(
        reader=GroupReader(
            # Nobody waits for an opinion as for a price.
            settings.kafka.unhurried(),
            group=f"{settings.namespace}simstream-opinions",
            client_id=client_id(settings, "opinions"),
        ),
        handler=handler,
        dead_letters=DeadLetters(publisher=publisher),
        # An item may take seconds to be heard: whoever stops waits for the batch in hand.
        settings=settings.loop.model_copy(update={"batch_records": min(_BATCH, settings.loop.batch_records)}),
        accept_poison=accept_poison,
    )


def train_opinions(settings: Settings, data_dir: Path, *, say: Callable[[str], None]) -> Manifest:
    """Train a head on the live release from the reviews that Redis holds, and let it listen from now on.

    Raises NothingLearned (a ValueError) saying why none was made; Halt while another trainer runs.
    """
    from model.aspects import read_aspects
    from model.opinion_training import train_head
    from model.release import start_release

    chosen = settings.opinion_heads
    aspects = read_aspects(Path(chosen.aspects) if chosen.aspects else None)
    with the_only_trainer(settings):
        release = start_release(
            ReleaseStore(settings.releases), live_release(settings, data_dir), settings.model
        )
        try:
            reviews = list(rated_texts(open_reviews(settings, live_generation(settings))))
            say(f"{len(reviews)} reviews with a rating, {len(aspects)} aspects, release {release.release_id}")
            made = train_head(
                reviews,
                encoder=release.encoder,
                release=release.manifest,
                aspects=aspects,
                settings=chosen,
                store=heads(settings),
                created_at=datetime.now(UTC),
            )
        finally:
            release.encoder.close()
        say(f"head {made.release_id}: area under the curve {made.figures['auc']:.3f} on unseen reviews")
        listen_with(settings, made.release_id, say=say)
    return made


def listen_with(settings: Settings, name: str, *, say: Callable[[str], None]) -> int:
    """Make a head the one that listens, and have every item heard again that it has not heard; how many."""
    heads(settings).manifest(name)
    open_opinions(settings).set_head(name)
    publisher = open_publisher(settings, "opinions")
    try:
        announced = catch_up(settings, publisher)
    finally:
        publisher.close()
    say(f"{announced} items are heard anew")
    return announced


def catch_up(settings: Settings, publisher: Publisher) -> int:
    """Announce every item whose opinions are not those of its texts and of the head that is live; how many.

    After a head is changed, and where a broker has forgotten its hints.
    """
    store = open_opinions(settings)
    name = store.head()
    if name is None:
        return 0
    reviews = open_reviews(settings, live_generation(settings))
    return sum(_announced(settings, publisher, ids) for ids in stale_items(reviews, store, name) if ids)


def rated_texts(reviews: ReviewStore) -> Iterator[RatedText]:
    """Every review whose text is kept and that gave a rating, each once."""
    from model.opinion_training import RatedText

    seen: set[str] = set()
    for ids in reviews.scan_ids():
        unique = [one for one in dict.fromkeys(ids) if one not in seen]
        seen.update(unique)
        for product_id, texts in reviews.texts(unique).items():
            ledger = reviews.ledger(product_id) if texts.reviews else {}
            for review in sorted(texts.reviews, key=lambda one: one.review_id):
                entry = ledger.get(review.review_id)
                if entry is not None and entry.rating is not None:
                    yield RatedText(review.text, entry.rating)


def _announced(settings: Settings, publisher: Publisher, product_ids: Sequence[str]) -> int:
    now, acknowledged = datetime.now(UTC), Acknowledgements(len(product_ids))
    topic = settings.named_topics().changed_bulk.name
    for product_id in product_ids:
        hint = ItemChanged(product_id=product_id, dimensions=["reviews"], occurred_at=now, consumed_at=now)
        publisher.send(
            topic, key=product_id, value=hint.model_dump_json().encode(), on_ack=acknowledged.count
        )
    if not acknowledged.wait(_ACK_SECONDS) or acknowledged.failure is not None:
        raise Transient(f"the broker did not take hints: {acknowledged.failure or 'no answer in time'}")
    return len(product_ids)
