"""POST /v1/events against real brokers: what is acknowledged is on the topic, and counts once.

Clients post everything twice, hang up in the middle, are killed; the broker is killed and comes back.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from adapters.index_edge import EdgeIndex
from adapters.kafka import KafkaSettings, Publisher
from adapters.kafka_log import read_to_end
from adapters.kafka_reader import Partition
from app.local import LocalRedis, TansuBroker
from client import ApiError, Retries, Simstream
from schemas.events import Frozen, UserEvent
from schemas.parsing import parse_event
from schemas.topics import Topic
from service.api import create_app
from service.settings import ServiceSettings
from service.sink import EventSink
from tests.support.draining import quick_settings, wait_for_commits
from tests.support.pipeline import Pipeline
from tests.support.posting import event
from tests.support.servers import ApacheKafka, Broker, require_kafka
from tests.support.serving import connected, request_head, serving

ROOT = Path(__file__).parent.parent.parent
ACK_SECONDS = 2.0
AWAY_SECONDS = 10.0
#: Shorter than what a client waits for, longer than one second.
PATIENT = Retries(attempts=200, longest_wait_seconds=5.0)


class Posted:
    """A service over a broker, and the behaviour consumer that counts what arrives."""

    def __init__(self, url: str, pipeline: Pipeline, sink: EventSink) -> None:
        self.url = url
        self.pipeline = pipeline
        self.sink = sink

    def on_topic(self) -> list[str]:
        """Ids of the events on the topic, as often as they are there; everything is counted by then."""
        topic, settings = self.pipeline.topics.events.name, self.pipeline.settings
        records = list(read_to_end(settings, topic))
        ends: dict[Partition, int] = {}
        for record in records:
            part = Partition(topic, record.partition)
            ends[part] = max(ends.get(part, 0), record.offset + 1)
        wait_for_commits(
            settings,
            self.pipeline.names.behaviour_group,
            ends,
            deadline=time.monotonic() + 60.0,
            check=self.pipeline.check,
        )
        return [parse_event(record.value or b"", UserEvent).event_id for record in records]

    def views(self) -> int:
        """What the consumer has counted."""
        figures = self.pipeline.reader.figures(["p0", "p1", "p2"])
        return sum(one.totals["view"] for one in figures.values())


@contextmanager
def posted(
    settings: KafkaSettings,
    redis_url: str,
    namespace: str,
    folder: Path,
    *,
    kind: type[EventSink] = EventSink,
) -> Iterator[Posted]:
    """Everything that a post passes through, running; the sink is of that kind."""
    index = EdgeIndex(folder / "index")
    pipeline = Pipeline(
        kafka=settings,
        redis_url=redis_url,
        namespace=namespace,
        index=index,
    )
    pipeline.start_behaviour()
    impatient = pipeline.settings.model_copy(update={"delivery_timeout_seconds": ACK_SECONDS})
    sink = kind(
        opened=lambda: Publisher(impatient, client_id="test-api"),
        ack_seconds=ACK_SECONDS,
        most_records=2_000,
        most_bytes=8_000_000,
    )
    nothing = cast(Any, object())
    limits = ServiceSettings(retry_after_seconds=1)
    app = create_app(
        index=index, store=nothing, releases=nothing, settings=limits, sink=sink, topics=pipeline.topics
    )
    try:
        with serving(app, limits) as url:
            yield Posted(url, pipeline, sink)
    finally:
        sink.close()
        pipeline.stop()
        index.close()


def reset(client: socket.socket) -> None:
    """Hang up at once, with a reset: what was sent may or may not have been read."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def body_of(events: Sequence[UserEvent]) -> bytes:
    return json.dumps([each.model_dump(mode="json", exclude_none=True) for each in events]).encode()


