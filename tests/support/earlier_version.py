"""Fixtures of this version for later ones: what it reads, what it keeps in Redis and in the index, as files.

Reads   nothing
Writes  records.json, state.json, points.json, manifest.json and rollout.json into the folder it is given
Never   runs in a test: it is run once, in a checkout of the version that the folder is named after

    python -m tests.support.earlier_version tests/upgrades/VERSION

tests/connected/test_earlier_version.py reads them with the code of its own day.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from adapters.index_edge import EdgeIndex
from adapters.kafka_log import read_to_end
from adapters.redis_client import RedisSettings, connect
from app.local import LocalRedis, TansuBroker
from schemas.events import (
    ProductDeleted,
    ProductUpserted,
    ReviewPosted,
    ReviewRemoved,
    UserEvent,
    UserEventType,
)
from schemas.releases import EncoderConfig, FileEntry, Manifest
from schemas.rollouts import Rollout
from schemas.vectors import SparseVector
from tests.support.draining import quick_settings
from tests.support.pipeline import Pipeline

NAMESPACE = "earlier."
PARTITIONS = 2
TYPES: tuple[UserEventType, ...] = ("view", "click", "cart", "purchase", "rate", "impression")


def products(at: datetime) -> Iterable[ProductUpserted | ProductDeleted]:
    """Nine products; one is sold out later, one renamed, one deleted, one comes back."""
    for number in range(8):
        yield ProductUpserted(
            product_id=f"p{number}",
            revision=number + 1,
            occurred_at=at,
            title=f"Wireless headphones {number}, noise cancelling",
            brand="Norda" if number % 2 else None,
            category=["Audio", "Headphones"],
            attributes={"colour": ["black", "white"], "weight": "210 g"},
            price=Decimal("19.90"),
            currency="EUR",
            in_stock=True,
            group_id="g1",
        )
    yield ProductUpserted(product_id="p1", revision=100, occurred_at=at, title="Sold out", in_stock=False)
    yield ProductUpserted(product_id="p2", revision=100, occurred_at=at, title="越野跑鞋 男款 黑色")
    yield ProductDeleted(product_id="p3", revision=100, occurred_at=at)
    yield ProductDeleted(product_id="p4", revision=100, occurred_at=at)
    yield ProductUpserted(product_id="p4", revision=101, occurred_at=at, title="Back again")


def reviews(at: datetime) -> Iterable[ReviewPosted | ReviewRemoved]:
    """A dozen on three products, one of them taken back."""
    for number in range(12):
        yield ReviewPosted(
            review_id=f"r{number}",
            product_id=f"p{number % 3}",
            user_id=f"u{number}",
            revision=1,
            occurred_at=at,
            rating=1 + number % 5,
            title=f"Number {number}",
            text="Great sound, a bit heavy after some hours.",
            helpful_votes=number,
        )
    yield ReviewRemoved(review_id="r4", product_id="p1", revision=2, occurred_at=at)


def events(at: datetime) -> Iterable[UserEvent]:
    """Two hundred, of twenty shoppers; every tenth comes twice."""
    for number in range(200):
        event = UserEvent(
            event_id=f"e{number}",
            type=TYPES[number % len(TYPES)],
            user_id=f"u{number % 20}",
            product_id=f"p{number % 7}",
            occurred_at=at + timedelta(seconds=number),
            session_id=f"s{number % 20}",
            value=Decimal("4.5") if TYPES[number % len(TYPES)] == "rate" else None,
        )
        yield event
        if number % 10 == 0:
            yield event


def written(values: Iterable[Any]) -> list[str]:
    """Bytes as text that gives them back."""
    return [value.decode("latin-1") for value in values]


def records_of(pipeline: Pipeline) -> list[dict[str, Any]]:
    """What every topic holds."""
    topics = pipeline.topics
    return [
        {
            "role": role,
            "topic_id": record.topic_id,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp_ms": record.timestamp_ms,
            "key": None if record.key is None else record.key.decode(),
            "value": None if record.value is None else record.value.decode(),
        }
        for role in ("products", "reviews", "events", "changed", "updated")
        for record in sorted(
            read_to_end(pipeline.settings, getattr(topics, role).name),
            key=lambda record: (record.partition, record.offset),
        )
    ]


def state_of(redis_url: str) -> list[dict[str, Any]]:
    """Every key of the namespace, by its type and not as Redis packs it: that differs by Redis' version."""
    client: Any = connect(RedisSettings(url=redis_url))
    found = []
    for key in sorted(client.scan_iter(match=f"{NAMESPACE}*", count=1000)):
        kind = client.type(key).decode()
        value: Any
        if kind == "hash":
            value = [written(pair) for pair in sorted(client.hgetall(key).items())]
        elif kind == "zset":
            value = [
                [*written([member]), repr(score)]
                for member, score in client.zrange(key, 0, -1, withscores=True)
            ]
        elif kind == "set":
            value = sorted(written(client.smembers(key)))
        else:
            (value,) = written([client.get(key)])
        found.append({"key": key.decode(), "type": kind, "value": value})
    return found


def points_of(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Every point with its vectors."""
    names = [f"p{number}" for number in range(8)]
    found = pipeline.index.fetch(pipeline.collection, names, vectors=True)
    return [
        {
            "product_id": point.product_id,
            "payload": dict(point.payload),
            "vectors": {
                name: [list(vector.indices), [float(one) for one in vector.values]]
                if isinstance(vector, SparseVector)
                else [float(one) for one in vector]
                for name, vector in point.vectors.items()
            },
        }
        for _, point in sorted(found.items())
    ]


def main(folder: Path) -> None:
    """Run the consumers of this version over a small shop, and write down what they leave."""
    at = datetime.now(UTC) - timedelta(minutes=10)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory() as aside,
        LocalRedis(Path(aside) / "redis") as redis,
        TansuBroker(Path(aside) / "broker") as broker,
    ):
        index = EdgeIndex(Path(aside) / "index")
        with Pipeline(
            kafka=quick_settings(broker, partitions=PARTITIONS),
            redis_url=redis.url,
            namespace=NAMESPACE,
            index=index,
        ) as pipeline:
            pipeline.start_reviews()
            pipeline.start_behaviour()
            for part in (products(at), reviews(at), events(at)):
                pipeline.publish(part)
                pipeline.wait_until_drained()
            pipeline.send("p5", None)
            pipeline.wait_until_drained()
            found = {
                "records": records_of(pipeline),
                "state": state_of(redis.url),
                "points": points_of(pipeline),
            }
        index.close()
    for name, content in found.items():
        lines = ",\n".join(json.dumps(one, ensure_ascii=True, separators=(",", ":")) for one in content)
        (folder / f"{name}.json").write_text(f"[\n{lines}\n]\n")
    manifest = Manifest(
        release_id="all-minilm-l6-v2",
        created_at=at,
        base_model="sentence-transformers/all-MiniLM-L6-v2",
        dimension=384,
        encoder=EncoderConfig(pooling="mean", max_length=256),
        files={"model.safetensors": FileEntry(sha256="0" * 64, size_bytes=1)},
        figures={"recall@10": 0.5},
    )
    rollout = Rollout(release_id=manifest.release_id, collection=f"items__{manifest.release_id}__0", since=at)
    for file, model in (("manifest", manifest), ("rollout", rollout)):
        (folder / f"{file}.json").write_text(model.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
