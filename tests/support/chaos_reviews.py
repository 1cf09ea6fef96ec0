"""kill -9 of the reviews consumer at random moments, and what rating and digest are left afterwards.

Reads   what tests/support/chaos.py reads; reviews in Redis
Writes  products, once, and review events
Never   counts a kill that found nothing in hand
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from adapters.redis_client import RedisSettings, connect
from adapters.redis_reviews import ReviewStore
from consumers.review_digest import review_digest
from consumers.reviews import ReviewsSettings
from schemas.events import ReviewEvent, ReviewPosted, ReviewRemoved
from schemas.items import reviews_fingerprint
from schemas.vectors import REVIEWS
from tests.support.chaos import Catalogue, ConsumerProcess, World
from tests.support.chaos_kills import PUBLISH_SECONDS, Killer
from tests.support.consumer_process import COMMIT_FIRST, CRASH

_WORDS = (
    "battery lasts longer than promised always|sound stays clear even outdoors daily|hinge broke within "
    "second careful month|colour differs slightly from photos online|delivery arrived early well packed|"
    "cushion presses against glasses after hours|software update fixed every single dropout"
).split("|")


class Reviewers:
    """A seeded crowd: posts, corrections, removals, events that come too late; and what must be true."""

    def __init__(self, seed: int, product_ids: list[str]) -> None:
        self._draw = Random(seed)
        self._ids = product_ids
        self._now = datetime.now(UTC)
        #: The newest event of each review, by product: the oracle. Revisions never repeat.
        self.newest: dict[str, dict[str, ReviewEvent]] = {product_id: {} for product_id in product_ids}

    def events(self, count: int) -> Iterator[ReviewEvent]:
        """Every tenth event is older than what its review has seen."""
        for _ in range(count):
            product_id = self._draw.choice(self._ids)
            newest = self.newest[product_id]
            review_id = f"r{self._draw.randrange(12)}"
            known, dice = newest.get(review_id), self._draw.random()
            if known is not None and dice < 0.1:
                yield self._post(product_id, review_id, known.order - 1)
                continue
            revision = 2 if known is None else known.order + 2
            event: ReviewEvent
            if known is not None and dice < 0.25:
                event = ReviewRemoved(
                    review_id=review_id, product_id=product_id, revision=revision, occurred_at=self._now
                )
            else:
                event = self._post(product_id, review_id, revision)
            newest[review_id] = event
            yield event

    def _post(self, product_id: str, review_id: str, revision: int) -> ReviewPosted:
        return ReviewPosted(
            review_id=review_id,
            product_id=product_id,
            user_id=f"shopper-{review_id}",
            revision=revision,
            occurred_at=self._now - timedelta(days=self._draw.randrange(900)),
            rating=float(self._draw.randrange(6)),
            text=f"{self._draw.choice(_WORDS).capitalize()} number{revision}.",
            helpful_votes=self._draw.randrange(40),
        )

    def live(self, product_id: str) -> list[ReviewPosted]:
        """The reviews that stand."""
        return [event for event in self.newest[product_id].values() if isinstance(event, ReviewPosted)]


@dataclass(slots=True)
class Left:
    """Products whose reviews are not what the oracle says: in Redis, or in the index."""

    products: int = 0
    removed: int = 0
    wrong_in_redis: list[str] = field(default_factory=list)
    wrong_in_index: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether all is as it should be."""
        return not (self.wrong_in_redis or self.wrong_in_index)

    def __str__(self) -> str:
        return (
            f"{self.products} products ({self.removed} reviews removed): "
            f"wrong in Redis {len(self.wrong_in_redis)}, wrong in the index {len(self.wrong_in_index)}"
        )


