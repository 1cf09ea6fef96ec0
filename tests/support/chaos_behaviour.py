"""Behaviour while its consumers are killed, paused, moved and told to read it all again, and Redis killed.

Reads   what tests/support/chaos.py reads; user.events as the broker has it, which the oracle is made from
Writes  user events
Never   counts a failure that found nothing in hand, nor trusts a hint: somebody looks its item up
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from adapters.kafka_log import Tail, read_to_end
from adapters.redis_behaviour import BehaviourStore
from adapters.redis_client import RedisSettings, connect
from adapters.redis_nodes import RedisNodes
from consumers.redrive import read_dead_letters
from schemas.errors import Transient
from schemas.events import ItemChanged, UserEvent
from tests.support.behaviour_faults import CRASHES, EPOCH_UNCHECKED, SETTINGS
from tests.support.behaviour_oracle import Damage, Logged, damage
from tests.support.chaos import ConsumerProcess, World
from tests.support.draining import SESSION_TIMEOUT_SECONDS, wait_for_commits
from tests.support.shoppers import Shoppers

SHOPPERS, ITEMS = 300, 60
EVENTS_PER_SECOND = 300
#: Between a batch's shoppers and its items: where most kills and pauses find it.
WRITE_SECONDS = 0.05
#: Clients give up after 5 s.
HANG_SECONDS = 6.0
#: Redis loses less than commits trail by (3 s), and more than a moment.
LOST_SECONDS = (1.0, 1.5)


class Lookout:
    """Looks an item up whenever a hint says so, as embeddings does, and remembers what it saw."""

    def __init__(self, tail: Tail, store: BehaviourStore) -> None:
        self._tail = tail
        self._store = store
        #: By item what its sketch was when the latest hint was served.
        self.seen: dict[str, str] = {}
        self.hints = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="test-lookout", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._stop.is_set():
            records = self._tail.poll(0.2)
            hinted = {ItemChanged.model_validate_json(record.value or b"").product_id for record in records}
            self.hints += len(records)
            while hinted and not self._stop.is_set():
                try:
                    states = self._store.states(sorted(hinted))
                except Transient:  # Redis is being restarted
                    time.sleep(0.1)
                    continue
                for product_id, state in zip(sorted(hinted), states, strict=True):
                    self.seen[product_id] = state.header.mark if state is not None else ""
                break

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join(10.0)
        self._tail.close()


class ShopperWorld(World):
    """Redis, topics, and behaviour consumers."""

    indexed = False

    def __enter__(self) -> Self:
        super().__enter__()
        with ExitStack() as opening:
            opening.push(super().__exit__)
            client = connect(RedisSettings(url=self.redis.url))
            opening.callback(client.close)
            self.store = BehaviourStore(
                nodes=RedisNodes(client),
                namespace=self.names.namespace,
                sketch_members=SETTINGS.sketch.members,
            )
            self.lookout = Lookout(Tail(self.settings, self.names.topics.changed.name), self.store)
            opening.callback(self.lookout.close)
            self._shoppers_open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shoppers_open.__exit__(kind, error, trace)

    def pair(self, *more: str) -> list[ConsumerProcess]:
        """Two behaviour consumers that have partitions."""
        # A batch has room for everything that is read again and for what is new behind it.
        more = ("--batch-records", "1000", "--write-seconds", str(WRITE_SECONDS), *more)
        found = [self.consumer("behaviour", *more) for _ in range(2)]
        for process in found:
            process.wait_assigned()
        return found

    def drain(self, timeout_seconds: float = 120.0) -> None:
        """Wait until all events are committed and nothing waits to be announced."""
        deadline = time.monotonic() + timeout_seconds
        self.shop.flush()
        wait_for_commits(self.settings, self.names.behaviour_group, self.shop.ends, deadline=deadline)
        while (waiting := self.store.waiting()) > 0:
            assert time.monotonic() < deadline, f"{waiting} items still wait to be announced"
            time.sleep(0.05)

    def dead_letters(self) -> int:
        """How many user events were put aside."""
        return len(read_dead_letters(self.settings, self.names.topics.events.name))

    def damage(self) -> Damage:
        """What Redis holds and what was announced against the oracle, from the log as the broker has it."""
        records = list(read_to_end(self.settings, self.names.topics.events.name))
        log = [
            Logged(
                record.partition,
                record.offset,
                record.timestamp_ms,
                UserEvent.model_validate_json(record.value or b""),
            )
            for record in records
        ]
        deadline = time.monotonic() + 10.0
        while True:
            found = damage(
                self.store, log, SETTINGS.sketch, recent_kept=SETTINGS.recent_items, seen=self.lookout.seen
            )
            # The last hints may still be on their way to whoever looks.
            if not found.silent or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def rewind(self) -> int:
        """Set the commits of a group without members to 0; how many records will be read again."""
        group = self.names.behaviour_group
        parts = [part for part in self.shop.ends if part.topic == self.names.topics.events.name]
        commits = self.committed(group)
        asking = Consumer({**self.settings.client_config("test-rewind"), "group.id": group})
        deadline = time.monotonic() + 20.0
        try:
            while True:
                try:
                    asking.commit(
                        offsets=[TopicPartition(part.topic, part.number, 0) for part in parts],
                        asynchronous=False,
                    )
                    return sum(commits[part] for part in parts)
                except KafkaException:  # a member is still leaving
                    assert time.monotonic() < deadline, "the group did not become empty"
                    time.sleep(0.2)
        finally:
            asking.close()


@dataclass(slots=True)
class Rounds:
    """What was exercised, and what was left."""

    #: By kind of failure, the rounds that found records in hand, and those that found none.
    counted: dict[str, int] = field(default_factory=dict)
    idle: int = 0
    #: Ends by themselves between a write and what must follow from it.
    crashes: int = 0
    #: Writes that went out after their process' session had ended.
    late_writes: int = 0
    events: int = 0
    sent_again: int = 0
    redelivered: int = 0
    duplicates: int = 0
    rewinds: int = 0
    lost_bytes: int = 0
    dead_letters: int = 0
    hints: int = 0
    damage: Damage = field(default_factory=Damage)

    @property
    def rounds(self) -> int:
        """How many count."""
        return sum(self.counted.values())

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.counted.items())
        lost = f"{self.rewinds} rewinds, {self.lost_bytes} bytes lost by Redis; " if self.rewinds else ""
        return (
            f"{self.events} events, {self.sent_again} of them sent again; {self.rounds} rounds with records "
            f"in hand ({kinds}; {self.idle} more found nothing), {self.crashes} ends in mid-debounce, "
            f"{self.late_writes} late writes, {self.redelivered} records redelivered ({self.duplicates} "
            f"duplicates), {lost}{self.hints} hints, {self.dead_letters} dead letters; {self.damage}"
        )


class _Harm:
    """Does one kind of harm at a time to two consumers under load; each answers whether it counts."""

    def __init__(self, world: ShopperWorld, *, seed: int, more: Sequence[str]) -> None:
        self.world = world
        self.draw = Random(seed)
        self.shoppers = Shoppers(Random(seed), shoppers=SHOPPERS, items=ITEMS)
        self.found = Rounds()
        self.pair = world.pair(*more)

    def load(self, seconds: float) -> threading.Thread:
        """Events arrive for so long."""
        count = int(EVENTS_PER_SECOND * seconds)
        return self.world.publishing(self.shoppers.events(count), seconds=seconds, count=count)

    def kill(self) -> bool:
        """kill -9 of one at a random moment, and the other ends in mid-debounce."""
        victim, faulty = self.draw.sample(self.pair, 2)
        faulty.stop()
        faulty.extra = ["--fault", f"{self.draw.choice(CRASHES)}{self.draw.randint(1, 3)}"]
        faulty.start()
        load = self.load(3.0)
        time.sleep(self.draw.uniform(0.3, 2.0))
        victim.kill()
        in_hand = self.world.in_flight(victim)
        if faulty.wait_ended(2 * SESSION_TIMEOUT_SECONDS) and "CRASH" in faulty.said():
            self.found.crashes += 1
        else:
            faulty.kill()
        faulty.extra = []
        load.join()
        self._start(victim, faulty)
        return in_hand > 0

    def pause(self) -> bool:
        """One sleeps for longer than its session, and wakes up when the other has its partitions."""
        victim, other = self.draw.sample(self.pair, 2)
        load = self.load(SESSION_TIMEOUT_SECONDS + 4.0)
        time.sleep(self.draw.uniform(0.5, 1.5))
        given, revoked = other.assignments(), victim.said().count("partitions_revoked")
        late = victim.said().count("LATE")
        victim.pause()
        in_hand = self.world.in_flight(victim)
        moved = _soon(lambda: other.assignments() > given, 3 * SESSION_TIMEOUT_SECONDS)
        time.sleep(1.0)
        victim.resume()
        load.join()
        woken = _soon(lambda: victim.said().count("partitions_revoked") > revoked, 20.0)
        self.found.late_writes += victim.said().count("LATE") - late
        return in_hand > 0 and moved and woken

    def move(self) -> bool:
        """One leaves in order and comes back: partitions go there and back."""
        victim = self.draw.choice(self.pair)
        load = self.load(3.0)
        time.sleep(self.draw.uniform(0.5, 1.5))
        victim.stop()
        in_hand = self.world.in_flight(victim)
        self._start(victim)
        load.join()
        return in_hand > 0

    def rewind(self) -> bool:
        """Both stop, and are told to read everything again."""
        load = self.load(3.0)
        time.sleep(self.draw.uniform(0.5, 1.5))
        for process in self.pair:
            process.stop()
        again = self.world.rewind()
        self._start(*self.pair)
        load.join()
        return again > 0

    def redis(self) -> bool:
        """kill -9 of Redis, which has lost its last second when it comes back."""
        load = self.load(5.0)
        time.sleep(1.0)
        files = _sizes(self.world.redis.folder)
        time.sleep(self.draw.uniform(*LOST_SECONDS))
        in_hand = sum(self.world.in_flight(process) for process in self.pair)
        self.world.redis.kill()
        lost = _cut(files)
        self.found.lost_bytes += lost
        self.world.redis.restart()
        load.join()
        return in_hand > 0 and lost > 0

    def hang(self) -> bool:
        """Redis answers nothing for longer than its clients wait, and then does what it was asked to."""
        load = self.load(HANG_SECONDS + 3.0)
        time.sleep(self.draw.uniform(0.5, 1.5))
        self.world.redis.pause()
        in_hand = sum(self.world.in_flight(process) for process in self.pair)
        time.sleep(HANG_SECONDS)
        self.world.redis.resume()
        load.join()
        return in_hand > 0

    def _start(self, *processes: ConsumerProcess) -> None:
        for process in processes:
            process.start()
        for process in processes:
            process.wait_assigned()

    def finished(self) -> Rounds:
        """Wait for the end of it all, and compare."""
        self.world.drain()
        found, world = self.found, self.world
        found.events, found.sent_again = self.shoppers.count, self.shoppers.again
        found.redelivered, found.duplicates = world.redelivered()
        logs = "".join(one.log_file.read_text(errors="replace") for one in world.processes)
        found.rewinds = logs.count("store_restarted")
        found.dead_letters = world.dead_letters()
        found.damage = world.damage()
        found.hints = world.lookout.hints
        assert found.damage.events == found.events, "the broker has not what was acknowledged"
        return found


def harm(world: ShopperWorld, kinds: Sequence[str], *, seed: int, rounds: int, fault: str = "") -> Rounds:
    """`rounds` rounds that count, of these kinds in turn: kill, pause, move, rewind, redis, hang.

    `fault` is a guard that both processes work without (tests/support/behaviour_faults.py).
    """
    more = ["--fault", fault] if fault else []
    # Redis may be back before the loop asks who it is: then the guard of the scripts has to hold.
    more += ["--commit-interval-seconds", "1.5"] if "redis" in kinds else []
    at_work, number = _Harm(world, seed=seed, more=more), 0
    found = at_work.found
    while found.rounds < rounds:
        assert number < 2 * rounds + 2, f"too few rounds find records in hand: {found}"
        kind = kinds[number % len(kinds)]
        if getattr(at_work, kind)():
            found.counted[kind] = found.counted.get(kind, 0) + 1
        else:
            found.idle += 1
        number += 1
    return at_work.finished()


def without_epoch(world: ShopperWorld, *, seed: int) -> Rounds:
    """Negative control: what is in hand goes to whichever Redis answers, before the loop has gone back."""
    return harm(world, ["redis"], seed=seed, rounds=2, fault=EPOCH_UNCHECKED)


def _soon(what: Callable[[], bool], timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _sizes(folder: Path) -> dict[Path, int]:
    """How long the append-only file is now; Redis 7 keeps it in several."""
    return {path: path.stat().st_size for path in folder.rglob("appendonly*.aof")}


def _cut(sizes: dict[Path, int]) -> int:
    """Make each file as long as it was; how many bytes that took."""
    lost = 0
    for path, size in sizes.items():
        lost += path.stat().st_size - size
        os.truncate(path, size)
    return lost
