"""User events from Kafka to Redis by one `behaviour` consumer, everything on the same two cores.

The events lie on the broker before the clock runs. First one process consumes and decodes them and does
nothing else; then the consumer works them off. Apache Kafka where Java and Maven are at hand, else Tansu.

Reads   nothing: events are drawn (items by Zipf 1.1, shoppers by Zipf 0.8, types mixed)
Writes  a broker and a Redis in a folder that goes away
Never   shares an interpreter with what it measures
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import redis
from confluent_kafka import Producer

from adapters.child import calm_collector
from adapters.kafka import KafkaSettings
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.kafka_reader import GroupReader
from adapters.metrics import IN_FLIGHT_RECORDS, RECORDS_TOTAL
from adapters.redis_client import RedisSettings
from app.local import LocalRedis, TansuBroker
from app.runners import state_runner
from app.settings import Settings
from app.wiring import open_behaviour, open_publisher
from benchmarks.harness import Figure, Report
from schemas.events import UserEvent
from schemas.parsing import parse_event
from tests.support.servers import ApacheKafka, LocalRedisCluster, missing

NAME = "behaviour"
SEED = 23
PARTITIONS = 12
ITEMS, SHOPPERS = 100_000, 200_000
TYPES = ("view", "click", "cart", "purchase", "share", "rate", "impression")
SHARES = (0.55, 0.15, 0.08, 0.04, 0.02, 0.02, 0.14)
#: At half of them every bucket of time that an item keeps has been filled: 32 days.
DAYS = 90
#: One Redis and a cluster are compared on so much less.
BESIDE = 10
_TICKS = os.sysconf("SC_CLK_TCK")


def run(*, small: bool, data: Path | None) -> Report:
    """5,000,000 events; 200,000 in small."""
    # Of fewer events fewer items are warm by half of them.
    count, warm = (200_000, 10) if small else (5_000_000, 100)
    reason = missing()
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="simstream-bench-")))
        broker: ApacheKafka | TansuBroker = (
            ApacheKafka(folder / "kafka") if reason is None else TansuBroker(folder / "tansu")
        )
        opened.enter_context(broker)
        store = opened.enter_context(LocalRedis(folder / "redis"))
        kafka = KafkaSettings(
            bootstrap_servers=broker.bootstrap_servers, partitions=PARTITIONS, replication_factor=1
        )
        settings = Settings(kafka=kafka, redis=RedisSettings(url=store.url))
        topics = settings.named_topics()
        ensure_topics(open_admin(kafka), topics.declared(), partitions=PARTITIONS, replication_factor=1)
        started = time.monotonic()
        _produce(broker.bootstrap_servers, topics.events.name, count)
        print(f"{count} events on the broker in {time.monotonic() - started:.0f} s", flush=True)
        bare = _child("bare", settings, count, {})
        watched = {"broker": broker.pid, "redis": store.pid}
        memory: list[dict[str, float]] = []
        found = _child(
            "consume", settings, count, watched, at_half=lambda: memory.append(_memory(store.url, warm))
        )
        memory.append(_memory(store.url, warm))
        beside = _beside(folder, kafka, count // BESIDE)
    rate = count / found["seconds"]
    bare_rate = count / bare["seconds"]
    figures = [
        Figure("user events, Kafka to Redis", rate, "events/s", 25_000, kind="rate", headline=True),
        Figure("the same over bare consume and decode", rate / bare_rate, "x", headline=True),
        Figure("bare consume and decode", bare_rate, "events/s", kind="rate"),
        *(
            Figure(f"cores used by {name}", found[f"cores {name}"], "cores")
            for name in ("consumer", "broker", "redis")
        ),
        Figure(
            f"memory of a warm item, all its keys, the largest of {warm}",
            memory[-1]["largest"],
            "bytes",
            6 * 1024,
            "at most",
            kind="count",
        ),
        Figure(
            f"median memory of the {warm} warmest items, at the end over at half of the events",
            memory[-1]["median"] / memory[0]["median"],
            "x",
            1.1,
            "at most",
            note="1 is flat",
        ),
        Figure("events counted", found["counted"], "events", count, kind="count"),
        *(
            Figure(f"Kafka to {name}", rate, "events/s", kind="rate", note=f"{count // BESIDE} events")
            for name, rate in beside.items()
        ),
    ]
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={
            "events": count,
            "items": ITEMS,
            "shoppers": SHOPPERS,
            "partitions": PARTITIONS,
            "seed": SEED,
            "broker": "Apache Kafka" if reason is None else "Tansu",
        },
        data="drawn events: items by Zipf 1.1, shoppers by Zipf 0.8, seven types, over 90 days",
        skipped=[] if reason is None else [f"Apache Kafka: {reason}"],
    )


def _beside(folder: Path, kafka: KafkaSettings, count: int) -> dict[str, float]:
    """Events/s into one Redis and into a cluster on the same cores, each new and with topics of its own."""
    rates = {}
    with LocalRedis(folder / "one") as one, LocalRedisCluster(folder / "three") as three:
        for name, place in (
            ("one Redis", RedisSettings(url=one.url)),
            ("a Redis Cluster of three nodes", RedisSettings(url=three.url, cluster=True)),
        ):
            settings = Settings(kafka=kafka, redis=place, namespace=f"{name.split()[-1]}.")
            topics = settings.named_topics()
            ensure_topics(open_admin(kafka), topics.declared(), partitions=PARTITIONS, replication_factor=1)
            _produce(kafka.bootstrap_servers, topics.events.name, count)
            found = _child("consume", settings, count, {})
            assert found["counted"] == count
            rates[name] = count / found["seconds"]
            print(f"{rates[name]:.0f} events/s to {name}", flush=True)
    return rates


def _produce(bootstrap: str, topic: str, count: int) -> None:
    draw = np.random.default_rng(SEED)
    items = _zipf(draw, ITEMS, 1.1, count)
    shoppers = _zipf(draw, SHOPPERS, 0.8, count)
    types = draw.choice(len(TYPES), size=count, p=SHARES)
    seconds = np.sort(draw.integers(0, DAYS * 86_400, size=count))
    start = datetime(2026, 8, 1, tzinfo=UTC)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 50,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for begin in range(0, count, 10_000):
        batch = []
        for place in range(begin, min(begin + 10_000, count)):
            kind = TYPES[types[place]]
            at = (start + timedelta(seconds=int(seconds[place]))).isoformat()
            value = ',"value":"4"' if kind == "rate" else ""
            body = (
                f'{{"kind":"user_event","event_id":"e{place}","type":"{kind}","user_id":"u{shoppers[place]}",'
                f'"product_id":"p{items[place]}","occurred_at":"{at}","session_id":"s{place // 7}"{value}}}'
            )
            batch.append({"key": f"u{shoppers[place]}", "value": body})
        while producer.produce_batch(topic, batch) < len(batch):
            batch = [message for message in batch if "_error" in message]
            for message in batch:
                del message["_error"]
            producer.poll(0.1)
    if producer.flush(120.0):
        raise RuntimeError("the broker did not acknowledge every event")


def _zipf(draw: np.random.Generator, size: int, exponent: float, count: int) -> Any:
    weights = 1.0 / np.arange(1, size + 1) ** exponent
    return np.searchsorted(np.cumsum(weights / weights.sum()), draw.random(count))


def _child(
    mode: str, settings: Settings, count: int, watched: dict[str, int], *, at_half: Any = None
) -> dict[str, float]:
    """Run one process over the whole topic; its seconds, and the cores everybody used meanwhile."""
    command = [sys.executable, "-m", "benchmarks.behaviour", mode, str(count)]
    environment = {
        **os.environ,
        "SIMSTREAM_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "SIMSTREAM_REDIS__URL": settings.redis.url,
        "SIMSTREAM_REDIS__CLUSTER": str(settings.redis.cluster),
        "SIMSTREAM_NAMESPACE": settings.namespace,
        "SIMSTREAM_LOG__LEVEL": "WARNING",
    }
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert child.stdout is not None
        before: dict[str, float] = {}
        for line in child.stdout:
            told = json.loads(line)
            if told["at"] == "start":
                before = {name: _cpu_seconds(pid) for name, pid in watched.items()}
            elif told["at"] == "half" and at_half is not None:
                at_half()
            elif told["at"] == "end":
                used = {name: _cpu_seconds(pid) - before[name] for name, pid in watched.items()}
                used["consumer"] = told["cpu"]
                shares = {f"cores {name}": seconds / told["seconds"] for name, seconds in used.items()}
                return {"seconds": told["seconds"], "counted": told["counted"], **shares}
        raise RuntimeError(f"the child ended early, exit code {child.wait()}")
    finally:
        child.kill()
        child.wait()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(url: str, warm: int) -> dict[str, float]:
    """Bytes of all keys of the warmest items, as Redis counts them."""
    with redis.Redis.from_url(url) as client:
        sizes = [
            sum(
                int(client.memory_usage(key, samples=0) or 0)
                for key in (f"item:{{p{number}}}:behaviour", f"item:{{p{number}}}:sketch")
            )
            for number in range(warm)
        ]
    return {"largest": max(sizes), "median": statistics.median(sizes)}


# --- the children -----------------------------------------------------------------------------------


def _tell(at: str, **fields: Any) -> None:
    print(json.dumps({"at": at, **fields}), flush=True)


def _settings() -> Settings:
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=os.environ["SIMSTREAM_KAFKA__BOOTSTRAP_SERVERS"], partitions=PARTITIONS
        ),
        redis=RedisSettings(
            url=os.environ["SIMSTREAM_REDIS__URL"], cluster=os.environ["SIMSTREAM_REDIS__CLUSTER"] == "True"
        ),
        namespace=os.environ["SIMSTREAM_NAMESPACE"],
    )


def bare(count: int) -> None:
    """Consume and decode every event, with every field validated."""
    settings = _settings()
    reader = GroupReader(settings.kafka, group="bare", client_id="bare")

    def ignore(*_: Any) -> None:
        return None

    reader.subscribe(
        [settings.named_topics().events.name],
        on_assign=ignore,
        on_revoke=ignore,
        on_lost=ignore,
        on_commit_error=ignore,
    )
    started, cpu, seen = None, 0.0, 0
    while seen < count:
        records = reader.poll(4_000, 0.5)
        if records and started is None:
            started, cpu = time.monotonic(), time.process_time()
            _tell("start")
        for record in records:
            parse_event(record.value or b"", UserEvent)
        seen += len(records)
    assert started is not None
    _tell("end", seconds=time.monotonic() - started, cpu=time.process_time() - cpu, counted=seen)


def consume(count: int) -> None:
    """The behaviour consumer, until it has settled every event."""
    settings = _settings()
    calm_collector()
    publisher = open_publisher(settings, "benchmark")
    runner = state_runner("behaviour", settings, publisher=publisher)
    topic = settings.named_topics().events.name
    thread = threading.Thread(target=runner.run, daemon=True)
    read = RECORDS_TOTAL.labels(consumer="behaviour", topic=topic)
    waiting = IN_FLIGHT_RECORDS.labels(consumer="behaviour")
    thread.start()

    def look() -> tuple[float, float]:
        if not thread.is_alive():
            raise RuntimeError("the consumer has ended")
        return _value(read), _value(waiting)

    marks = _marks(count, look)
    next(marks)
    started, cpu = time.monotonic(), time.process_time()
    _tell("start")
    next(marks)
    _tell("half")
    next(marks)
    seconds, used = time.monotonic() - started, time.process_time() - cpu
    store = open_behaviour(settings)
    counted = 0
    for page in store.scan_ids():
        counted += sum(sum(state.totals) for state in store.states(page) if state is not None)
    _tell("end", seconds=seconds, cpu=used, counted=counted)
    runner.stop()
    thread.join(30.0)
    publisher.close()


def _marks(count: int, look: Any) -> Iterator[None]:
    """At the first record, at half of them, and when all are settled."""
    for goal in (1, count // 2):
        while look()[0] < goal:
            time.sleep(0.01)
        yield
    while not (look()[0] >= count and look()[1] == 0):
        time.sleep(0.01)
    yield


def _value(metric: Any) -> float:
    found: float = metric._value.get()  # noqa: SLF001  prometheus_client has no reading side
    return found


if __name__ == "__main__":
    {"bare": bare, "consume": consume}[sys.argv[1]](int(sys.argv[2]))