def compare(world: World, reviewers: Reviewers) -> Left:
    """Ledger, rating, digest and point of every product against the oracle."""
    left = Left()
    points = world.index.fetch(world.names.collection, list(reviewers.newest), vectors=True)
    with connect(RedisSettings(url=world.redis.url)) as client:
        store = ReviewStore(client=client, namespace=world.names.namespace)
        for product_id, newest in reviewers.newest.items():
            left.products += 1
            live = reviewers.live(product_id)
            left.removed += len(newest) - len(live)
            ledger = {one: (entry.revision, entry.live) for one, entry in store.ledger(product_id).items()}
            if ledger != {one: (event.order, event in live) for one, event in newest.items()}:
                left.wrong_in_redis.append(product_id)
            point = points.get(product_id)
            digest = review_digest([_Said(event) for event in live], chars=ReviewsSettings().digest_chars)
            mark = reviews_fingerprint(digest) if digest else None
            mean = sum(event.rating or 0.0 for event in live) / len(live) if live else None
            if (
                point is None
                or point.payload["rating_mean"] != (None if mean is None else round(mean, 4))
                or point.payload["rating_count"] != len(live)
                or point.payload["fingerprints"].get(REVIEWS) != mark
                or (REVIEWS in point.vectors) != bool(digest)
            ):
                left.wrong_in_index.append(product_id)
    return left


class _Said:
    """A posted review as the digest reads it; tests/consumers/test_review_digest.py judges the digest."""

    def __init__(self, event: ReviewPosted) -> None:
        self.review_id = event.review_id
        self.votes = event.helpful_votes
        self.at = round(event.occurred_at.timestamp() * 1_000_000)
        self.text = event.text or ""


@dataclass(frozen=True, slots=True)
class ReviewKills:
    """What was exercised, and what was left."""

    events: int
    kills: int
    crashes: int
    redelivered: int
    dead_letters: int
    left: Left

    def __str__(self) -> str:
        return (
            f"{self.events} review events, {self.kills} kills with records in hand ({self.crashes} of them "
            f"between write and announcement), {self.redelivered} records redelivered, "
            f"{self.dead_letters} dead letters; {self.left}"
        )


def kill_reviews(world: World, *, seed: int, events: int, items: int, kills: int) -> ReviewKills:
    """At least `kills` kills of the reviews consumer that count, over at least `events` events.

    Every other round it is killed once more, between its write to Redis and the announcement.
    """
    draw, killer = Random(seed), Killer(world)
    reviewers, victim = _opened(world, seed, items)
    published = number = 0
    count = -(-events // kills)
    while killer.kills < kills or published < events:
        assert number < 3 * kills, f"too few kills find records in hand: {killer.idle} of {killer.kills}"
        load = world.publishing(reviewers.events(count), seconds=PUBLISH_SECONDS, count=count)
        published += count
        time.sleep(draw.uniform(0.3, PUBLISH_SECONDS))
        killer.kill(victim)
        if number % 2 == 0:
            victim.extra = ["--fault", f"{CRASH}{draw.randint(1, 3)}"]
        victim.start()
        load.join()
        if victim.extra:
            killer.crash(victim)
            victim.extra = []
            victim.start()
        victim.wait_assigned()
        number += 1
    world.drain(90.0)
    return ReviewKills(
        events=published,
        kills=killer.kills,
        crashes=killer.crashes,
        redelivered=world.redelivered()[0],
        dead_letters=world.dead_letters(),
        left=compare(world, reviewers),
    )


def commit_reviews_before_write(world: World, *, seed: int, items: int) -> Left:
    """Negative control: the consumer settles first; one kill between its commit and its write."""
    reviewers, victim = _opened(world, seed, items, "--fault", COMMIT_FIRST)
    before = sum(world.committed(victim.group).values())
    world.publish(reviewers.events(5 * items))
    world.shop.flush()
    deadline = time.monotonic() + 30.0
    while sum(world.committed(victim.group).values()) == before:
        assert time.monotonic() < deadline, f"{victim.name} committed nothing: {victim.said()[-2000:]}"
    victim.kill()
    world.consumer("reviews").wait_assigned()
    world.drain(60.0)
    return compare(world, reviewers)


def _opened(world: World, seed: int, items: int, *fault: str) -> tuple[Reviewers, ConsumerProcess]:
    """Products in the index, and a reviews process that has its partitions."""
    catalogue = Catalogue(seed, items)
    processes = [world.consumer("products"), world.consumer("embeddings"), world.consumer("reviews", *fault)]
    for process in processes:
        process.wait_assigned()
    world.publish(catalogue.first())
    return Reviewers(seed, list(catalogue.newest)), processes[-1]
