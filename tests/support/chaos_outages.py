"""Stores that are away under load: the consumers wait, keep their partitions and their size, and catch up.

Reads   what tests/support/chaos.py reads; the memory of its processes (Linux)
Writes  product events
Never   counts an outage during which nothing waited
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from confluent_kafka import Consumer, TopicPartition

from tests.support.chaos import Catalogue, Difference, World
from tests.support.consumer_process import GIVE_UP
from tests.support.qdrant_rest import Mode

MIB = 1024 * 1024
REDIS_KILLED = "Redis killed"


@dataclass(frozen=True, slots=True)
class Outage:
    """One outage: what it was, what waited, and what was left."""

    what: str
    events: int
    #: Hints published beside them, for items that had not changed.
    hints: int
    #: Records that the two groups had not committed at its end.
    waiting_products: int
    waiting_embeddings: int
    #: How often a consumer said that it waits.
    waits: int
    caught_up_seconds: float
    #: The most that either process has grown beyond what it held before the first outage.
    grown_mib: float
    partitions_moved: int
    dead_letters: int
    difference: Difference

    @property
    def waiting(self) -> int:
        """Records of both groups together."""
        return self.waiting_products + self.waiting_embeddings

    def __str__(self) -> str:
        waiting = f"{self.waiting_products} + {self.waiting_embeddings}"
        return (
            f"{self.what}: {self.events} events, {self.hints} hints; {waiting} waited for products + "
            f"embeddings, which said so {self.waits} times; caught up in {self.caught_up_seconds:.1f} s, "
            f"grown by {self.grown_mib:.0f} MiB, {self.partitions_moved} partition moves, "
            f"{self.dead_letters} dead letters; {self.difference}"
        )


def outages(
    world: World,
    *,
    seed: int,
    items: int,
    seconds: float,
    rate: int,
    backlog: int = 0,
    only: str = "",
    fault: str = "",
) -> list[Outage]:
    """Each failure (or `only` one) for `seconds`, while `rate` events/s arrive, and `backlog` records at once
    at its start: product events where Redis fails, hints where the index does, so that they wait for the one
    that suffers. `fault` is a guard of products that is switched off.
    """
    draw, catalogue = Random(seed), Catalogue(seed, items)
    faults = ["--fault", fault] if fault else []
    processes = [world.consumer("products", *faults), world.consumer("embeddings")]
    for process in processes:
        process.wait_assigned()
    world.publish(catalogue.first())
    world.publish(catalogue.events(rate))
    world.drain(300.0)
    steady = [process.memory_bytes() for process in processes]

    def arrive(begun: threading.Event, sent: list[int], *, hints: bool) -> None:
        """Everything that is published, on one thread: the oracle and the log have one order."""
        sent.append(world.publish(catalogue.events(rate), seconds=1.0, count=rate))
        begun.set()
        until = time.monotonic() + seconds
        if hints:
            world.hint(draw.choices(list(catalogue.newest), k=backlog))
        else:
            sent.append(world.publish(catalogue.events(backlog)))
        left = max(1.0, until - time.monotonic())
        count = int(rate * left)
        sent.append(world.publish(catalogue.events(count), seconds=left, count=count))

    def one(what: str, begin: Callable[[], None], end: Callable[[], None], *, hints: bool) -> Outage:
        before = [process.said() for process in processes]
        begun, sent = threading.Event(), list[int]()
        load = threading.Thread(target=arrive, args=(begun, sent), kwargs={"hints": hints}, daemon=True)
        load.start()
        begun.wait()
        started = time.monotonic()
        begin()
        time.sleep(max(0.0, started + seconds * 0.95 - time.monotonic()))
        waiting = [_waiting(world, process.group) for process in processes]
        time.sleep(max(0.0, started + seconds - time.monotonic()))
        end()
        over = time.monotonic()
        load.join()
        world.drain(300.0)
        caught_up = time.monotonic() - over
        news = "".join(process.said()[len(text) :] for process, text in zip(processes, before, strict=True))
        grown = max(
            process.memory_bytes("VmHWM") - base for process, base in zip(processes, steady, strict=True)
        )
        found = Outage(
            what=what,
            events=sum(sent),
            hints=backlog if hints else 0,
            waiting_products=waiting[0],
            waiting_embeddings=waiting[1],
            waits=news.count("consumer_waits"),
            caught_up_seconds=caught_up,
            grown_mib=grown / MIB,
            partitions_moved=news.count("partitions_assigned") + news.count("partitions_revoked"),
            dead_letters=world.dead_letters(),
            difference=world.compare(catalogue),
        )
        print(found, flush=True)
        return found

    def nothing() -> None:
        """The server comes back by itself."""

    def index(what: str, mode: Mode) -> Outage:
        return one(what, lambda: world.server.misbehave(mode, seconds=seconds), nothing, hints=True)

    def store(what: str, begin: Callable[[], None], end: Callable[[], None]) -> Outage:
        return one(what, begin, end, hints=False)

    failures: dict[str, Callable[[str], Outage]] = {
        "Redis stopped": lambda what: store(what, world.redis.pause, world.redis.resume),
        REDIS_KILLED: lambda what: store(what, world.redis.kill, world.redis.restart),
        "index refuses": lambda what: index(what, "refuse"),
        "index hangs": lambda what: index(what, "hang"),
        "index loses replies": lambda what: index(what, "lose_reply"),
    }
    return [fail(what) for what, fail in failures.items() if only in ("", what)]


def given_up(world: World, *, seed: int, items: int, seconds: float, rate: int) -> Outage:
    """Negative control: products puts records aside because Redis is away, and commits all the same."""
    (found,) = outages(
        world, seed=seed, items=items, seconds=seconds, rate=rate, only=REDIS_KILLED, fault=GIVE_UP
    )
    return found


def _waiting(world: World, group: str) -> int:
    """Records on the topics of the group that it has not committed."""
    topics = world.names.topics
    names = (
        [topics.products.name]
        if group == world.names.products_group
        else [topics.changed.name, topics.changed_bulk.name]
    )
    commits = world.committed(group)
    asking = Consumer({**world.settings.client_config("test-chaos"), "group.id": f"{group}-ends"})
    try:
        return sum(
            asking.get_watermark_offsets(TopicPartition(part.topic, part.number), timeout=10.0)[1] - offset
            for part, offset in commits.items()
            if part.topic in names
        )
    finally:
        asking.close()
