"""kill -9 of consumers at random moments, and what is left in the index afterwards.

Reads   what tests/support/chaos.py reads
Writes  product events
Never   counts a kill that found nothing in hand
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random

from tests.support.chaos import Catalogue, ConsumerProcess, Difference, World
from tests.support.consumer_process import COMMIT_FIRST, CRASH
from tests.support.draining import SESSION_TIMEOUT_SECONDS

PUBLISH_SECONDS = 2.0
#: A text batch takes this long, so that a kill finds some in the encoder.
ENCODE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Kills:
    """What was exercised, and what was left."""

    events: int
    #: Kills that found records in hand, those between write and announcement included.
    kills: int
    idle_kills: int
    #: Ends between the write to Redis and the announcement.
    crashes: int
    redelivered: int
    duplicates: int
    dead_letters: int
    difference: Difference

    def __str__(self) -> str:
        return (
            f"{self.events} events, {self.kills} kills with records in hand ({self.crashes} of them between "
            f"write and announcement; {self.idle_kills} more found nothing), {self.redelivered} records "
            f"redelivered ({self.duplicates} duplicates), {self.dead_letters} dead letters; {self.difference}"
        )


class Killer:
    """Kills processes and keeps count."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.kills = self.idle = self.crashes = 0

    def kill(self, victim: ConsumerProcess) -> None:
        victim.kill()
        if self._world.in_flight(victim):
            self.kills += 1
        else:
            self.idle += 1

    def crash(self, victim: ConsumerProcess) -> None:
        """The victim ends by itself; if no batch comes its way, it is killed."""
        if victim.wait_ended(3 * SESSION_TIMEOUT_SECONDS):
            assert "CRASH before announcing" in victim.said(), victim.said()[-2000:]
            self.kills += 1
            self.crashes += 1
        else:
            self.kill(victim)


def kill_consumers(world: World, *, seed: int, events: int, items: int, kills: int, pairs: int) -> Kills:
    """At least `kills` kills that count, over at least `events` events, with `pairs` processes of each kind.

    Each round kills one products and one embeddings process under load, and every other round once more the
    products process, between its write to Redis and the announcement.
    """
    draw, catalogue, killer = Random(seed), Catalogue(seed, items), Killer(world)
    products = [world.consumer("products") for _ in range(pairs)]
    embeddings = [world.consumer("embeddings", "--encode-seconds", str(ENCODE_SECONDS)) for _ in range(pairs)]
    for process in (*products, *embeddings):
        process.wait_assigned()
    published = number = 0
    count = -(-2 * events // kills)
    while killer.kills < kills or published < events:
        assert number < 2 * kills, f"too few kills find records in hand: {killer.idle} of {killer.kills}"
        victims = [draw.choice(products), draw.choice(embeddings)]
        load = world.publishing(catalogue.events(count), seconds=PUBLISH_SECONDS, count=count)
        published += count
        moments = sorted((draw.uniform(0.3, PUBLISH_SECONDS), victim.name) for victim in victims)
        started = time.monotonic()
        for moment, name in moments:
            victim = next(one for one in victims if one.name == name)
            time.sleep(max(0.0, started + moment - time.monotonic()))
            killer.kill(victim)
            if victim in products and number % 2 == 0:
                victim.extra = ["--fault", f"{CRASH}{draw.randint(1, 3)}"]
            victim.start()
        load.join()
        if victims[0].extra:
            killer.crash(victims[0])
            victims[0].extra = []
            victims[0].start()
        for process in (*products, *embeddings):
            process.wait_assigned()
        number += 1
    world.drain(120.0)
    records, duplicates = world.redelivered()
    return Kills(
        events=published,
        kills=killer.kills,
        idle_kills=killer.idle,
        crashes=killer.crashes,
        redelivered=records,
        duplicates=duplicates,
        dead_letters=world.dead_letters(),
        difference=world.compare(catalogue),
    )


def commit_before_write(world: World, *, seed: int, items: int) -> Difference:
    """Negative control: embeddings settles first; one kill between its commit and its write."""
    catalogue = Catalogue(seed, items)
    products = world.consumer("products", "--commit-delay-seconds", "0")
    victim = world.consumer("embeddings", "--fault", COMMIT_FIRST, "--encode-seconds", "5")
    products.wait_assigned()
    victim.wait_assigned()
    before = sum(world.committed(victim.group).values())
    world.publish(catalogue.first())
    deadline = time.monotonic() + 30.0
    while sum(world.committed(victim.group).values()) == before:
        assert time.monotonic() < deadline, f"{victim.name} committed nothing: {victim.said()[-2000:]}"
    victim.kill()
    world.consumer("embeddings").wait_assigned()
    world.drain()
    return world.compare(catalogue)
