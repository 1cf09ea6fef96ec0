"""A whole stack of processes under load, restarted one by one, and a service killed: who notices?

Reads   what the services answer
Writes  product events and user events
Never   takes a service for gone before a request has found it so, unless it was taken out of balance first,
        as a load balancer does before it ends a pod

`simstream consume` and `simstream serve` run as children, on the servers that `environment` names. Clients
ask for neighbours all the time, in turns of whichever services are in balance. A request that was on its way
to a process when that was killed has no answer: it was cut, and is asked again elsewhere. Everything else
that is not 200 failed.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.index import open_index
from adapters.kafka import Publisher
from app.children import HOST
from app.settings import Settings, load_settings
from app.wiring import live_collection, make_topics, open_publisher
from schemas.events import UserEvent
from tests.support.commands import Command
from tests.support.release_shop import NOW, until

CONSUMERS = ("products", "behaviour", "embeddings")
PAUSE_SECONDS = 0.02


class Part(Command):
    """A consumer, ready once its group has given it partitions."""

    def ready(self) -> bool:
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return b"partitions_assigned" in log.read()


class Served(Command):
    """A service on a port that stays its own from start to start."""

    def command(self) -> list[str]:
        return [*super().command(), "--port", str(self.port)]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/health/ready", timeout=5.0) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError, http.client.HTTPException):
            return False


@dataclass
class Clients:
    """Who asks, all the time. `answered` counts by service, `cut` holds when requests had no answer."""

    services: Sequence[Served]
    items: int
    in_balance: set[str] = field(default_factory=set)
    answered: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    cut: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    @contextmanager
    def asking(self, clients: int) -> Iterator[None]:
        """So many of them, until the end of the block."""
        self.in_balance = {one.name for one in self.services}
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]
        for one in threads:
            one.start()
        try:
            yield
        finally:
            self._stopped.set()
            for one in threads:
                one.join(60.0)

    def take_out(self, service: Served) -> None:
        """Nobody begins to ask it from now on; returns when nobody does any more."""
        self.in_balance.discard(service.name)
        time.sleep(10 * PAUSE_SECONDS)

    def put_in(self, service: Served) -> None:
        """It is asked again."""
        self.in_balance.add(service.name)

    def _ask(self, number: int) -> None:
        turn = number
        while not self._stopped.wait(PAUSE_SECONDS):
            turn += 1
            item = f"p{turn * 7 % self.items}"
            started = time.monotonic()
            # Around all of them: one that is gone refuses the connection, and the next is asked. Twice, for
            # one that was passed as out of balance may be in again when the next one is killed.
            for shift in range(2 * len(self.services)):
                service = self.services[(turn + shift) % len(self.services)]
                if service.name in self.in_balance and self._asked(service, item):
                    break
            else:
                self._note_failure(f"no service answered for {item}")
            with self._lock:
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)

    def _asked(self, service: Served, item: str) -> bool:
        connection = http.client.HTTPConnection(HOST, service.port, timeout=30.0)
        try:
            try:
                connection.connect()
            except OSError:
                with self._lock:
                    self.refused += 1
                return False
            connection.request("GET", f"/v1/items/{item}/similar?limit=5")
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            with self._lock:
                self.cut.append(time.monotonic())
            return False
        finally:
            connection.close()
        if answer.status != 200 or not json.loads(body)["items"]:
            self._note_failure(f"{service.name}: {answer.status} {body[:200]!r}")
        with self._lock:
            self.answered[service.name] += 1
        return True

    def _note_failure(self, said: str) -> None:
        with self._lock:
            self.failed.append(said)


@dataclass
class Load:
    """Events, all the time, and what has to come of them."""

    publisher: Publisher
    settings: Settings
    items: int
    revisions: dict[int, int] = field(default_factory=dict)
    views: Counter[int] = field(default_factory=Counter)

    def product(self, number: int) -> None:
        """A new revision; every third with another text."""
        revision = self.revisions[number] = self.revisions.get(number, 0) + 1
        event: dict[str, Any] = {
            "kind": "product_upserted",
            "product_id": f"p{number}",
            "revision": revision,
            "occurred_at": NOW.isoformat(),
            "title": f"a {'lamp' if number % 2 else 'shoe'} of sort {number}, edition {revision // 3}",
            "price": f"{revision}.00",
            "currency": "EUR",
        }
        topic = self.settings.named_topics().products.name
        self.publisher.send(topic, key=event["product_id"], value=json.dumps(event).encode())

    def view(self, shopper: int) -> None:
        """Another shopper looks at an item."""
        number = shopper % self.items
        self.views[number] += 1
        event = UserEvent(
            event_id=f"e{shopper}",
            type="view",
            user_id=f"u{shopper}",
            product_id=f"p{number}",
            occurred_at=NOW,
        )
        topic = self.settings.named_topics().events.name
        self.publisher.send(topic, key=event.user_id, value=event.model_dump_json(exclude_none=True).encode())

    @property
    def events(self) -> int:
        """How many there have been."""
        return sum(self.revisions.values()) + self.views.total()

    @contextmanager
    def coming(self, per_second: float) -> Iterator[None]:
        """Both kinds in turns, until the end of the block, and then on the broker."""
        stopped = threading.Event()

        def send() -> None:
            number = 0
            while not stopped.wait(2 / per_second):
                self.product(number % self.items)
                self.view(number)
                number += 1

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join(30.0)
            assert self.publisher.flush(60.0) == 0, "the broker has not taken every event"


@dataclass
class Rolled:
    """What was done to the processes, and what anybody noticed."""

    restarts: int = 0
    kills: int = 0
    events: int = 0
    clients: int = 0
    #: Requests answered while each process was down, the least of them.
    least_answered: int = 0
    answered: int = 0
    refused: int = 0
    cut_in_order: int = 0
    cut_by_kill: int = 0
    failed: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    stale: list[str] = field(default_factory=list)
    miscounted: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.restarts} processes restarted, {self.kills} services killed; {self.answered} queries "
            f"answered, at least {self.least_answered} during each, slowest {self.slowest_seconds:.2f} s; "
            f"{len(self.failed)} failed, {self.cut_by_kill} cut by the kill, {self.cut_in_order} otherwise, "
            f"{self.refused} connections refused; {self.events} events, {len(self.stale)} items stale, "
            f"{len(self.miscounted)} miscounted"
        )


def roll(
    folder: Path, environment: Mapping[str, str], *, consumers: int, services: int, items: int, clients: int
) -> Rolled:
    """Start everything, restart each process in order under load, kill a service; drain and compare."""
    settings, done = load_settings(dict(environment)), Rolled(clients=clients)
    with ExitStack() as opened:
        make_topics(settings)
        index = open_index(settings.qdrant)
        opened.callback(index.close)
        live_collection(settings, index)
        publisher = open_publisher(settings, "test-rolling")
        opened.callback(publisher.close)
        load = Load(publisher, settings, items)
        parts = [
            Part(folder, environment, f"{name}-{number}", "consume", name)
            for name in CONSUMERS
            for number in range(consumers)
        ]
        serving = [Served(folder, environment, f"service-{number}", "serve") for number in range(services)]
        _start(opened, [*parts, *serving])
        for number in range(items):
            load.product(number)
        asked = Clients(serving, items)
        until(lambda: all(_item(serving[0], number)["indexed_revision"] == 1 for number in range(items)))
        with load.coming(per_second=80.0), asked.asking(clients):
            done.least_answered = 10**9
            for one in [*parts, *serving]:
                before = asked.answered.total()
                if isinstance(one, Served):
                    asked.take_out(one)
                one.restart()
                if isinstance(one, Served):
                    asked.put_in(one)
                done.restarts += 1
                done.least_answered = min(done.least_answered, asked.answered.total() - before)
            done.cut_in_order = len(asked.cut)
            time.sleep(0.5)
            serving[0].kill()
            done.kills += 1
            before = asked.answered.total()
            until(lambda: asked.answered.total() > before + 10 * clients and asked.refused > 0)
            done.cut_by_kill = len(asked.cut) - done.cut_in_order
            serving[0].restart()
        done.events = load.events
        done.answered, done.refused = asked.answered.total(), asked.refused
        done.failed, done.slowest_seconds = asked.failed, asked.slowest_seconds
        _settle(serving[1], load, done)
    return done


def _start(opened: ExitStack, parts: Sequence[Command]) -> None:
    """All at a time: most of a start is imports."""
    failures: list[BaseException] = []

    def start(part: Command) -> None:
        try:
            part.start()
        except BaseException as error:  # noqa: BLE001  raised below
            failures.append(error)

    threads = [threading.Thread(target=start, args=(part,)) for part in parts]
    for part in parts:
        opened.callback(part.stop)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _settle(service: Served, load: Load, done: Rolled) -> None:
    """Wait until every item is what its events come to, or for two minutes; what is not."""
    deadline = time.monotonic() + 120.0
    while True:
        found = {number: _item(service, number) for number in range(load.items)}
        done.stale = [
            f"p{number}"
            for number, item in found.items()
            if not item["revision"] == item["indexed_revision"] == load.revisions[number]
        ]
        done.miscounted = [
            f"p{number}: {item['counters'].get('view', 0)} of {load.views[number]} views"
            for number, item in found.items()
            if item["counters"].get("view", 0) != load.views[number]
        ]
        if not (done.stale or done.miscounted) or time.monotonic() > deadline:
            return
        time.sleep(0.2)


def _item(service: Served, number: int) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{service.port}/v1/items/p{number}", timeout=30.0) as said:
            found: dict[str, Any] = json.loads(said.read())
            return found
    except urllib.error.HTTPError as error:
        if error.code == 404:  # its first event is still on its way
            return {"revision": None, "indexed_revision": None, "counters": {}}
        raise
