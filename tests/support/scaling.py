"""Consumers from one process to two to four and back, under load: twelve partitions, three Redis nodes.

Reads   what tests/support/chaos.py reads
Writes  product events and user events
Never   counts a step in which a process had nothing to do
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from adapters.kafka_log import read_to_end
from adapters.redis_behaviour import BehaviourStore
from adapters.redis_client import RedisSettings, connect
from adapters.redis_nodes import RedisNodes
from schemas.events import UserEvent
from tests.support.behaviour_faults import SETTINGS
from tests.support.behaviour_oracle import Logged, expected_items, items_in
from tests.support.chaos import Catalogue, ConsumerProcess, Difference, World
from tests.support.draining import wait_for_commits
from tests.support.servers import LocalRedisCluster
from tests.support.shoppers import Shoppers

CONSUMERS = ("products", "embeddings", "behaviour")


class ScaleWorld(World):
    """As `World`, with a Redis Cluster of three nodes and as many partitions as in production."""

    partitions = 12

    def __init__(self, folder: Path, bootstrap: str, namespace: str) -> None:
        super().__init__(folder, bootstrap, namespace)
        self.cluster = LocalRedisCluster(folder / "cluster")

    def stores(self) -> AbstractContextManager[object]:
        """Three nodes."""
        return self.cluster

    def redis_arguments(self) -> list[str]:
        """One of them."""
        return ["--redis", self.cluster.url, "--redis-cluster"]

    def miscounted(self) -> list[str]:
        """Items whose counters, guards aside, are not what the log of user events comes to."""
        client = connect(RedisSettings(url=self.cluster.url, cluster=True))
        with ExitStack() as opened:
            opened.callback(client.close)
            store = BehaviourStore(
                nodes=RedisNodes(client),
                namespace=self.names.namespace,
                sketch_members=SETTINGS.sketch.members,
            )
            log = [
                Logged(
                    one.partition,
                    one.offset,
                    one.timestamp_ms,
                    UserEvent.model_validate_json(one.value or b""),
                )
                for one in read_to_end(self.settings, self.names.topics.events.name)
            ]
            wanted, found = expected_items(log, SETTINGS.sketch), items_in(store)
        return [item for item in sorted(wanted | found) if wanted.get(item) != found.get(item)]


@dataclass(slots=True)
class Step:
    """So many processes of each consumer, for so long: what each of them took, in records a second."""

    processes: int
    seconds: float
    rates: dict[str, list[float]] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = "; ".join(
            f"{name} {' '.join(f'{rate:.0f}' for rate in rates)}" for name, rates in self.rates.items()
        )
        return f"{self.processes} of each: records/s by process: {shown}"

    @property
    def idle(self) -> int:
        """Processes that took nothing."""
        return sum(rate == 0 for rates in self.rates.values() for rate in rates)


@dataclass(slots=True)
class Scaled:
    """What was exercised, and what was left."""

    steps: list[Step] = field(default_factory=list)
    events: int = 0
    kills: int = 0
    moves: int = 0
    redelivered: int = 0
    difference: Difference = field(default_factory=Difference)
    miscounted: list[str] = field(default_factory=list)
    dead_letters: int = 0

    def __str__(self) -> str:
        lines = [str(step) for step in self.steps]
        lines.append(
            f"{self.events} events, {self.kills} processes killed, partitions given {self.moves} times, "
            f"{self.redelivered} records twice; {self.difference}, {len(self.miscounted)} items miscounted, "
            f"{self.dead_letters} dead letters"
        )
        return "\n".join(lines)


def scale(
    world: ScaleWorld, *, seed: int, steps: Sequence[int], seconds: float, rate: int, items: int
) -> Scaled:
    """Run the steps, one after the other, without a pause of the load; then drain and compare.

    Half of the events are products', half shoppers'; every other product comes in the bulk lane. Where a step
    has fewer processes than the one before, one process of each consumer is killed, and the others are
    stopped.
    """
    done = Scaled()
    catalogue, shoppers, stop = Catalogue(seed, items), Shoppers(Random(seed), items=40), threading.Event()

    def publish() -> None:
        started = time.monotonic()
        for product in catalogue.events(10**9):
            world.shop.publish([product], bulk=done.events % 4 == 0)
            world.shop.publish([shoppers.event()])
            done.events += 2
            if stop.wait(max(0.0, started + done.events / rate - time.monotonic())):
                return

    running: dict[str, list[ConsumerProcess]] = {name: [] for name in CONSUMERS}
    for process in _more(world, running, steps[0]):
        process.wait_assigned()
    load = threading.Thread(target=publish, name="test-load", daemon=True)
    load.start()
    try:
        for number in steps:
            done.kills += _fewer(running, number)
            for process in _more(world, running, number):
                process.wait_assigned()
            done.steps.append(_measured(running, number, seconds))
    finally:
        stop.set()
        load.join(30.0)
    world.drain(120.0)
    ends = {
        part: end for part, end in world.shop.ends.items() if part.topic == world.names.topics.events.name
    }
    wait_for_commits(world.settings, world.names.behaviour_group, ends, deadline=time.monotonic() + 60.0)
    done.moves = sum(process.assignments() for process in world.processes)
    done.redelivered = world.redelivered()[0]
    done.difference = world.compare(catalogue)
    done.miscounted = world.miscounted()
    done.dead_letters = world.dead_letters()
    return done


def _more(world: ScaleWorld, running: dict[str, list[ConsumerProcess]], number: int) -> list[ConsumerProcess]:
    """Start what is missing; the new ones."""
    new = []
    for name, processes in running.items():
        while len(processes) < number:
            processes.append(world.consumer(name))
            new.append(processes[-1])
    return new


def _fewer(running: dict[str, list[ConsumerProcess]], number: int) -> int:
    """End what is too many: the first of each consumer is killed; how many were."""
    killed = 0
    for processes in running.values():
        if len(processes) > number:
            processes.pop(0).kill()
            killed += 1
        while len(processes) > number:
            processes.pop().stop()
    return killed


def _measured(running: dict[str, list[ConsumerProcess]], number: int, seconds: float) -> Step:
    """Let them work for a while; what each took meanwhile."""
    before = {process: _taken(process) for processes in running.values() for process in processes}
    started = time.monotonic()
    time.sleep(seconds)
    # A process that has been given its partitions just now may still have to read the first record of them.
    deadline = started + 30.0
    while any(_taken(one) == count for one, count in before.items()) and time.monotonic() < deadline:
        time.sleep(0.2)
    took = time.monotonic() - started
    return Step(
        number,
        took,
        {
            name: [(_taken(one) - before[one]) / took for one in processes]
            for name, processes in running.items()
        },
    )


def _taken(process: ConsumerProcess) -> int:
    return sum(len(offsets) for _, offsets in process.taken())
