"""Three owners at once on a Redis that fails at any step: what shoppers did counts once, and is announced."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from adapters.behaviour_work import ItemWork, Moved, ShopperWork
from adapters.redis_behaviour import BehaviourStore
from adapters.redis_client import RedisSettings, connect
from adapters.redis_nodes import RedisNodes
from consumers import follower
from consumers.behaviour import BehaviourHandler
from consumers.debounce import DebounceSettings
from consumers.interactions import Interaction
from consumers.progress import Delivery, Progress
from schemas.errors import Transient
from tests.consumers.test_behaviour import NOW, SETTINGS, SKETCH, TOPICS, Publisher, drawn, record
from tests.support.behaviour_oracle import Damage, Logged, damage
from tests.support.servers import Redis

QUICK = DebounceSettings(
    delay_seconds=0.05, max_delay_seconds=0.2, interval_seconds=3_600, abandoned_seconds=0.2
)
FAILS = 0.15
PARTITIONS = range(3)
PATIENCE_SECONDS = 60.0
#: Since the log was written: the clock moves, and stands where the log's events are recent.
AGE = datetime.now(UTC) - NOW


def the_logs_clock() -> datetime:
    return datetime.now(UTC) - AGE


class Flaky(BehaviourStore):
    """Fails now and then, before a step or behind it: then it is done, and nobody knows."""

    def __init__(self, draw: Random, **more: Any) -> None:
        super().__init__(**more)
        self._draw = draw
        #: How often it has failed.
        self.failed = 0

    def _perhaps(self) -> None:
        if self._draw.random() < FAILS:
            self.failed += 1
            raise Transient("Redis is away")

    def apply_shoppers(self, works: Sequence[ShopperWork], **more: Any) -> list[str]:
        """As the store, perhaps."""
        self._perhaps()
        answer = super().apply_shoppers(works, **more)
        self._perhaps()
        return answer

    def apply_items(self, topic: str, works: Sequence[ItemWork], **more: Any) -> list[Moved]:
        """As the store, perhaps."""
        self._perhaps()
        answer = super().apply_items(topic, works, **more)
        self._perhaps()
        return answer

    def add_trend(self, shoppers: Mapping[tuple[int, int], Mapping[str, float]]) -> None:
        """As the store, perhaps."""
        super().add_trend(shoppers)
        self._perhaps()

    def take_due(self, now_ms: int, **more: Any) -> list[str]:
        """As the store, perhaps."""
        answer = super().take_due(now_ms, **more)
        self._perhaps()
        return answer

    def announced(self, product_ids: Sequence[str], **more: Any) -> None:
        """As the store, perhaps."""
        self._perhaps()
        super().announced(product_ids, **more)


class LookingUp(Publisher):
    """Whoever gets a hint looks the item up, as embeddings does."""

    #: Of two who look the later one is noted, as tickets have it.
    _looking = threading.Lock()

    def __init__(self, store: BehaviourStore, seen: dict[str, str]) -> None:
        super().__init__()
        self._store = store
        self._seen = seen

    def send_batch(self, topic: str, records: Sequence[tuple[str, bytes, Callable[..., None]]]) -> None:
        """As the double."""
        ids = [product_id for product_id, _, _ in records]
        with self._looking:
            for product_id, state in zip(ids, self._store.states(ids), strict=True):
                assert state is not None
                self._seen[product_id] = state.header.mark
        super().send_batch(topic, records)


class Owner:
    """Reads partitions from the group's commits on, and loses them now and then with work in hand."""

    def __init__(
        self, handler: BehaviourHandler, log: Sequence[Logged], commits: dict[int, int], draw: Random
    ) -> None:
        self._handler = handler
        self._log = {part: [one for one in log if one.partition == part] for part in PARTITIONS}
        self._commits = commits
        self._draw = draw
        self.handled = 0
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            stays: dict[int, tuple[Progress, int]] = {}
            while any(self._commits[part] < len(self._log[part]) for part in PARTITIONS):
                self._turn(stays, self._draw.choice(PARTITIONS))
        except BaseException as error:  # noqa: BLE001  raised again by the test
            self.failure = error

    def _turn(self, stays: dict[int, tuple[Progress, int]], part: int) -> None:
        draw, mine = self._draw, self._log[part]
        if part not in stays or draw.random() < 0.15:
            if part in stays:
                stays[part][0].abandon()
            committed = self._commits[part]
            start = 0 if draw.random() < 0.1 else committed
            stays[part] = Progress(mine[committed - 1].offset + 1 if committed else None), start
        progress, start = stays.pop(part)
        end = min(len(mine), start + draw.randrange(1, 40))
        batch = [Delivery(self._handler.decode(record(one)), one.offset, progress) for one in mine[start:end]]
        self.handled += len(batch)
        if batch and self._done(batch, progress):
            stays[part] = progress, end
            if draw.random() < 0.6:
                self._commits[part] = max(self._commits[part], end)

    def _done(self, batch: Sequence[Delivery[Interaction]], progress: Progress) -> bool:
        """Hand the batch over as the loop does; False if the partition has gone meanwhile."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self._handler.handle([one for one in batch if not one.settled])
                break
            except Transient:
                assert time.monotonic() < deadline
        if self._draw.random() < 0.1:
            progress.abandon()
            return False
        while not all(one.settled for one in batch):
            assert self._handler.fatal() is None
            assert time.monotonic() < deadline, "the batch did not settle"
            time.sleep(0.0005)
        return True


@pytest.mark.parametrize("seed", range(3))
def test_owners_at_once_on_a_redis_that_fails_at_any_step_count_once_and_forget_no_announcement(
    seed: int, redis_server: Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "BACKOFF_SECONDS", 0.001)
    client = connect(RedisSettings(url=redis_server.url))
    given: dict[str, Any] = {
        "nodes": RedisNodes(client),
        "namespace": namespace,
        "sketch_members": SKETCH.members,
    }
    store, log, seen = BehaviourStore(**given), drawn(seed, 400), dict[str, str]()
    stores = [Flaky(Random(seed * 10 + number), **given) for number in range(3)]
    settings = SETTINGS.model_copy(update={"debounce": QUICK})
    handlers = []
    for one in stores:
        publisher: Any = LookingUp(store, seen)
        handlers.append(
            BehaviourHandler(
                store=one, publisher=publisher, topics=TOPICS, settings=settings, now=the_logs_clock
            )
        )
    commits = dict.fromkeys(PARTITIONS, 0)
    owners = [
        Owner(handler, log, commits, Random(seed * 100 + number)) for number, handler in enumerate(handlers)
    ]
    announce_until_quiet(handlers, owners, store)
    for owner in owners:
        assert owner.failure is None, repr(owner.failure)
    again = sum(owner.handled for owner in owners) - len(log)
    failed = sum(one.failed for one in stores)
    print(f"{again} records handled again, {failed} failures of Redis")
    assert again > 400
    assert failed > 15
    found: Damage = damage(
        store, log, SKETCH, recent_kept=SETTINGS.recent_items, seen=seen, now=the_logs_clock()
    )
    assert found.nothing, repr(found)
    for handler in handlers:
        handler.close()
    client.close()


def announce_until_quiet(
    handlers: Sequence[BehaviourHandler], owners: Sequence[Owner], store: BehaviourStore
) -> None:
    """Announce in turns, as the handlers' own threads would, until all is applied and nothing is due."""
    deadline, turn = time.monotonic() + PATIENCE_SECONDS, 0
    while any(owner.thread.is_alive() for owner in owners) or store.waiting():
        assert time.monotonic() < deadline, f"{store.waiting()} items still wait to be announced"
        turn += 1
        try:
            handlers[turn % len(handlers)]._debounce.announce()  # noqa: SLF001
        except Transient:
            pass
        time.sleep(0.01)
