"""Consumers as a child: they consume, tell their metrics, and do not hide their end."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY, Counter, generate_latest

from adapters.kafka import Publisher
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.metrics import RECORDS_TOTAL
from app.consumer_process import ConsumersProcess, registry_of
from app.local import LocalRedis, TansuBroker
from app.settings import Settings, load_settings
from app.wiring import open_store
from schemas.errors import Halt
from tests.support.draining import quick_settings


@pytest.fixture
def settings(tansu: TansuBroker, redis_server: LocalRedis, namespace: str) -> Settings:
    settings = load_settings(
        {"SIMSTREAM_NAMESPACE": namespace, "SIMSTREAM_LOG__LEVEL": "WARNING"}
    ).model_copy(update={"kafka": quick_settings(tansu)})
    settings = settings.model_copy(
        update={"redis": settings.redis.model_copy(update={"url": redis_server.url})}
    )
    ensure_topics(
        open_admin(settings.kafka), settings.named_topics().declared(), partitions=2, replication_factor=1
    )
    return settings


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


class Running:
    """The child's `run` on a thread, as the stack has it."""

    def __init__(self, settings: Settings, *, assigned: bool = True) -> None:
        self.child = ConsumersProcess(settings, ["products", "reviews"])
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        if assigned:
            until(self.child.assigned.is_set, 60.0)

    def _run(self) -> None:
        try:
            self.child.run()
        except BaseException as error:  # noqa: BLE001  looked at by the test
            self.failure = error

    def end(self) -> BaseException | None:
        self.thread.join(30.0)
        assert not self.thread.is_alive()
        return self.failure


def test_it_consumes_tells_its_metrics_and_stops_in_order(settings: Settings) -> None:
    running = Running(settings)
    publisher = Publisher(settings.kafka)
    body = (
        b'{"kind":"product_upserted","product_id":"p1","revision":1,'
        b'"occurred_at":"2026-11-24T08:00:00Z","title":"lamp"}'
    )
    topic = settings.named_topics().products.name
    publisher.send(topic, key="p1", value=body)
    review = (
        b'{"kind":"review_posted","review_id":"r1","product_id":"p1","rating":4,'
        b'"occurred_at":"2026-11-24T08:00:00Z","text":"It lights the whole room evenly."}'
    )
    reviews = settings.named_topics().reviews.name
    publisher.send(reviews, key="p1", value=review)
    publisher.close()
    store = open_store(settings)
    until(lambda: "p1" in store.read(["p1"]) and store.read(["p1"])["p1"].reviews is not None)

    # Its records are added to those that this process has counted itself.
    RECORDS_TOTAL.labels(consumer="products", topic=topic).inc(4)
    together = registry_of([running.child.metrics])
    shown = generate_latest(together).decode()
    assert re.search(rf'simstream_records_total{{consumer="products",topic="{topic}"}} 5\.0', shown)
    assert f'simstream_records_total{{consumer="reviews",topic="{reviews}"}} 1.0' in shown
    assert shown.count("# TYPE simstream_records_total ") == 1
    assert shown.count("# TYPE process_resident_memory_bytes ") == 1

    running.child.stop()
    assert running.end() is None
    assert running.child.metrics() == ""


def test_a_child_that_is_killed_is_a_fault_of_the_stack(settings: Settings) -> None:
    running = Running(settings)
    assert running.child.pid is not None
    os.kill(running.child.pid, signal.SIGKILL)
    failure = running.end()
    assert isinstance(failure, Halt)
    assert "the process of products and reviews has ended: exit code -9" in str(failure)


def test_one_consumer_that_halts_takes_the_others_along_and_says_why(settings: Settings) -> None:
    publisher = Publisher(settings.kafka)
    topic = settings.named_topics().reviews.name
    for _ in range(1_500):
        publisher.send(topic, key="p1", value=b"no review")
    publisher.close()
    running = Running(settings, assigned=False)
    failure = running.end()
    assert isinstance(failure, Halt)
    assert "the process of products and reviews has ended: reviews: " in str(failure)
    assert f"records of {topic} could not be read" in str(failure)


def test_what_only_others_have_is_shown_and_what_describes_a_process_is_not_added() -> None:
    mine = Counter("simstream_test_mine", "Mine.", ["kind"])
    mine.labels(kind="a").inc(2)
    theirs = (
        "# HELP simstream_test_mine_total Mine.\n# TYPE simstream_test_mine_total counter\n"
        'simstream_test_mine_total{kind="a"} 3.0\nsimstream_test_mine_total{kind="b"} 1.0\n'
        "# HELP simstream_test_theirs Theirs.\n# TYPE simstream_test_theirs gauge\n"
        "simstream_test_theirs 7.0\n"
        "# HELP process_open_fds Number of open file descriptors.\n# TYPE process_open_fds gauge\n"
        "process_open_fds 1e+06\n"
    )
    try:
        shown = generate_latest(registry_of([lambda: theirs, lambda: ""])).decode()
    finally:
        REGISTRY.unregister(mine)
    assert 'simstream_test_mine_total{kind="a"} 5.0' in shown
    assert 'simstream_test_mine_total{kind="b"} 1.0' in shown
    assert "simstream_test_theirs 7.0" in shown
    assert "process_open_fds 1e+06" not in shown