def test_posted_twice_and_by_clients_that_hang_up_or_are_killed_every_event_counts_once(
    broker: Broker, redis_server: LocalRedis, namespace: str, tmp_path: Path
) -> None:
    with posted(quick_settings(broker), redis_server.url, namespace, tmp_path) as service:
        acknowledged: list[str] = []

        def twice(number: int) -> None:
            one = event(f"twice-{number}", number)
            with Simstream(service.url, retries=PATIENT) as client:
                for _ in range(2):
                    client.publish_events([one])
            acknowledged.append(one.event_id)

        with ThreadPoolExecutor(4) as clients:
            list(clients.map(twice, range(100)))

        # The whole post is sent, its answer never read; then half a post.
        for number in range(40):
            body = body_of([event(f"gone-{number}-{part}", part) for part in range(5)])
            with connected(service.url) as client:
                head = request_head(
                    "POST", "/v1/events", "Content-Type: application/json", f"Content-Length: {len(body)}"
                )
                client.sendall(head + (body if number % 2 else body[: len(body) // 2]))
                if number % 4 == 1:
                    time.sleep(0.01)
                reset(client)

        killed = 0
        for number in range(3):
            file = tmp_path / f"acknowledged-{number}"
            command = [sys.executable, "-m", "tests.support.posting", service.url, str(file), f"k{number}"]
            child = subprocess.Popen(command, cwd=ROOT)
            until = time.monotonic() + 60.0
            while not file.exists() or file.stat().st_size < 400:
                assert time.monotonic() < until, "the client posts nothing"
                assert child.poll() is None, "the client ended by itself"
                time.sleep(0.01)
            child.kill()
            child.wait()
            killed += 1
            acknowledged += file.read_text().split()

        found = Counter(service.on_topic())
        missing = set(acknowledged) - set(found)
        halves = [name for name in found if name.startswith("gone-") and int(name.split("-")[1]) % 2 == 0]
        print(
            f"{len(acknowledged)} acknowledged, {sum(found.values())} on the topic of which "
            f"{sum(found.values()) - len(found)} again, {killed} clients killed, "
            f"{sum(name.startswith('gone-') for name in found)} events of clients that hung up"
        )
        assert not missing
        assert not halves
        # A post arrives whole or not at all: nobody was answered, so either may be.
        assert all(
            len({f"gone-{number}-{part}" in found for part in range(5)}) == 1 for number in range(1, 40, 2)
        )
        assert sum(found.values()) >= len(found) + 100, "nothing came twice: this proved nothing"
        assert service.views() == len(found)


class Hasty(EventSink):
    """Says yes before the broker has, and is cut off before it sends: the guard switched off."""

    async def publish(self, topic: Topic, events: Sequence[Frozen]) -> int:
        """All of them, it says."""
        return len(events)


def test_an_acknowledgement_without_the_brokers_would_be_found(
    tansu: TansuBroker, redis_server: LocalRedis, namespace: str, tmp_path: Path
) -> None:
    settings = quick_settings(tansu)
    with (
        posted(settings, redis_server.url, namespace, tmp_path, kind=Hasty) as service,
        Simstream(service.url) as client,
    ):
        assert client.publish_events([event("lost", 0)]) == 1
        assert service.on_topic() == []


@pytest.mark.kafka
@pytest.mark.slow
def test_while_the_broker_is_away_nothing_is_acknowledged_and_afterwards_nothing_is_missing(
    redis_server: LocalRedis, namespace: str, tmp_path: Path
) -> None:
    require_kafka()
    with (
        ApacheKafka(tmp_path / "kafka") as kafka,
        posted(quick_settings(kafka), redis_server.url, namespace, tmp_path) as service,
    ):
        acknowledged: list[str] = []
        refused: list[ApiError] = []
        stop = threading.Event()
        away = threading.Event()
        during: list[str] = []

        def post(name: str) -> None:
            number = 0
            with Simstream(service.url, retries=Retries(attempts=1)) as client:
                while not stop.is_set():
                    one = event(f"{name}-{number}", number)
                    was_away = away.is_set()
                    try:
                        client.publish_events([one])
                    except ApiError as error:
                        refused.append(error)
                        time.sleep(0.2)
                        continue  # the same event again
                    acknowledged.append(one.event_id)
                    if was_away and away.is_set():
                        during.append(one.event_id)
                    number += 1

        with ThreadPoolExecutor(4) as clients:
            posting = [clients.submit(post, f"c{number}") for number in range(4)]
            until = time.monotonic() + 30.0
            while len(acknowledged) < 40:
                assert time.monotonic() < until, "nothing is acknowledged"
                time.sleep(0.05)
            kafka.kill()
            away.set()
            time.sleep(AWAY_SECONDS)
            away.clear()
            before = len(acknowledged)
            kafka.restart()
            until = time.monotonic() + 90.0
            while len(acknowledged) < before + 200:
                assert time.monotonic() < until, "nothing is acknowledged any more"
                time.sleep(0.05)
            stop.set()
            for one in posting:
                one.result(timeout=30.0)

        found = Counter(service.on_topic())
        print(
            f"{len(acknowledged)} acknowledged, {len(refused)} posts refused, {sum(found.values())} records "
            f"of {len(found)} events on the topic"
        )
        assert not during, "acknowledged by nobody"
        assert refused
        assert {error.status for error in refused} == {503}
        assert len(acknowledged) == len(set(acknowledged))
        assert set(acknowledged) <= set(found)
        assert service.views() == len(found)
